"""A peer that we do not hear: whether others do, and whether it has been replaced.

accused → PingRequest to a few others → each pings the suspect → its Pong there → Vouch back here → the suspect
has more time (``membership``).  The dead answer nobody, and are gone as soon as ever; who is cut off from us
alone stays a suspect, while we dial its other addresses.  (SWIM's indirect probe: Das, Gupta, Motivala, 2002.)

A later process of the same member and name on the same host has, most likely, taken the place of the one that we
know: that one is challenged, and ended unless it answers.
"""

from __future__ import annotations

from typing import Final

from mesh.config import Config
from mesh.core.effects import Effect, SendDirect
from mesh.core.links import Links
from mesh.core.membership import LivenessState
from mesh.core.messages import PingRequestMessage, VouchMessage
from mesh.core.session import Session
from mesh.core.types import NodeId, RandomBytes

__all__ = ["Suspicion"]

HELPERS: Final = 3
"""Others that are asked at a time: one of them may be ill itself, or cut off too (memberlist asks as many)."""

SHARED: Final = 0.1
"""Seconds for which one ping serves all who ask about a peer: whatever is asked of us, it has ten pings a second."""


class Suspicion:
    """The indirect probes of one node. ``clock`` is monotonic seconds."""

    def __init__(self, config: Config, links: Links, rng: RandomBytes, effects: list[Effect]) -> None:
        self._links = links
        self._rng = rng
        self._effects = effects
        self._probe_timeout, self._attach_timeout = config.probe_timeout, config.attach_timeout
        self._next_token = 1

    def ask(self, suspect: Session) -> None:
        """Ask some others about it; whoever is well, drawn by lot."""
        well = [
            each
            for each in self._links.sessions.values()
            if each.joined and each.farewell is None and each.liveness.state is LivenessState.ALIVE
        ]
        suspect.inquiry = token = self._next_token
        self._next_token += 1
        for _ in range(min(HELPERS, len(well))):
            helper = well.pop(int.from_bytes(self._rng(4), "big") % len(well))
            self._effects.append(SendDirect(helper.node, PingRequestMessage(token, suspect.node)))

    def asked(self, asker: Session, message: PingRequestMessage, clock: float) -> None:
        """A peer does not hear one of ours. Its latest question counts: nobody makes us remember more than one."""
        suspect = self._links.sessions.get(NodeId(message.node))
        if suspect is None or suspect is asker or not suspect.joined:
            return
        token, asked_at = suspect.asked
        if clock - asked_at > SHARED:
            token = self._links.ping(suspect, clock)
            suspect.asked = (token, clock)
        suspect.askers[asker.node] = (message.token, token)
        if token not in suspect.probe_sent:  # it has answered already
            self.answered(suspect, token)

    def answered(self, session: Session, token: int) -> None:
        """A Pong: whoever asked before it was asked for hears of it."""
        for node, (theirs, pinged) in list(session.askers.items()):
            if pinged <= token:
                del session.askers[node]
                if node in self._links.sessions:
                    self._effects.append(SendDirect(node, VouchMessage(theirs, session.node)))

    def vouched(self, message: VouchMessage, clock: float) -> None:
        """A peer hears one whom we do not; an answer to our latest question."""
        suspect = self._links.sessions.get(NodeId(message.node))
        if suspect is not None and 0 < suspect.inquiry == message.token:
            suspect.liveness.vouched(clock)

    # -- a later process in its place -------------------------------------------------

    def challenge(self, session: Session, clock: float) -> None:
        """One seems to be in its place: it has two probes' time to say that it is there as well."""
        if session.liveness.state is LivenessState.SUSPECT:
            self._links.end(session, "restarted", clock)
            return
        session.replaced = True
        self._links.ping(session, clock)
        session.liveness.challenge(clock, 2 * self._probe_timeout * self._links.health.stretch(clock))

    # -- when it was us ---------------------------------------------------------------

    def late(self, seconds: float, clock: float) -> None:
        """This node did not run for so long: that is given to everybody, and more for as long as it may happen again."""
        self._links.health.late(seconds, clock)
        for session in self._links.sessions.values():
            session.liveness.shift(seconds)
            session.attach_deadline += seconds

    def excuse(self, clock: float) -> None:
        """This node was asleep: nobody's silence counts, and everybody is asked."""
        for session in self._links.sessions.values():
            if session.joined:
                self._links.ping(session, clock)
            session.liveness.excuse(clock)
            if session.attach_deadline != float("inf"):
                session.attach_deadline = clock + self._attach_timeout
