"""What a value in ``mesh.toml`` must be.

A form takes a value and answers None if it is as it should be, else what was expected, in words
for the person who wrote the file.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from typing import Any

from mesh.core.fields import check_role
from mesh.core.topic import check_pattern
from mesh.errors import ConfigError, TopicError, TransportError

__all__ = [
    "Form",
    "host_port",
    "list_of",
    "number_like",
    "one_of",
    "one_or_more",
    "origin",
    "perhaps",
    "quote",
    "reject_dial",
    "reject_file",
    "reject_host",
    "reject_listen",
    "reject_name",
    "reject_pattern",
    "reject_role",
    "show",
    "table",
    "tables",
    "texts",
]

Form = Callable[[Any], str | None]


def reject_name(value: Any) -> str | None:
    """Why this can't be a node's name, or None."""
    if isinstance(value, str) and 0 < len(value) <= 64 and value.isprintable() and value == value.strip():
        return None
    return 'expected a name: 1 to 64 printable characters, such as "kitchen"'


def reject_listen(value: Any) -> str | None:
    """Why a node can't listen on this endpoint, or None."""
    if isinstance(value, str):
        # Imported late, as below: most of the command's mistakes are found without libzmq.
        from mesh.transport.endpoints import plane_endpoints

        try:
            plane_endpoints(value)
        except TransportError as error:
            return f"expected an endpoint to listen on ({error.reason})"
        return None
    return 'expected an endpoint to listen on, such as "tcp://*:7400" or "ipc:///run/mesh/node"'


def reject_dial(value: Any) -> str | None:
    """Why this endpoint can't be dialled, or None. (``tcp://`` and the port 7400 may be left out.)"""
    if isinstance(value, str):
        # Imported late: discovery brings Trio along, and a file without seeds needs neither.
        from mesh.discovery.seeds import parse_seed

        try:
            parse_seed(value)
        except ConfigError:
            pass
        else:
            return None
    return 'expected the endpoint of a peer, such as "tcp://cellar.local:7400"'


_HOST_PORT = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:/\[\]\s]+):(\d{1,5})")


def host_port(value: Any) -> str | None:
    found = _HOST_PORT.fullmatch(value) if isinstance(value, str) else None
    if found and int(found[2]) < 65536:
        return None
    return 'expected HOST:PORT, such as "127.0.0.1:7480"'


def reject_host(value: Any) -> str | None:
    """Why this can't be a name in a Host header, or None."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9._-]{1,253}", value):
        return None
    return 'expected a host name without a port, such as "panel.example"'


def reject_file(value: Any) -> str | None:
    """Why this can't be the name of a file, or None."""
    return None if isinstance(value, str) and value else "expected the name of a file"


def origin(value: Any) -> str | None:
    if isinstance(value, str) and re.fullmatch(r"https?://[^/?#\s@*]+", value):
        return None
    return 'expected an Origin, such as "https://panel.example" (no path, no *)'


def one_of(choices: Iterable[str]) -> Form:
    known = tuple(choices)

    def check(value: Any) -> str | None:
        if value in known and isinstance(value, str):
            return None
        return f"expected one of {', '.join(quote(each) for each in known)}{perhaps(value, known)}"

    return check


def list_of(check: Form, what: str) -> Form:
    def check_all(value: Any) -> str | None:
        if not isinstance(value, list):
            return f"expected a list of {what}"
        for item in value:
            reason = check(item)
            if reason is not None:
                return f"{reason}, not {show(item)}"
        return None

    return check_all


def one_or_more(check: Form, what: str) -> Form:
    several = list_of(check, what)

    def check_either(value: Any) -> str | None:
        if not isinstance(value, list):
            return check(value)
        return several(value) if value else f"expected one or more {what}"

    return check_either


def texts(value: Any) -> tuple[str, ...]:
    """One text or a list of them, as ``one_or_more`` lets pass."""
    return (value,) if isinstance(value, str) else tuple(value)


def reject_pattern(value: Any) -> str | None:
    if not isinstance(value, str):
        return 'expected a pattern of topics, such as "home/**"'
    try:
        check_pattern(value)
    except TopicError as error:
        return f"expected a pattern of topics ({error.reason})"
    return None


def reject_role(value: Any) -> str | None:
    return (
        None if isinstance(value, str) and check_role(value) is None else 'expected a role, such as "sensor"'
    )


def number_like(default: float) -> Form:
    whole = isinstance(default, int)

    def check(value: Any) -> str | None:
        kinds = int if whole else (int, float)
        if isinstance(value, kinds) and not isinstance(value, bool) and 0 < value < float("inf"):
            return None
        return f"expected a {'whole ' if whole else ''}number above 0, such as {default:g}"

    return check


def table(value: Any) -> str | None:
    return None if isinstance(value, dict) else "expected a table"


def tables(value: Any) -> str | None:
    if isinstance(value, list) and all(isinstance(each, dict) for each in value):
        return None
    return "expected an array of tables, each begun with double brackets"


def quote(text: str) -> str:
    return f'"{text}"'


def show(value: Any) -> str:
    shown = quote(value) if isinstance(value, str) else repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def perhaps(value: Any, known: Iterable[str]) -> str:
    """A did-you-mean for a name that is nearly a known one."""
    near = difflib.get_close_matches(value, tuple(known), n=1, cutoff=0.6) if isinstance(value, str) else []
    return f" (did you mean {quote(near[0])}?)" if near else ""
