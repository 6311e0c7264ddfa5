"""Names across a bridge: templates both ways, and what a broker's patterns take.

    mesh topic + what the route's pattern took --Template--> destination at the broker
    destination + what the route's ``from`` took --Template--> mesh topic

Separators are mapped on the way: ``home/kitchen/light`` ↔ ``home.kitchen.light``.  The way back is exact as
long as no level holds the separator; ``mesh-topic`` in the headers tells the first name anyway.

Nothing here knows a broker or does I/O.  Values are mapped in ``values``, headers in ``messages``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import mesh
from mesh.errors import TopicError

__all__ = ["LEVEL", "SourcePattern", "Template", "glob", "literal", "regex", "reject_topic", "words"]

LEVEL: Final = "/"
"""Between the levels of a mesh topic."""

_PLACE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@dataclass(frozen=True, slots=True)
class Template:
    """A text with places: ``{topic}`` is the whole name, ``{1}`` what the first wildcard took, and so on.

    ``{{`` and ``}}`` are braces. Make one with ``Template.parse``.
    """

    text: str
    parts: tuple[str | int, ...]
    """Text as it is, or the number of a wildcard; 0 is the whole name."""

    @staticmethod
    def parse(text: str, *, wildcards: int) -> Template:
        """Read a template for a pattern with so many wildcards. Raises ``ValueError`` that says what is wrong."""
        parts: list[str | int] = []
        end = 0
        for found in _PLACE.finditer(text):
            parts.append(text[end : found.start()])
            end = found.end()
            name = found[1]
            if name is None:
                if len(found[0]) == 1:
                    raise ValueError(
                        f"has a single {found[0]!r} (write {found[0] * 2} for the character itself)"
                    )
                parts.append(found[0][0])
            elif name == "topic":
                parts.append(0)
            elif re.fullmatch(r"[1-9][0-9]{0,2}", name):
                if int(name) > wildcards:
                    raise ValueError(f"has {{{name}}}, and the pattern has {_counted(wildcards)}")
                parts.append(int(name))
            else:
                raise ValueError(f"has {{{name}}}; known are {{topic}} and {{1}}, {{2}} … for the wildcards")
        parts.append(text[end:])
        return Template(text, tuple(part for part in parts if part != ""))

    def fill(self, name: str, captures: Sequence[str], *, separator: str, to: str) -> str:
        """The text with the places filled; in what fills them, ``separator`` becomes ``to``."""
        return "".join(
            part if isinstance(part, str) else (captures[part - 1] if part else name).replace(separator, to)
            for part in self.parts
        )

    @property
    def fixed(self) -> bool:
        """It has no places."""
        return all(isinstance(part, str) for part in self.parts)


def _counted(wildcards: int) -> str:
    return "no wildcard" if wildcards == 0 else f"{wildcards} wildcard{'s' if wildcards > 1 else ''}"


def reject_topic(text: str) -> str | None:
    """Why this text can't be a topic that a bridge publishes on, or None."""
    try:
        pattern = mesh.Pattern.parse(text)
    except TopicError as error:
        return error.reason
    if not pattern.exact:
        return "it has a wildcard, which only patterns may have"
    return "what begins with '@' is the mesh's own" if text.startswith("@") else None


@dataclass(frozen=True, slots=True)
class SourcePattern:
    """What an import route reads: destinations that match, and what its wildcards took of them."""

    text: str
    wildcards: int
    _captures: Callable[[str], Sequence[str] | None] = field(compare=False, repr=False)

    def captures(self, destination: str) -> Sequence[str] | None:
        """What each wildcard stands for in ``destination``, in order; None if it does not match."""
        return self._captures(destination)

    @property
    def exact(self) -> bool:
        """It names one destination."""
        return self.wildcards == 0


def literal(text: str) -> SourcePattern:
    """The destination of this name."""
    return SourcePattern(text, 0, lambda destination: () if destination == text else None)


def regex(text: str) -> SourcePattern:
    """A regular expression that takes the whole destination; its groups are the wildcards. Raises ``ValueError``."""
    try:
        compiled = re.compile(text, re.DOTALL)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None

    def captures(destination: str) -> Sequence[str] | None:
        found = compiled.fullmatch(destination)
        return None if found is None else tuple(group or "" for group in found.groups())

    return SourcePattern(text, compiled.groups, captures)


# -- shell-like patterns --------------------------------------------------------------------


def glob(text: str) -> SourcePattern:
    """``*`` any text, ``?`` one character, ``[a-z]`` one of these, ``\\`` takes the next as it is (as Redis has it).

    Each ``*``, ``?`` and ``[…]`` is a wildcard; where there is a choice a ``*`` takes as little as it can.
    """
    # Between two stars stands text of fixed shape. Once the first place for it is found it need not be
    # looked for again (an atomic group): matching stays quadratic at worst, whatever the pattern.
    pieces: list[list[str]] = [[]]
    wildcards = 0
    at = 0
    while at < len(text):
        character = text[at]
        at += 1
        if character == "*":
            wildcards += 1
            pieces.append([])
        elif character == "?":
            wildcards += 1
            pieces[-1].append("(.)")
        elif character == "[" and (
            found := re.compile(r"(\^?)((?:\\.|[^\]\\])+)\]", re.DOTALL).match(text, at)
        ):
            wildcards += 1
            pieces[-1].append(f"([{found[1]}{_class(found[2])}])")
            at = found.end()
        elif character == "\\" and at < len(text):
            pieces[-1].append(re.escape(text[at]))
            at += 1
        else:
            pieces[-1].append(re.escape(character))
    first, *rest = ("".join(piece) for piece in pieces)
    if not rest:
        expression = first
    else:
        *between, last = rest
        expression = first + "".join(f"(?>(.*?){piece})" for piece in between) + f"(.*){last}"
    compiled = regex(expression)
    return SourcePattern(text, wildcards, compiled.captures)


def _class(inside: str) -> str:
    """The inside of ``[…]``, with what means more to ``re`` than to a glob made harmless."""
    out: list[str] = []
    members = re.findall(r"\\.|.", inside, re.DOTALL)
    at = 0
    while at < len(members):
        low = members[at][-1]
        if at + 2 < len(members) and members[at + 1] == "-":
            high = members[at + 2][-1]
            low, high = min(low, high), max(low, high)  # Redis takes [z-a] as [a-z]
            out.append(f"{re.escape(low)}-{re.escape(high)}")
            at += 3
        else:
            out.append(re.escape(low))
            at += 1
    return "".join(out)


# -- words ----------------------------------------------------------------------------------


def words(text: str, *, separator: str = ".", one: str = "*", many: str = "#") -> SourcePattern:
    """Words with ``separator`` between: ``one`` takes a word, ``many`` any number of words (as AMQP's topics have it).

    What ``many`` took are the words with the separator between them, or nothing; where there is a choice it
    takes as few as it can.
    """
    pattern = text.split(separator)

    def captures(destination: str) -> Sequence[str] | None:
        levels = destination.split(separator)
        starts = _place(pattern, levels, one, many)
        if starts is None:
            return None
        starts.append(len(levels))
        return tuple(
            separator.join(levels[starts[index] : starts[index + 1]])
            for index, word in enumerate(pattern)
            if word in (one, many)
        )

    return SourcePattern(text, sum(word in (one, many) for word in pattern), captures)


def _place(pattern: Sequence[str], levels: Sequence[str], one: str, many: str) -> list[int] | None:
    """Where each word of the pattern begins; None if it does not match.

    It is how ``mesh.Pattern`` places levels, over words that no topic could have: empty ones, wildcards of another
    spelling, which the limits of a topic say nothing about.

    After a mismatch only the last ``many`` is lengthened: what stands before it was placed as far left as it
    can be, and nothing is gained by moving it.
    """
    starts = [0] * len(pattern)
    index = at = 0
    last_many = -1
    end = 0  # where what the last ``many`` stands for ends
    while at < len(levels) or index < len(pattern):
        if index < len(pattern):
            word = pattern[index]
            if word == many:
                starts[index] = end = at
                last_many = index
                index += 1
                continue
            if at < len(levels) and word in (one, levels[at]):
                starts[index] = at
                index += 1
                at += 1
                continue
        if last_many < 0 or end >= len(levels):
            return None
        end += 1
        index, at = last_many + 1, end
    return starts
