"""What Kafka calls topics, and what a route may say of them.

A name has letters, digits, ``.``, ``_`` and ``-`` and at most 249 of them (Kafka's ``Topic.validate``).  ``from`` is
a name; or a pattern with ``*`` (any text) and ``?`` (one character); or, beginning with ``^``, a regular
expression, which librdkafka takes as POSIX's extended ones.
"""

from __future__ import annotations

import re
from typing import Final

from bridges.mapping import SourcePattern, glob, literal, regex

__all__ = ["reject_name", "source", "subscription"]

LONGEST: Final = 249

_LEGAL: Final = re.compile(r"[A-Za-z0-9._-]+")
_PATTERN: Final = re.compile(r"[A-Za-z0-9._*?-]+")


def reject_name(text: str) -> str | None:
    """Why ``text`` can't be a topic of Kafka, or None."""
    if _LEGAL.fullmatch(text) is None:
        return "a topic of Kafka has letters, digits, '.', '_' and '-' alone"
    if len(text) > LONGEST:
        return f"a topic of Kafka has at most {LONGEST} characters"
    if text in (".", ".."):
        return "'.' and '..' are no topics of Kafka"
    return None


def source(text: str) -> SourcePattern:
    """Read ``from``. Raises ``ValueError``."""
    if text.startswith("^"):
        return regex(text)
    if _PATTERN.fullmatch(text) is None:
        raise ValueError(
            "expected a topic of Kafka, one with * and ?, or a regular expression that begins with ^"
        )
    if "*" in text or "?" in text:
        return glob(text)
    reason = reject_name(text)
    if reason is not None:
        raise ValueError(reason)
    return literal(text)


def subscription(text: str) -> str:
    """The same for ``Consumer.subscribe``: a name, or a regular expression that takes whole names."""
    if text.startswith("^"):
        return text
    if "*" not in text and "?" not in text:
        return text
    steps = {"*": ".*", "?": ".", ".": "[.]"}
    return "^" + "".join(steps.get(character, character) for character in text) + "$"
