"""The configuration file ``mesh.toml`` → frozen settings, or one clear line.

text → ``tomllib`` → ``${ENV}`` expansion → each key against a table of what is known
there → ``Settings``.  Whatever is wrong is a ``ConfigError`` that names the file, the
line and what was expected; ``tomllib`` keeps no lines, so ``_Lines`` finds them
again in the text when (and only when) there is a mistake to report.

Tables of ``[[bridge]]`` are handed on as they are (the bridges know their own keys); only
their ``kind`` is checked here.  So are those of ``[[allow]]``.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, NoReturn

from mesh.config import Config, Limits
from mesh.errors import ConfigError

__all__ = [
    "BRIDGE_KINDS",
    "DISCOVERY",
    "LOG_LEVELS",
    "HttpSettings",
    "NodeSettings",
    "Settings",
    "load",
    "parse",
    "reject_dial",
    "reject_listen",
    "reject_name",
]

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
    """``[http]``: the gateway's address (``HOST:PORT``) and the Origins that browsers may come from."""

    listen: str = "127.0.0.1:7480"
    origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """One ``mesh.toml``. ``http`` is None without its table; bridges' tables may hold secrets."""

    node: NodeSettings = field(default_factory=NodeSettings)
    http: HttpSettings | None = None
    bridges: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    allow: tuple[Mapping[str, Any], ...] = ()
    file: str = ""


def load(path: Path, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read a configuration file. Raises ``ConfigError`` naming the file, the line and what was expected."""
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
    return parse(text, file=str(path), environment=environment)


def parse(text: str, *, file: str = "mesh.toml", environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings that ``text`` (TOML) states. Raises ``ConfigError``."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        reason, line = _toml_mistake(str(error), text)
        raise ConfigError(reason, file=file, line=line) from None
    return _Reader(text, file, environment).settings(document)


def _toml_mistake(message: str, text: str) -> tuple[str, int]:
    found = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
    if found is None:
        return f"is not TOML: {message}", 0
    line = int(found[1]) if found[1] else max(1, len(text.splitlines()))
    column = f" (column {found[2]})" if found[2] else " (end of the file)"
    return f"is not TOML: {message[: found.start()]}{column}", line


# -- forms: what a value must be. Each returns what was expected, or None if it is that ------


def reject_name(value: Any) -> str | None:
    """Why this can't be a node's name, or None."""
    if isinstance(value, str) and 0 < len(value) <= 64 and value.isprintable() and value == value.strip():
        return None
    return 'expected a name: 1 to 64 printable characters, such as "kitchen"'


_TCP = re.compile(r"tcp://(\[[0-9a-fA-F:.]+(?:%[\w.-]+)?\]|[^:/\[\]\s]+):(\d{1,5}|\*)")


def reject_listen(value: Any) -> str | None:
    """Why a node can't listen on this endpoint, or None."""
    if isinstance(value, str):
        found = _TCP.fullmatch(value)
        if found and (found[2] == "*" or int(found[2]) < 65536):
            return None
        if value.startswith("ipc://") and len(value) > 6:
            return None
    return 'expected an endpoint to listen on, such as "tcp://*:7400" or "ipc:///run/mesh/node"'


def reject_dial(value: Any) -> str | None:
    """Why this endpoint can't be dialled, or None."""
    if isinstance(value, str):
        found = _TCP.fullmatch(value)
        if (
            found
            and found[1] not in ("*", "0.0.0.0", "[::]")
            and found[2] != "*"
            and 0 < int(found[2]) < 65536
        ):  # noqa: S104 - refused, not bound
            return None
        if value.startswith("ipc://") and len(value) > 6:
            return None
    return 'expected the endpoint of a peer, such as "tcp://cellar.local:7400"'


_HOST_PORT = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:/\[\]\s]+):(\d{1,5})")


def _host_port(value: Any) -> str | None:
    found = _HOST_PORT.fullmatch(value) if isinstance(value, str) else None
    if found and int(found[2]) < 65536:
        return None
    return 'expected HOST:PORT, such as "127.0.0.1:7480"'


def _origin(value: Any) -> str | None:
    if isinstance(value, str) and re.fullmatch(r"https?://[^/?#\s@*]+", value):
        return None
    return 'expected an Origin, such as "https://panel.example" (no path, no *)'


def _one_of(choices: Iterable[str]) -> Callable[[Any], str | None]:
    known = tuple(choices)

    def check(value: Any) -> str | None:
        if value in known and isinstance(value, str):
            return None
        return f"expected one of {', '.join(_quote(each) for each in known)}{_perhaps(value, known)}"

    return check


def _list_of(check: Callable[[Any], str | None], what: str) -> Callable[[Any], str | None]:
    def check_all(value: Any) -> str | None:
        if not isinstance(value, list):
            return f"expected a list of {what}"
        for item in value:
            reason = check(item)
            if reason is not None:
                return f"{reason}, not {_show(item)}"
        return None

    return check_all


def _number_like(default: float) -> Callable[[Any], str | None]:
    whole = isinstance(default, int)

    def check(value: Any) -> str | None:
        kinds = int if whole else (int, float)
        if isinstance(value, kinds) and not isinstance(value, bool) and 0 < value < float("inf"):
            return None
        return f"expected a {'whole ' if whole else ''}number above 0, such as {default:g}"

    return check


def _table(value: Any) -> str | None:
    return None if isinstance(value, dict) else "expected a table"


def _tables(value: Any) -> str | None:
    if isinstance(value, list) and all(isinstance(each, dict) for each in value):
        return None
    return "expected an array of tables, each begun with double brackets"


def _quote(text: str) -> str:
    return f'"{text}"'


def _show(value: Any) -> str:
    shown = _quote(value) if isinstance(value, str) else repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _perhaps(value: Any, known: Iterable[str]) -> str:
    """A did-you-mean for a name that is nearly a known one."""
    near = difflib.get_close_matches(value, tuple(known), n=1, cutoff=0.6) if isinstance(value, str) else []
    return f" (did you mean {_quote(near[0])}?)" if near else ""


# -- what is known where --------------------------------------------------------------------

_Forms = Mapping[str, Callable[[Any], str | None]]

_TIMES: Final = {each.name: getattr(Config(), each.name) for each in fields(Config) if each.name != "limits"}
_LIMITS: Final = {each.name: getattr(Limits(), each.name) for each in fields(Limits)}

_DOCUMENT: Final[_Forms] = {"node": _table, "http": _table, "bridge": _tables, "allow": _tables}
_NODE: Final[_Forms] = {
    "name": reject_name,
    "listen": _list_of(reject_listen, "endpoints"),
    "connect": _list_of(reject_dial, "endpoints"),
    "discovery": _list_of(_one_of(DISCOVERY), "mechanisms"),
    "log": _one_of(LOG_LEVELS),
    "preset": _one_of(("lan", "local")),
    "tuning": _table,
    "limits": _table,
}
_HTTP: Final[_Forms] = {"listen": _host_port, "origins": _list_of(_origin, "Origins")}
_TUNING: Final[_Forms] = {name: _number_like(value) for name, value in _TIMES.items()}
_LIMIT: Final[_Forms] = {name: _number_like(value) for name, value in _LIMITS.items()}
_BRIDGE_ROUTES: Final[_Forms] = {"export": _tables, "import": _tables}

_VARIABLE = re.compile(r"\$(\$?)\{([^}]*)\}")

_Path = tuple[str | int, ...]


class _Reader:
    """One document on its way into settings; knows where to point when it is wrong."""

    def __init__(self, text: str, file: str, environment: Mapping[str, str]) -> None:
        self._text = text
        self._file = file
        self._environment = environment

    def settings(self, document: dict[str, Any]) -> Settings:
        document = self._expand(document, ())
        self._check(document, _DOCUMENT, ())
        node = document.get("node", {})
        self._check(node, _NODE, ("node",))
        self._check(node.get("tuning", {}), _TUNING, ("node", "tuning"))
        self._check(node.get("limits", {}), _LIMIT, ("node", "limits"))
        http = document.get("http")
        if http is not None:
            self._check(http, _HTTP, ("http",))
        for number, bridge in enumerate(document.get("bridge", ())):
            self._bridge(bridge, ("bridge", number))
        return Settings(
            node=self._node(node),
            http=None if http is None else self._http(http),
            bridges=tuple(document.get("bridge", ())),
            allow=tuple(document.get("allow", ())),
            file=self._file,
        )

    @staticmethod
    def _http(http: dict[str, Any]) -> HttpSettings:
        default = HttpSettings()
        return HttpSettings(
            listen=http.get("listen", default.listen), origins=tuple(http.get("origins", default.origins))
        )

    @staticmethod
    def _node(node: dict[str, Any]) -> NodeSettings:
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
            config=replace(config, limits=limits, **tuning),
        )

    def _check(self, table: dict[str, Any], forms: _Forms, path: _Path) -> None:
        for key, value in table.items():
            form = forms.get(key)
            if form is None:
                known = ", ".join(forms) if len(forms) <= 8 else "see docs/reference/configuration.md"
                self._fail((*path, key), f"is not known here{_perhaps(key, forms)}; known: {known}")
            reason = form(value)
            if reason is not None:
                shown = (
                    "" if " not " in reason or isinstance(value, (dict, list)) else f", not {_show(value)}"
                )
                self._fail((*path, key), reason + shown)

    def _bridge(self, bridge: dict[str, Any], path: _Path) -> None:
        if "kind" not in bridge:
            self._fail(path, f"has no kind: expected one of {', '.join(map(_quote, BRIDGE_KINDS))}")
        reason = _one_of(BRIDGE_KINDS)(bridge["kind"])
        if reason is not None:
            self._fail((*path, "kind"), f"{reason}, not {_show(bridge['kind'])}")
        self._check({k: v for k, v in bridge.items() if k in _BRIDGE_ROUTES}, _BRIDGE_ROUTES, path)

    # -- ${ENV} ------------------------------------------------------------------------

    def _expand(self, value: Any, path: _Path) -> Any:
        if isinstance(value, dict):
            return {key: self._expand(each, (*path, key)) for key, each in value.items()}
        if isinstance(value, list):
            return [self._expand(each, (*path, number)) for number, each in enumerate(value)]
        if isinstance(value, str) and "${" in value:
            return _VARIABLE.sub(lambda found: self._variable(found, path), value)
        return value

    def _variable(self, found: re.Match[str], path: _Path) -> str:
        if found[1]:  # $${…} stands for ${…} itself
            return found[0][1:]
        text = self._environment.get(found[2])
        if text is None:
            self._fail(
                path, f"the environment has no variable {found[2]!r} (write $${{…}} for a literal ${{…}})"
            )
        return text

    # -- saying where ------------------------------------------------------------------

    def _fail(self, path: _Path, reason: str) -> NoReturn:
        raise ConfigError(reason, key=_path_text(path), file=self._file, line=_line_of(self._text, path))


def _path_text(path: _Path) -> str:
    text = ""
    for part in path:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return text


# -- lines: a light second reading of text that is known to be TOML -------------------------

_KEY = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_DOTTED = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]\]?\s*(?:#.*)?$")
_PAIR = re.compile(rf"\s*({_DOTTED})\s*=")


def _line_of(text: str, path: _Path) -> int:
    """The line where ``path`` is set, or else the nearest thing around it; 0 if nothing is found."""
    lines = _lines(text)
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 0


def _lines(text: str) -> dict[_Path, int]:
    found: dict[_Path, int] = {}
    counts: dict[_Path, int] = {}
    table: _Path = ()
    inside = ""  # the quotes that end the multi-line string we are in
    for number, line in enumerate(text.splitlines(), 1):
        was_inside, inside = inside, _string_at_end(line, inside)
        if was_inside:
            continue
        header = _HEADER.match(line)
        if header is not None:
            table = _resolve(_split(header[2]), counts)
            if header[1] == "[[":
                index = counts[table] = counts.get(table, -1) + 1
                found.setdefault(table, number)
                table = (*table, index)
            found.setdefault(table, number)
            continue
        pair = _PAIR.match(line)
        if pair is not None:
            path = table
            for key in _split(pair[1]):
                path = (*path, key)
                found.setdefault(path, number)
    return found


def _string_at_end(line: str, inside: str) -> str:
    """Which multi-line string is open after ``line``, if ``inside`` was open before it."""
    for mark in re.findall(r"\"\"\"|'''", line):
        inside = mark if not inside else "" if mark == inside else inside
    return inside


def _split(dotted: str) -> tuple[str, ...]:
    return tuple(key.strip("\"'") for key in re.findall(_KEY, dotted))


def _resolve(keys: tuple[str, ...], counts: Mapping[_Path, int]) -> _Path:
    """``a.b`` under an array of tables ``a`` means the last one of ``a``."""
    path: _Path = ()
    for position, key in enumerate(keys):
        path = (*path, key)
        if path in counts and position < len(keys) - 1:
            path = (*path, counts[path])
    return path
