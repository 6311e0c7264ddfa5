"""What a value in a bridge's table must be, and values that must not be shown.

A form takes a value and answers None if it is as it should be, else what was expected, in words for the person
who wrote the file.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

__all__ = ["Form", "Forms", "Secret", "count", "flag", "one_of", "perhaps", "seconds", "table", "text"]

Form = Callable[[Any], str | None]
Forms = Mapping[str, Form]

MAX_TEXT: Final = 4096


class Secret:
    """A text that shows itself to nobody who does not ask: not in ``repr``, not in a log, not in an error."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __repr__(self) -> str:
        return "<secret>"


def text(value: Any) -> str | None:
    if isinstance(value, str) and 0 < len(value) <= MAX_TEXT and "\0" not in value:
        return None
    return "expected a text"


def flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "expected true or false"


def count(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return None
    return "expected a whole number above 0"


def seconds(value: Any) -> str | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf"):
        return None
    return "expected a number of seconds above 0"


def table(value: Any) -> str | None:
    return None if isinstance(value, dict) else "expected a table"


def one_of(*choices: str) -> Form:
    def check(value: Any) -> str | None:
        if isinstance(value, str) and value in choices:
            return None
        return f"expected one of {', '.join(map(_quoted, choices))}{perhaps(value, choices)}"

    return check


def perhaps(value: Any, known: Iterable[str]) -> str:
    """A did-you-mean for a name that is nearly a known one."""
    near = difflib.get_close_matches(value, tuple(known), n=1, cutoff=0.6) if isinstance(value, str) else []
    return f" (did you mean {_quoted(near[0])}?)" if near else ""


def _quoted(name: str) -> str:
    return f'"{name}"'
