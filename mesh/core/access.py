"""The rules applied: may this peer, or this node itself, do that here?

What is denied is counted by whoever asks, told once as an incident, and remembered for ``mesh doctor``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from mesh.core.effects import Effect, Incident
from mesh.core.identity import Certificate
from mesh.core.links import Links
from mesh.core.messages import InterestEntry
from mesh.core.router import LOCAL, SUBSCRIPTION
from mesh.core.rules import Rules
from mesh.core.types import NodeId, Reason
from mesh.errors import NotAuthorized

__all__ = ["Access"]

_REMEMBERED: Final = 64  # denials, for the doctor: the topics are the peers' to choose


class Access:
    """The rules of one node. ``own()`` is its certificate, ``rejected`` counts."""

    def __init__(
        self,
        rules: Rules,
        own: Callable[[], Certificate],
        links: Links,
        effects: list[Effect],
        rejected: Callable[[Reason], None],
    ) -> None:
        self.rules = rules
        self._own = own
        self._links = links
        self._effects = effects
        self._rejected = rejected
        self.denials: dict[tuple[str, str, str], str] = {}  # (member, action, topic or pattern) → which rule

    def _who(self, peer: NodeId) -> Certificate | None:
        if peer == LOCAL:
            return self._own()
        session = self._links.sessions.get(peer)
        return None if session is None else session.introduced.certificate

    def may(self, action: str, peer: NodeId, topic: str) -> bool:
        """Whether it is allowed. Says and counts nothing."""
        if not self.rules.concern(action):
            return True
        who = self._who(peer)
        return who is not None and self.rules.denial(action, topic, who) is None

    def denial(self, action: str, peer: NodeId, topic: str) -> str | None:
        """The act of a peer: why it is denied, counted and told; None if it is allowed."""
        if not self.rules.concern(action):
            return None
        who = self._who(peer)
        if who is None:
            return "it is no peer any more"
        why = self.rules.denial(action, topic, who)
        if why is not None:
            self._note(who.name, action, topic, why)
        return why

    def look_at(self, peer: NodeId, entries: Iterable[InterestEntry]) -> None:
        """Interests of a peer that can get it nothing are told; the router leaves them out."""
        for entry in entries:
            action = "subscribe" if entry.kind == SUBSCRIPTION else "serve"
            who = self._who(peer)
            if who is not None and self.rules.concern(action):
                why = self.rules.denial_of_pattern(action, entry.pattern, who)
                if why is not None:
                    self._note(who.name, action, entry.pattern, why)

    def _note(self, name: str, action: str, topic: str, why: str) -> None:
        self._rejected(Reason.NOT_AUTHORIZED)
        key = (name, action, topic)
        if key not in self.denials:
            if len(self.denials) >= _REMEMBERED:
                del self.denials[next(iter(self.denials))]
            self.denials[key] = why
            self._effects.append(Incident("not authorized", f"{name} may not {action} {topic!r} ({why})"))

    def check(self, action: str, topic: str, *, pattern: bool = False) -> None:
        """Our own act. Raises ``NotAuthorized``, which names the rule."""
        if self.rules.concern(action):
            judge = self.rules.denial_of_pattern if pattern else self.rules.denial
            why = judge(action, topic, self._own())
            if why is not None:
                raise NotAuthorized(action, topic, why)

    def check_reader(self, peer: NodeId, topic: str) -> None:
        """We are about to hand a message to one peer. Raises ``NotAuthorized`` if it may not read it."""
        if not self.may("subscribe", peer, topic):
            who = self._who(peer)
            why = None if who is None else self.rules.denial("subscribe", topic, who)
            raise NotAuthorized("subscribe", topic, f"{'' if who is None else who.name}: {why}")
