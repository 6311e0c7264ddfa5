"""Topics and patterns: what they may look like, and which pattern takes which topic.

A topic is ``/``-separated levels of UTF-8 text, none of them empty.  In a pattern a level
may also be ``*`` (any one level) or ``**`` (any number of levels, also none), anywhere and more than
once.  A topic whose first level begins with ``@`` is the mesh's own: a pattern that begins with a
wildcard never takes it, so that nobody who asks for everything is told of the machinery.

Texts are compared as they are, code point by code point; nothing is normalised.

Many patterns at once are ``mesh.core.subtrie``'s work; here is one against one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from mesh.errors import TopicError

__all__ = [
    "GLOBSTAR",
    "LIMIT",
    "STAR",
    "Pattern",
    "captures",
    "check_pattern",
    "check_program_pattern",
    "check_program_topic",
    "check_topic",
    "is_valid_pattern",
    "is_valid_topic",
    "matches",
]

LIMIT: Final = 256
"""Bytes of a topic or pattern, encoded: a longer chain of levels is a mistake, not a topic."""

STAR: Final = "*"
GLOBSTAR: Final = "**"

_CACHED: Final = 4096  # topics and patterns known to be good; a program uses fewer again and again

# Unicode's control characters (Cc), and surrogates, which UTF-8 does not have.
_CONTROL: Final = r"\x00-\x1f\x7f-\x9f"
_SURROGATE: Final = r"\ud800-\udfff"
_TEXT: Final = rf"[^/*{_CONTROL}{_SURROGATE}]+"
_TOPIC: Final = re.compile(rf"{_TEXT}(?:/{_TEXT})*")
_PATTERN: Final = re.compile(rf"(?:{_TEXT}|\*\*?)(?:/(?:{_TEXT}|\*\*?))*")
_FORBIDDEN: Final = re.compile(rf"[{_CONTROL}]")
_NO_UTF8: Final = re.compile(rf"[{_SURROGATE}]")


def _fits(text: str, limit: int) -> bool:
    return len(text) * 4 <= limit or len(text.encode()) <= limit


def is_valid_topic(topic: str, *, limit: int = LIMIT) -> bool:
    """Whether a peer's text is a topic."""
    return _TOPIC.fullmatch(topic) is not None and _fits(topic, limit)


def is_valid_pattern(pattern: str, *, limit: int = LIMIT) -> bool:
    """Whether a peer's text is a pattern."""
    return _PATTERN.fullmatch(pattern) is not None and _fits(pattern, limit)


def check_topic(topic: str, *, limit: int = LIMIT) -> str:
    """The topic, if it is one (as a plain ``str``); at most ``limit`` bytes.

    Raises ``TopicError``, which says what is wrong with it.
    """
    return _checked(_plain(topic), limit, False)


def check_pattern(pattern: str, *, limit: int = LIMIT) -> str:
    """The pattern, if it is one (as a plain ``str``); at most ``limit`` bytes.

    Raises ``TopicError``, which says what is wrong with it.
    """
    return _checked(_plain(pattern), limit, True)


def check_program_topic(topic: str) -> str:
    """A topic that a program may publish on: not one of the mesh's own. Raises ``TopicError``."""
    return _not_ours(check_topic(topic))


def check_program_pattern(pattern: str) -> str:
    """A pattern that a program may serve: not of the mesh's own topics. Raises ``TopicError``."""
    return _not_ours(check_pattern(pattern))


def _not_ours(text: str) -> str:
    if text.startswith("@"):
        raise TopicError(text, "what begins with '@' is the mesh's own")
    return text


def _plain(text: str) -> str:
    if type(text) is str:
        return text
    if isinstance(text, str):  # such as a member of a StrEnum, which CBOR would not carry
        return str.__str__(text)
    raise TopicError(repr(text), f"must be text, not {type(text).__name__}")


@lru_cache(maxsize=_CACHED)
def _checked(text: str, limit: int, wild: bool) -> str:
    if (is_valid_pattern if wild else is_valid_topic)(text, limit=limit):
        return text
    raise TopicError(text, _fault(text, limit, wild))


def _fault(text: str, limit: int, wild: bool) -> str:
    if not text:
        return "it is empty"
    if _NO_UTF8.search(text):
        return "it has a lone surrogate, which UTF-8 cannot carry"
    if found := _FORBIDDEN.search(text):
        return f"it has the control character U+{ord(found.group()):04X}"
    levels = text.split("/")
    if "" in levels:
        return "it has an empty level (a slash at the start, at the end, or two in a row)"
    if any(STAR in level for level in levels):
        if not wild:
            return "it has a wildcard, which only patterns may have"
        if not all(level in (STAR, GLOBSTAR) or STAR not in level for level in levels):
            return "a wildcard is a whole level: '*' for one, '**' for any number"
    return f"it is {len(text.encode())} bytes long, and {limit} is the most"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern that has been read. Make one with ``Pattern.parse``."""

    text: str
    levels: tuple[str, ...]
    prefix_levels: tuple[str, ...]
    """The levels before the first wildcard."""
    exact: bool
    """There is no wildcard: it takes one topic."""

    @staticmethod
    def parse(text: str) -> Pattern:
        """Read a pattern. Raises ``TopicError``."""
        return _parse(check_pattern(text))

    def matches(self, topic: str) -> bool:
        """Whether it takes ``topic`` (which must be a valid one)."""
        if self.exact:
            return topic == self.text
        return self._place(topic, topic.split("/")) is not None

    def captures(self, topic: str) -> list[str] | None:
        """What each wildcard stands for in ``topic``, in order; None if it does not match.

        The levels of a ``**`` are joined with ``/``, none is the empty text. Where there is a choice, each
        ``**`` takes as few levels as it can, those further left first.
        """
        levels = topic.split("/")
        starts = self._place(topic, levels)
        if starts is None:
            return None
        starts.append(len(levels))
        return [
            "/".join(levels[starts[index] : starts[index + 1]])
            for index, level in enumerate(self.levels)
            if level in (STAR, GLOBSTAR)
        ]

    def _place(self, topic: str, levels: Sequence[str]) -> list[int] | None:
        """Where in the topic each level of the pattern begins; None if it does not match.

        After a mismatch only the last ``**`` is lengthened: what stands before it was placed as
        far left as it can be, so that nothing is gained by moving it. Time is
        at most levels of the pattern × levels of the topic, however many ``**`` there are.
        """
        pattern = self.levels
        if topic.startswith("@") and pattern[0] in (STAR, GLOBSTAR):
            return None
        starts = [0] * len(pattern)
        index = at = 0
        globstar = -1  # index of the last ``**`` passed
        end = 0  # where what it stands for ends
        while at < len(levels) or index < len(pattern):
            if index < len(pattern):
                level = pattern[index]
                if level == GLOBSTAR:
                    starts[index] = end = at
                    globstar = index
                    index += 1
                    continue
                if at < len(levels) and level in (STAR, levels[at]):
                    starts[index] = at
                    index += 1
                    at += 1
                    continue
            if globstar < 0 or end >= len(levels):
                return None
            end += 1
            index, at = globstar + 1, end
        return starts


@lru_cache(maxsize=_CACHED)
def _parse(text: str) -> Pattern:
    levels = tuple(text.split("/"))
    prefix = next((index for index, level in enumerate(levels) if STAR in level), len(levels))
    return Pattern(text, levels, levels[:prefix], prefix == len(levels))


def matches(pattern: str, topic: str) -> bool:
    """Whether ``pattern`` takes ``topic`` (a valid one). Raises ``TopicError`` for a bad pattern."""
    return Pattern.parse(pattern).matches(topic)


def captures(pattern: str, topic: str) -> list[str] | None:
    """``Pattern.captures``: what each wildcard stands for, or None. Raises ``TopicError``."""
    return Pattern.parse(pattern).captures(topic)
