"""Where in a TOML file a key stands: a light second reading of text that ``tomllib`` has accepted.

``tomllib`` keeps no line numbers, and a mistake should name one.  Headers, keys and multi-line strings
are followed line by line; what stands inside a value on one line is found as that line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["KeyPath", "line_of"]

KeyPath = tuple[str | int, ...]
"""Keys from the top; a number (from 0) is a place in an array of tables."""

_KEY = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_DOTTED = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]\]?\s*(?:#.*)?$")
_PAIR = re.compile(rf"\s*({_DOTTED})\s*=")


def line_of(text: str, path: KeyPath) -> int:
    """The line where ``path`` is set, or else the nearest thing around it; 0 if nothing is found."""
    lines = _lines(text)
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 0


def _lines(text: str) -> dict[KeyPath, int]:
    found: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
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
                table = (*table, index)
            for length in range(1, len(table) + 1):
                found.setdefault(table[:length], number)
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


def _resolve(keys: tuple[str, ...], counts: Mapping[KeyPath, int]) -> KeyPath:
    """``a.b`` under an array of tables ``a`` means the last one of ``a``."""
    path: KeyPath = ()
    for position, key in enumerate(keys):
        path = (*path, key)
        if path in counts and position < len(keys) - 1:
            path = (*path, counts[path])
    return path
