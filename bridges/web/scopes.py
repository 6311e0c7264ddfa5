"""What a token allows: actions on patterns of topics.

``publish:home/**`` → ``Scope("publish", "home/**")``; a ``Grant`` is the scopes of one token.  A subscription is
allowed if one scope's pattern covers all of its own: whatever the subscription could match, the scope matches.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import mesh
from mesh.errors import ConfigError, TopicError

__all__ = ["ACTIONS", "EVERYTHING", "Grant", "Scope", "covers", "read_scope"]

ACTIONS: Final = ("publish", "subscribe", "request")


@dataclass(frozen=True, slots=True)
class Scope:
    """One thing that is allowed."""

    action: str
    pattern: str

    def __str__(self) -> str:
        return f"{self.action}:{self.pattern}"


def read_scope(text: str) -> Scope:
    """``ACTION:PATTERN``, or ``ACTION`` for all topics. Raises ``ConfigError``."""
    action, colon, pattern = text.partition(":")
    if action not in ACTIONS:
        raise ConfigError(
            f"{text!r}: expected publish:PATTERN, subscribe:PATTERN or request:PATTERN", key="allow"
        )
    try:
        return Scope(action, mesh.Pattern.parse(pattern if colon else "**").text)
    except TopicError as error:
        raise ConfigError(f"{text!r}: {error.reason}", key="allow") from None


@dataclass(frozen=True, slots=True)
class Grant:
    """What one client may do. ``token`` is the id of its token, empty for one that needs none."""

    token: str
    scopes: tuple[Scope, ...]

    @staticmethod
    def of(token: str, scopes: Iterable[str]) -> Grant:
        return Grant(token, tuple(map(read_scope, scopes)))

    def allows(self, action: str, topic: str) -> bool:
        """Whether this topic may be published or asked."""
        return any(
            scope.action == action and mesh.Pattern.parse(scope.pattern).matches(topic)
            for scope in self.scopes
        )

    def allows_pattern(self, pattern: str) -> bool:
        """Whether all that this pattern matches may be subscribed to."""
        return any(scope.action == "subscribe" and covers(scope.pattern, pattern) for scope in self.scopes)


EVERYTHING: Final = Grant("", tuple(Scope(action, "**") for action in ACTIONS))


def covers(wide: str, narrow: str) -> bool:
    """Whether ``wide`` matches every topic that ``narrow`` matches.

    True is always right; False may be too strict where both have a ``**`` in places that do not line up.
    """
    return _covers(tuple(wide.split("/")), tuple(narrow.split("/")))


@lru_cache(maxsize=4096)
def _covers(wide: tuple[str, ...], narrow: tuple[str, ...]) -> bool:
    if narrow[0].startswith("@") and wide[0] in ("*", "**"):
        return False  # a wildcard at the start does not match the mesh's own topics
    # reach[j]: the levels of ``wide`` so far cover the first j of ``narrow``.
    reach = [True, *(False for _ in narrow)]
    for level in wide:
        if level == "**":
            for at in range(len(narrow)):
                reach[at + 1] = reach[at + 1] or reach[at]
        else:
            reach = [
                False,
                *(
                    reach[at] and narrow[at] != "**" and level in ("*", narrow[at])
                    for at in range(len(narrow))
                ),
            ]
    return reach[-1]
