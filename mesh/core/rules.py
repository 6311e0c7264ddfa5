"""Who may do what: the rules of ``mesh.toml``, judged by the receiver of each act.

    (action, topic) → the first pattern of the rules for that action that takes the topic decides
        none        → everybody may
        some        → a member to whom one of the rules with this very pattern applies may; nobody else

So a rule closes what its pattern names to all whom no rule lets in, and leaves the rest of the mesh open.  A pattern
with reader rules (action ``subscribe``) is a *scope*: what is published in it is sealed with a key of its own
(``broadcast``), which only those get who may read it.

Roles are those of the certificate, names and ids those that it proves.

The action ``admin`` is what a member may ask of the machine that holds the CA key, and its topics are such acts:
``members``, ``revoke``, ``invite``, ``invite/ROLE``.  What no rule of ours opens is for the role ``admin`` alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from mesh.config import Rule
from mesh.core.identity import Certificate
from mesh.core.topic import GLOBSTAR, STAR, Pattern

__all__ = ["ADMIN", "MAX_SCOPES", "Rules", "overlap"]

ADMIN: Final = "admin"
"""The action, and the role that may do what no rule speaks of."""

_ADMINS: Final = Rule((ADMIN,), ("**",), roles=(ADMIN,), name="as long as no rule says otherwise")

MAX_SCOPES: Final = 7
"""Patterns with reader rules: each is a sealing key, of which a peer keeps two, and 16 keys an owner at most."""

_VERDICTS: Final = 4096  # remembered: topics × members that come again and again
_ODD: Final = "\u2603"  # stands for a wildcard's level: what takes it takes any


class _Closed(NamedTuple):
    """A pattern that is closed for an action to all but some."""

    pattern: Pattern
    rules: tuple[Rule, ...]

    def lets(self, who: Certificate) -> bool:
        return any(_applies(rule, who) for rule in self.rules)

    def text(self) -> str:
        whom = sorted({f"role {role}" for rule in self.rules for role in rule.roles})
        whom += sorted({f"member {member}" for rule in self.rules for member in rule.members})
        named = ", ".join(rule.name for rule in self.rules)
        return f"{named}: {self.pattern.text!r} is for {' and '.join(whom)}"


def _applies(rule: Rule, who: Certificate) -> bool:
    if not rule.members and not rule.roles:
        return True
    named = {who.name, who.member.hex()}
    return not named.isdisjoint(rule.members) or not set(who.roles).isdisjoint(rule.roles)


class Rules:
    """Some rules, read once and asked often."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        closed: dict[str, dict[str, list[Rule]]] = {}
        for rule in rules:
            for action in rule.actions:
                for pattern in rule.patterns:
                    closed.setdefault(action, {}).setdefault(pattern, []).append(rule)
        closed.setdefault(ADMIN, {}).setdefault("**", [_ADMINS])
        self._closed = {
            action: [_Closed(Pattern.parse(pattern), tuple(those)) for pattern, those in patterns.items()]
            for action, patterns in closed.items()
        }
        self._verdicts: dict[tuple[str, str, Certificate], str | None] = {}

    def concern(self, action: str) -> bool:
        """Whether there is any rule for this action."""
        return action in self._closed

    def denial(self, action: str, topic: str, who: Certificate) -> str | None:
        """Why this member may not, in words that name the rule; None if it may."""
        if action not in self._closed:
            return None
        key = (action, topic, who)
        if key not in self._verdicts:
            if len(self._verdicts) >= _VERDICTS:
                self._verdicts.clear()
            self._verdicts[key] = self._judge(action, topic, who)
        return self._verdicts[key]

    def _judge(self, action: str, topic: str, who: Certificate) -> str | None:
        for closed in self._closed[action]:
            if closed.pattern.matches(topic):
                return None if closed.lets(who) else closed.text()
        return None

    def denial_of_pattern(self, action: str, pattern: str, who: Certificate) -> str | None:
        """Likewise for a subscription or responder: why nothing that it can take is open to this member.

        One that takes more than what is closed stands, and gets what is open.
        """
        return self.denial(
            action, "/".join(_ODD if STAR in each else each for each in pattern.split("/")), who
        )

    # -- scopes ------------------------------------------------------------------

    @property
    def scopes(self) -> tuple[str, ...]:
        """The patterns with reader rules."""
        return tuple(closed.pattern.text for closed in self._closed.get("subscribe", ()))

    def scope(self, topic: str) -> str:
        """The scope of a topic; empty for the mesh's."""
        for closed in self._closed.get("subscribe", ()):
            if closed.pattern.matches(topic):
                return closed.pattern.text
        return ""

    def may_read(self, scope: str, who: Certificate) -> bool:
        """Whether this member gets the key of one of ``scopes``."""
        return any(
            closed.pattern.text == scope and closed.lets(who) for closed in self._closed.get("subscribe", ())
        )


def overlap(one: str, other: str) -> bool:
    """Whether some topic is taken by both patterns (valid ones)."""
    ours, theirs = one.split("/"), other.split("/")
    # above[j]: our levels so far and the first j of theirs can take the same text
    above = [True]
    for level in theirs:
        above.append(above[-1] and level == GLOBSTAR)
    for mine in ours:
        row = [above[0] and mine == GLOBSTAR]
        for j, level in enumerate(theirs):
            if GLOBSTAR in (mine, level):
                row.append(above[j + 1] or row[j])  # it takes nothing, or one level more
            else:
                row.append(above[j] and (mine == level or STAR in (mine, level)))
        above = row
    return above[-1]
