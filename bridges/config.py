"""A ``[[bridge]]`` table → ``BridgeSettings``, or one clear line.

    table → the forms that every bridge knows, and those of its kind → templates and patterns read → settings

Whatever is wrong is a ``ConfigError`` whose ``key`` says where inside the table (``export[2].to``); who read
the file adds its name and the line.  Nothing that may hold a secret (``url``, ``password``, what stands
under ``options``) is ever part of the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn, cast
from urllib.parse import unquote

import mesh
from bridges.base import Kind
from bridges.forms import Form, Forms, Secret, count, flag, one_of, perhaps, seconds, table, text
from bridges.kinds import kind_named
from bridges.mapping import LEVEL, SourcePattern, Template, reject_topic
from bridges.settings import (
    SPOOL_BYTES,
    Address,
    BridgeSettings,
    ExportRoute,
    ImportRoute,
    SpoolSettings,
    Tls,
)
from mesh.errors import ConfigError

__all__ = ["bridge_reader", "read_bridge"]

MAX_SECRET_FILE: Final = 64 << 10

_BRIDGE: Final[Forms] = {
    "kind": text,
    "name": text,
    "url": text,
    "username": text,
    "password": text,
    "password_file": text,
    "tls": table,
    "options": table,
    "spool": table,
    "export": lambda value: None,
    "import": lambda value: None,
}
_TLS: Final[Forms] = {"ca": text, "certificate": text, "key": text}
_SPOOL: Final[Forms] = {"folder": text, "bytes": count, "full": one_of("block", "drop_oldest", "drop_newest")}
_ROUTE: Final[Forms] = {
    "reliable": flag,
    "format": one_of("raw", "json", "cbor"),
    "decrypt": flag,
    "separator": text,
    "request": flag,
    "timeout": seconds,
}
_EXPORT: Final[Forms] = {"pattern": text, "to": text, **_ROUTE, "dead_letter": text}
_IMPORT: Final[Forms] = {"from": text, "topic": text, **_ROUTE}

_HIDDEN: Final = ("url", "password", "options")
"""Keys whose values no message repeats."""


def read_bridge(
    document: Mapping[str, Any], *, kind_named: Callable[[str], Kind] = kind_named
) -> BridgeSettings:
    """The settings that one ``[[bridge]]`` table states. Raises ``ConfigError``; secrets never stand in it."""
    name = document.get("kind")
    if not isinstance(name, str):
        raise ConfigError("has no kind", key="kind")
    kind = kind_named(name)
    return _Reader(kind).bridge(document)


def bridge_reader() -> Callable[[Mapping[str, Any]], BridgeSettings]:
    """``read_bridge`` for all tables of one file: names that are taken are a mistake, too."""
    names: set[str] = set()

    def read(document: Mapping[str, Any]) -> BridgeSettings:
        settings = read_bridge(document)
        if settings.name in names:
            key = "name" if "name" in document else "kind"
            _fail(
                key,
                f'another bridge of this file is called "{settings.name}": give this one a name of its own',
            )
        names.add(settings.name)
        return settings

    return read


def _fail(key: str, reason: str) -> NoReturn:
    raise ConfigError(reason, key=key)


class _Reader:
    """One table on its way into settings."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    def bridge(self, document: Mapping[str, Any]) -> BridgeSettings:
        kind = self._kind
        self._check(document, _BRIDGE, "")
        options = document.get("options", {})
        if kind.options is None:
            options = _dotted(options)
        for key, value in options.items():
            form = _plain if kind.options is None else kind.options.get(key)
            self._judge(key, value, form, kind.options or {}, "options")
        tls = document.get("tls", {})
        self._check(tls, _TLS, "tls")
        spool = document.get("spool", {})
        self._check(spool, _SPOOL, "spool")
        address = self._address(document)
        if tls and not address.tls:
            secure = [scheme for scheme, means_tls in kind.schemes.items() if means_tls]
            _fail("tls", f"needs a url that begins with {' or '.join(f'{each}://' for each in secure)}")
        if "key" in tls and "certificate" not in tls:
            _fail("tls.key", "needs a certificate beside it")
        settings = BridgeSettings(
            kind=kind.name,
            name=document.get("name", kind.name),
            address=address,
            exports=tuple(self._export(route, number) for number, route in self._routes(document, "export")),
            imports=tuple(self._import(route, number) for number, route in self._routes(document, "import")),
            tls=Tls(*(Path(tls[key]) if key in tls else None for key in _TLS)),
            options=dict(options),
            spool=SpoolSettings(
                folder=Path(spool["folder"]) if "folder" in spool else None,
                bytes=spool.get("bytes", SPOOL_BYTES),
                full=spool.get("full", "block"),
            ),
        )
        if re.fullmatch(r"[\w.-]{1,64}", settings.name) is None:
            _fail("name", "expected 1 to 64 letters, digits, dots, dashes and underscores")
        if not settings.exports and not settings.imports:
            _fail("kind", "has no route beside it: expected [[bridge.export]] or [[bridge.import]]")
        settings.ssl_context()  # files that cannot be read are mistakes of the configuration
        kind.check(settings)
        return settings

    # -- forms ---------------------------------------------------------------------------

    def _check(self, document: Mapping[str, Any], forms: Forms, where: str) -> None:
        for key, value in document.items():
            self._judge(key, value, forms.get(key), forms, where)

    @staticmethod
    def _judge(key: str, value: Any, form: Form | None, forms: Forms, where: str) -> None:
        path = f"{where}.{key}" if where else key
        if form is None:
            _fail(path, f"is not known here{perhaps(key, forms)}; known: {', '.join(forms) or 'none'}")
        reason = form(value)
        if reason is not None:
            hidden = path.split(".")[0] in _HIDDEN or isinstance(value, (dict, list))
            _fail(path, reason if hidden else f"{reason}, not {_shown(value)}")

    @staticmethod
    def _routes(document: Mapping[str, Any], direction: str) -> list[tuple[int, dict[str, Any]]]:
        routes = document.get(direction, [])
        if not isinstance(routes, list) or not all(isinstance(route, dict) for route in routes):
            _fail(direction, f"expected an array of tables, each begun with [[bridge.{direction}]]")
        return list(enumerate(routes, 1))

    # -- address -------------------------------------------------------------------------

    def _address(self, document: Mapping[str, Any]) -> Address:
        kind = self._kind
        example = f"{next(iter(kind.schemes))}://127.0.0.1:{kind.port}"
        if "url" not in document:
            _fail("url", f'is missing: expected the address of the broker, such as "{example}"')
        expected = f'expected the address of the broker, such as "{example}"'
        found = re.fullmatch(r"([a-z][a-z0-9+]*)://(?:([^/?#]*)@)?([^@/?#]*)(?:/([^?#]*))?", document["url"])
        if found is None:
            _fail("url", f"{expected} (further settings go under options)")
        scheme, credentials, hosts, path = found.groups(default="")
        if scheme not in kind.schemes:
            _fail("url", f"{expected}; its scheme is one of {', '.join(kind.schemes)}")
        username, _, password = credentials.partition(":")
        return Address(
            scheme,
            tuple(self._host(each, expected) for each in hosts.split(",")),
            unquote(path),
            document.get("username", unquote(username)),
            self._password(document, unquote(password)),
            kind.schemes[scheme],
        )

    def _host(self, host: str, expected: str) -> tuple[str, int]:
        found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:\[\]]+))(?::(\d{1,5}))?", host)
        if found is None or int(found[3] or 1) not in range(1, 65536):
            _fail("url", expected)
        return found[1] or found[2], int(found[3] or self._kind.port)

    @staticmethod
    def _password(document: Mapping[str, Any], in_url: str) -> Secret:
        given = [key for key in ("password", "password_file") if key in document]
        if len(given) + bool(in_url) > 1:
            _fail(given[-1], "is a second password: give one, in the url, as password or in password_file")
        if "password_file" not in document:
            return Secret(document.get("password", in_url))
        path = Path(document["password_file"])
        try:
            with path.open(encoding="utf-8") as stream:
                return Secret(stream.read(MAX_SECRET_FILE).rstrip("\r\n"))
        except OSError as error:
            _fail("password_file", f"{path} cannot be read: {error.strerror or error}")
        except UnicodeDecodeError:
            _fail("password_file", f"{path} is not UTF-8 text")

    # -- routes --------------------------------------------------------------------------

    def _export(self, route: dict[str, Any], number: int) -> ExportRoute:
        kind, where = self._kind, f"export[{number}]"
        templates = dict.fromkeys(kind.export_templates, text)
        self._check(route, {**_EXPORT, **kind.export_options, **templates}, where)
        pattern = self._needed(route, "pattern", where, "a mesh pattern")
        try:
            levels = mesh.Pattern.parse(pattern).levels
        except mesh.TopicError as error:
            _fail(f"{where}.pattern", error.reason)
        wildcards = sum(level in ("*", "**") for level in levels)
        if pattern.startswith("@"):
            _fail(f"{where}.pattern", "what begins with '@' is the mesh's own")
        self._needed(route, "to", where, "a template for the destination")
        dead_letter = route.get("dead_letter", "")
        if dead_letter:
            self._judge_dead_letter(dead_letter, pattern, route, where)
        read = {
            key: self._template(route[key], f"{where}.{key}", wildcards)
            for key in ("to", *kind.export_templates)
            if key in route
        }
        return ExportRoute(
            number=number,
            pattern=pattern,
            to=read.pop("to"),
            dead_letter=dead_letter,
            templates=read,
            options={key: route[key] for key in kind.export_options if key in route},
            **self._common(route, where),
        )

    @staticmethod
    def _judge_dead_letter(topic: str, pattern: str, route: dict[str, Any], where: str) -> None:
        fault = reject_topic(topic)
        if fault is None and mesh.Pattern.parse(pattern).captures(topic) is not None:
            fault = "is a topic that this route exports: letters need another"
        if fault is None and route.get("request", False):
            fault = "has no meaning for requests: who asked is told"
        if fault is not None:
            _fail(f"{where}.dead_letter", fault)

    def _import(self, route: dict[str, Any], number: int) -> ImportRoute:
        kind, where = self._kind, f"import[{number}]"
        self._check(route, {**_IMPORT, **kind.import_options}, where)
        source = self._source(self._needed(route, "from", where, "what to read at the broker"), where)
        topic = self._needed(route, "topic", where, "a template for the mesh topic")
        template = self._template(topic, f"{where}.topic", source.wildcards)
        if template.fixed:
            fault = reject_topic(template.fill("", (), separator=LEVEL, to=LEVEL))
            if fault is not None:
                _fail(f"{where}.topic", fault)
        return ImportRoute(
            number=number,
            source=source,
            topic=template,
            options={key: route[key] for key in kind.import_options if key in route},
            **self._common(route, where),
        )

    def _common(self, route: dict[str, Any], where: str) -> dict[str, Any]:
        if route.get("request", False) and not self._kind.requests:
            _fail(f"{where}.request", f"{self._kind.name} carries no requests")
        if not route.get("decrypt", True):
            for key in ("format", "request"):
                if key in route:
                    _fail(f"{where}.{key}", "has no meaning for values that stay sealed (decrypt = false)")
        return {
            "separator": route.get("separator", self._kind.separator),
            **{key: route[key] for key in ("reliable", "format", "decrypt", "request") if key in route},
            **({"timeout": float(route["timeout"])} if "timeout" in route else {}),
        }

    @staticmethod
    def _needed(route: dict[str, Any], key: str, where: str, what: str) -> str:
        if key not in route:
            _fail(f"{where}.{key}", f"is missing: expected {what}")
        return cast("str", route[key])

    def _source(self, pattern: str, where: str) -> SourcePattern:
        try:
            return self._kind.source(pattern)
        except ValueError as error:
            _fail(f"{where}.from", str(error))

    @staticmethod
    def _template(given: str, where: str, wildcards: int) -> Template:
        try:
            return Template.parse(given, wildcards=wildcards)
        except ValueError as error:
            _fail(where, str(error))


def _dotted(options: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Tables within tables as dotted names: what TOML makes of ``security.protocol = …`` without quotes."""
    found: dict[str, Any] = {}
    for key, value in options.items():
        found |= _dotted(value, f"{before}{key}.") if isinstance(value, dict) else {before + key: value}
    return found


def _plain(value: Any) -> str | None:
    return (
        None if isinstance(value, (str, int, float, bool)) else "expected a text, a number, or true or false"
    )


def _shown(value: Any) -> str:
    shown = f'"{value}"' if isinstance(value, str) else repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
