"""What the command prints: lines for people, JSON for programs, colours on a terminal only.

Everything goes to standard output through ``write`` (or, from a running node, through
``send``, which never holds the node up when the reader is slow).  A reader that went away,
as in ``mesh sub … | head``, is ``OutputClosed``: the command ends quietly.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import select
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time
from typing import Any

__all__ = [
    "OutputClosed",
    "colour",
    "json_line",
    "json_value",
    "parse_value",
    "say",
    "send",
    "shown",
    "table",
    "value_bytes",
    "write",
]

# POSIX: a pipe that polls as writable takes this much without blocking.
_PIPE_BUF = select.PIPE_BUF if hasattr(select, "PIPE_BUF") else 512


class OutputClosed(Exception):
    """Whoever read our standard output has enough."""


def write(text: str | bytes) -> None:
    """Write to standard output, all of it, now."""
    data = text.encode(errors="surrogateescape") if isinstance(text, str) else text
    view = memoryview(data)
    try:
        while view:
            try:
                view = view[os.write(1, view) :]
            except BlockingIOError:  # somebody made the shared terminal or pipe non-blocking
                select.select([], [1], [])
    except BrokenPipeError:
        raise OutputClosed from None


def say(text: str) -> None:
    """A line for people on standard error; lost if nobody can read it."""
    # The result of the command does not depend on who reads along.
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


async def send(text: str | bytes) -> None:
    """``write`` for a running node: a reader that is slow blocks a thread, not the node."""
    import trio

    data = text.encode(errors="surrogateescape") if isinstance(text, str) else text
    if len(data) <= _PIPE_BUF and select.select([], [1], [], 0)[1]:
        write(data)
        await trio.lowlevel.checkpoint_if_cancelled()
    else:
        await trio.to_thread.run_sync(write, data, abandon_on_cancel=True)


# -- values -----------------------------------------------------------------------------------


def parse_value(text: str) -> Any:
    """JSON if it parses, else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


_DECIMAL_BITS = 8192
"""Integers beyond this are shown in hexadecimal: Python refuses to write long ones in decimal (4,300 digits),
because that takes quadratic time."""


def json_value(value: Any) -> Any:
    """The value with everything that JSON lacks in a readable form; bytes as ``{"base64": …}``."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > _DECIMAL_BITS:
        return hex(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        return {_json_key(key): json_value(each) for key, each in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((json_value(each) for each in value), key=str)
    if isinstance(value, Sequence):
        return [json_value(each) for each in value]
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    try:
        return str(value)
    except ValueError:  # a fraction of numbers with more digits than Python writes
        return f"<{type(value).__name__}>"


def _json_key(key: Any) -> str:
    return base64.b64encode(key).decode() if isinstance(key, bytes) else str(key)


def json_line(value: Any) -> str:
    """One line of JSON, with its newline."""
    return json.dumps(json_value(value), ensure_ascii=False) + "\n"


def shown(value: Any) -> str:
    """A value for people, on one line, with nothing in it that could steer a terminal."""
    if isinstance(value, (bytes, bytearray)):
        try:
            text = value.decode()
        except UnicodeDecodeError:
            text = ""
        if text and text.isprintable():
            return text
        head = bytes(value[:24]).hex(" ")
        return f"<{len(value)} bytes{': ' + head if value else ''}{' ...' if len(value) > 24 else ''}>"
    if isinstance(value, str) and value.isprintable():
        return value
    return json.dumps(json_value(value), ensure_ascii=isinstance(value, str))


def value_bytes(value: Any) -> bytes:
    """The value as another program reads it: bytes untouched, text as UTF-8, nothing for None, else JSON."""
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if value is None:
        return b""
    if isinstance(value, str):
        return value.encode(errors="surrogateescape")
    return json.dumps(json_value(value), ensure_ascii=False).encode()


# -- for people -------------------------------------------------------------------------------

_STYLES = {"dim": "2", "bold": "1", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def colour(text: str, style: str, stream: Any = None) -> str:
    """The text in a style, if the stream (standard output by default) is a terminal."""
    stream = stream or sys.stdout
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, a bold head line, two blanks between."""
    cells = [list(map(str, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()

    return "\n".join([colour(line(head), "bold"), *map(line, cells)]) + "\n"
