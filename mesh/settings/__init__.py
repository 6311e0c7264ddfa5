"""The configuration file ``mesh.toml`` → frozen settings, or one clear line.

text → ``tomllib`` → ``${ENV}`` expansion → each key against a table of what is known
there → ``Settings``.  Whatever is wrong is a ``ConfigError`` that names the file, the
line and what was expected; ``tomllib`` keeps no lines, so ``lines`` finds them
again in the text when (and only when) there is a mistake to report.

Tables of ``[[bridge]]`` are read by the bridges, who know their own keys, where the caller says so; else only
their ``kind`` is checked.  Those of ``[[allow]]`` become ``Config.rules``.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, NoReturn

from mesh.config import ACTIONS, Config, Limits, Rule
from mesh.core.rules import MAX_SCOPES
from mesh.errors import ConfigError
from mesh.settings.forms import (
    Form,
    host_port,
    list_of,
    number_like,
    one_of,
    one_or_more,
    origin,
    perhaps,
    quote,
    reject_dial,
    reject_file,
    reject_host,
    reject_listen,
    reject_name,
    reject_pattern,
    reject_role,
    show,
    table,
    tables,
    texts,
)
from mesh.settings.lines import KeyPath, line_of

__all__ = [
    "BRIDGE_KINDS",
    "DISCOVERY",
    "LOG_LEVELS",
    "HttpSettings",
    "NodeSettings",
    "ReadBridge",
    "Settings",
    "load",
    "parse",
]

ReadBridge = Callable[[Mapping[str, Any]], Any]
"""Makes a bridge's settings of its table, or raises ``ConfigError`` with the key inside the table."""

BRIDGE_KINDS: Final = ("redis", "rabbitmq", "kafka")
DISCOVERY: Final = ("mdns", "scout")
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
MAX_FILE_BYTES: Final = 1 << 20  # a configuration, not a data file


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """``[node]``. ``name`` and ``listen`` are None where the file leaves them to the node."""

    name: str | None = None
    listen: tuple[str, ...] | None = None
    connect: tuple[str, ...] = ()
    discovery: tuple[str, ...] = DISCOVERY
    log: str = "info"
    config: Config = field(default_factory=Config.lan)


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """``[http]``: the gateway's address (``HOST:PORT``), the Origins that browsers may come from, further names
    that it is reached by, and for TLS the files of a certificate and its key."""

    listen: str = "127.0.0.1:7480"
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    certificate: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """One ``mesh.toml``. ``http`` is None without its table; bridges' tables may hold secrets."""

    node: NodeSettings = field(default_factory=NodeSettings)
    http: HttpSettings | None = None
    bridges: tuple[Any, ...] = field(default=(), repr=False)
    """What ``read_bridge`` made of each table; the tables themselves if there was none."""
    allow: tuple[Rule, ...] = ()
    file: str = ""


def load(
    path: Path, environment: Mapping[str, str] = os.environ, *, read_bridge: ReadBridge | None = None
) -> Settings:
    """Read a configuration file. Raises ``ConfigError`` naming the file, the line and what was expected.

    ``read_bridge`` makes a bridge's settings of its table. Its ``ConfigError`` names a key inside the table. Without
    it the tables stay as they are, ``${ENV}`` and all.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or error}", file=str(path)) from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"is over {MAX_FILE_BYTES} bytes, which is no configuration", file=str(path))
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError("is not UTF-8 text", file=str(path), line=line) from None
    return parse(text, file=str(path), environment=environment, read_bridge=read_bridge)


def parse(
    text: str,
    *,
    file: str = "mesh.toml",
    environment: Mapping[str, str] = os.environ,
    read_bridge: ReadBridge | None = None,
) -> Settings:
    """The settings that ``text`` (TOML) states. Raises ``ConfigError``."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        reason, line = _toml_mistake(str(error), text)
        raise ConfigError(reason, file=file, line=line) from None
    return _Reader(text, file, environment, read_bridge).settings(document)


def _toml_mistake(message: str, text: str) -> tuple[str, int]:
    found = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
    if found is None:
        return f"is not TOML: {message}", 0
    line = int(found[1]) if found[1] else max(1, len(text.splitlines()))
    column = f" (column {found[2]})" if found[2] else " (end of the file)"
    return f"is not TOML: {message[: found.start()]}{column}", line


# -- what is known where --------------------------------------------------------------------

_Forms = Mapping[str, Form]

_TIMES: Final = {
    each.name: getattr(Config(), each.name) for each in fields(Config) if each.name not in ("limits", "rules")
}
_LIMITS: Final = {each.name: getattr(Limits(), each.name) for each in fields(Limits)}

_DOCUMENT: Final[_Forms] = {"node": table, "http": table, "bridge": tables, "allow": tables}
_NODE: Final[_Forms] = {
    "name": reject_name,
    "listen": list_of(reject_listen, "endpoints"),
    "connect": list_of(reject_dial, "endpoints"),
    "discovery": list_of(one_of(DISCOVERY), "mechanisms"),
    "log": one_of(LOG_LEVELS),
    "preset": one_of(("lan", "local")),
    "tuning": table,
    "limits": table,
}
_HTTP: Final[_Forms] = {
    "listen": host_port,
    "origins": list_of(origin, "Origins"),
    "hosts": list_of(reject_host, "names"),
    "certificate": reject_file,
    "key": reject_file,
}
_TUNING: Final[_Forms] = {name: number_like(value) for name, value in _TIMES.items()}
_LIMIT: Final[_Forms] = {name: number_like(value) for name, value in _LIMITS.items()}
_BRIDGE_ROUTES: Final[_Forms] = {"export": tables, "import": tables}

_ALLOW: Final[_Forms] = {
    "action": one_or_more(one_of(ACTIONS), "actions"),
    "pattern": one_or_more(reject_pattern, "patterns"),
    "member": one_or_more(reject_name, "members"),
    "role": one_or_more(reject_role, "roles"),
}

_VARIABLE = re.compile(r"\$(\$?)\{([^}]*)\}")


class _Reader:
    """One document on its way into settings; knows where to point when it is wrong."""

    def __init__(
        self, text: str, file: str, environment: Mapping[str, str], read_bridge: ReadBridge | None
    ) -> None:
        self._read_bridge = read_bridge
        self._text = text
        self._file = file
        self._environment = environment

    def settings(self, document: dict[str, Any]) -> Settings:
        document = {
            # Who runs no bridge need not know their secrets.
            key: value if key == "bridge" and self._read_bridge is None else self._expand(value, (key,))
            for key, value in document.items()
        }
        self._check(document, _DOCUMENT, ())
        node = document.get("node", {})
        self._check(node, _NODE, ("node",))
        self._check(node.get("tuning", {}), _TUNING, ("node", "tuning"))
        self._check(node.get("limits", {}), _LIMIT, ("node", "limits"))
        http = document.get("http")
        if http is not None:
            self._check(http, _HTTP, ("http",))
        rules = tuple(self._rule(each, number) for number, each in enumerate(document.get("allow", ())))
        self._count_scopes(rules)
        bridges = tuple(
            self._bridge(bridge, ("bridge", number))
            for number, bridge in enumerate(document.get("bridge", ()))
        )
        return Settings(
            node=self._node(node, rules),
            http=None if http is None else self._http(http),
            bridges=bridges,
            allow=rules,
            file=self._file,
        )

    def _http(self, http: dict[str, Any]) -> HttpSettings:
        if "key" in http and "certificate" not in http:
            self._fail(("http", "key"), "needs a certificate")
        default = HttpSettings()
        return HttpSettings(
            listen=http.get("listen", default.listen),
            origins=tuple(http.get("origins", ())),
            hosts=tuple(http.get("hosts", ())),
            certificate=http.get("certificate", ""),
            key=http.get("key", ""),
        )

    @staticmethod
    def _node(node: dict[str, Any], rules: tuple[Rule, ...]) -> NodeSettings:
        config = Config.local() if node.get("preset") == "local" else Config.lan()
        limits = replace(config.limits, **node.get("limits", {}))
        tuning = {k: type(_TIMES[k])(v) for k, v in node.get("tuning", {}).items()}
        listen = node.get("listen")
        return NodeSettings(
            name=node.get("name"),
            listen=None if listen is None else tuple(listen),
            connect=tuple(node.get("connect", ())),
            discovery=tuple(dict.fromkeys(node.get("discovery", DISCOVERY))),
            log=node.get("log", "info"),
            config=replace(config, limits=limits, rules=rules or None, **tuning),
        )

    def _check(self, table: dict[str, Any], forms: _Forms, path: KeyPath) -> None:
        for key, value in table.items():
            form = forms.get(key)
            if form is None:
                known = ", ".join(forms) if len(forms) <= 8 else "see docs/reference/configuration.md"
                self._fail((*path, key), f"is not known here{perhaps(key, forms)}; known: {known}")
            reason = form(value)
            if reason is not None:
                shown = "" if " not " in reason or isinstance(value, (dict, list)) else f", not {show(value)}"
                self._fail((*path, key), reason + shown)

    def _rule(self, rule: dict[str, Any], number: int) -> Rule:
        path: KeyPath = ("allow", number)
        self._check(rule, _ALLOW, path)
        for key, example in (("action", '"publish"'), ("pattern", '"home/**"')):
            if key not in rule:
                self._fail(path, f"has no {key}: expected one, such as {example}, or a list")
        return Rule(
            actions=texts(rule["action"]),
            patterns=texts(rule["pattern"]),
            members=texts(rule.get("member", [])),
            roles=texts(rule.get("role", [])),
            name=f"allow[{number + 1}]",
        )

    def _count_scopes(self, rules: tuple[Rule, ...]) -> None:
        scopes = {pattern for rule in rules if "subscribe" in rule.actions for pattern in rule.patterns}
        if len(scopes) > MAX_SCOPES:
            self._fail(("allow",), f"{MAX_SCOPES} patterns with reader rules are the most, not {len(scopes)}")

    def _bridge(self, bridge: dict[str, Any], path: KeyPath) -> Any:
        if "kind" not in bridge:
            self._fail(path, f"has no kind: expected one of {', '.join(map(quote, BRIDGE_KINDS))}")
        reason = one_of(BRIDGE_KINDS)(bridge["kind"])
        if reason is not None:
            self._fail((*path, "kind"), f"{reason}, not {show(bridge['kind'])}")
        self._check({k: v for k, v in bridge.items() if k in _BRIDGE_ROUTES}, _BRIDGE_ROUTES, path)
        if self._read_bridge is None:
            return bridge
        try:
            return self._read_bridge(bridge)
        except ConfigError as error:
            self._fail((*path, *_key_path(error.key)), error.reason)

    # -- ${ENV} ------------------------------------------------------------------------

    def _expand(self, value: Any, path: KeyPath) -> Any:
        if isinstance(value, dict):
            return {key: self._expand(each, (*path, key)) for key, each in value.items()}
        if isinstance(value, list):
            return [self._expand(each, (*path, number)) for number, each in enumerate(value)]
        if isinstance(value, str) and "${" in value:
            return _VARIABLE.sub(lambda found: self._variable(found, path), value)
        return value

    def _variable(self, found: re.Match[str], path: KeyPath) -> str:
        if found[1]:  # $${…} stands for ${…} itself
            return found[0][1:]
        text = self._environment.get(found[2])
        if text is None:
            self._fail(
                path, f"the environment has no variable {found[2]!r} (write $${{…}} for a literal ${{…}})"
            )
        return text

    # -- saying where ------------------------------------------------------------------

    def _fail(self, path: KeyPath, reason: str) -> NoReturn:
        raise ConfigError(reason, key=_path_text(path), file=self._file, line=line_of(self._text, path))


def _key_path(text: str) -> KeyPath:
    """``export[2].to`` as a path."""
    return tuple(
        int(number) - 1 if number else name for number, name in re.findall(r"\[(\d+)\]|([^.\[\]]+)", text)
    )


def _path_text(path: KeyPath) -> str:
    text = ""
    for part in path:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return text
