"""Who subscribes to our broadcasts: the tags that peers may set on our socket, and their barriers.

A subscription seen on the broadcast socket → MAC checked under that peer's token → the tag is set on the pipe it
came from.  A barrier among them is answered in the next step, when its tag stands, and only once
we know the peer's interests up to the version that it names: then all of them are live here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from mesh.core.broadcast import Broadcast
from mesh.core.effects import CutSubscriber, Effect, PublishFrame, SendDirect
from mesh.core.identity import Certificate
from mesh.core.links import Links
from mesh.core.messages import InterestsWantedMessage
from mesh.core.outgoing import Outgoing
from mesh.core.router import Member
from mesh.core.session import Session
from mesh.core.types import NodeId, Reason, RemoteProtocolError

__all__ = ["Audience", "Subscribed"]

_BARRIERS: Final = 16
"""Barriers of one peer that may wait for its interests: it replaces its own, so two would do."""

_STARVED: Final = 0.5
"""Seconds for which a barrier waits for interests before they are asked for: they come over another link."""


class Subscribed(NamedTuple):
    """What to do with a subscription on the pipe it came from; ``tag`` None refuses it.

    ``source`` is the peer whose MAC it has, and the epoch of the token under which it was made.
    """

    tag: bytes | None
    subscribe: bool
    source: tuple[NodeId, int] | None = None


class Audience:
    """The publishing side of one node. ``clock`` is monotonic seconds."""

    def __init__(
        self,
        broadcast: Broadcast,
        links: Links,
        outgoing: Outgoing,
        effects: list[Effect],
        rejected: Callable[[Reason], None],
    ) -> None:
        self._broadcast = broadcast
        self._links = links
        self._outgoing = outgoing
        self._effects = effects
        self._rejected = rejected

    def subscription_received(self, message: bytes) -> Subscribed:
        """Judge a subscription (ZMTP's first byte included)."""
        try:
            seen = self._broadcast.subscription(message, self._token_of, self._reader)
        except RemoteProtocolError as error:
            self._rejected(error.reason)
            return Subscribed(None, True)
        if seen.again:
            self._links.sessions[seen.peer].resubscribed = True
        if seen.barrier is not None:
            session = self._links.sessions[seen.peer]
            waiting = session.barriers
            if session.old_subscriber:
                # It has subscribed anew. Whatever else subscribed in its name did so under a token that a
                # member who is none any more may know.
                session.old_subscriber = False
                self._effects.append(CutSubscriber(seen.peer, seen.epoch))
            if seen.subscribe:
                waiting.append((seen.tag, seen.barrier))
                del waiting[:-_BARRIERS]  # the newest is the one that counts
            elif (seen.tag, seen.barrier) in waiting:
                waiting.remove((seen.tag, seen.barrier))
        return Subscribed(seen.tag, seen.subscribe, (seen.peer, seen.epoch))

    def _reader(self, peer: NodeId) -> Certificate:
        return self._links.sessions[peer].introduced.certificate

    def _token_of(self, peer: NodeId) -> tuple[int, bytes] | None:
        session = self._links.sessions.get(peer)
        return None if session is None else session.token

    def answer_barriers(self, session: Session, clock: float) -> None:
        """Echo the barriers whose interests are known; keep the others."""
        waiting, session.barriers = session.barriers, []
        newest = max((version for _, version in waiting if version <= session.interests.version), default=-1)
        if newest > session.told:
            # In front of the echoes, so that it is judged by what they prove to have come.
            self._outgoing.tell_positions(session, newest)
            session.told = newest
        for tag, version in waiting:
            if session.interests.version < version:
                session.barriers.append((tag, version))
            else:
                session.live = max(session.live, version)
                self._effects.append(PublishFrame(tag, self._broadcast.echo(tag, clock)))
        if not session.barriers:
            session.starved_at = float("inf")
        elif session.starved_at == float("inf"):
            session.starved_at = clock
        elif session.starved_at <= clock - _STARVED:
            # They were lost with a link; and pings, which would tell, go to silent peers only.
            session.starved_at = clock
            self._effects.append(SendDirect(session.node, InterestsWantedMessage(session.interests.version)))

    def say_last(self, clock: float) -> None:
        """Nothing is published any more: say so behind what was, to everybody who subscribed to something."""
        tags = {self._broadcast.topic_tag(node) for node in self._links.sessions} - {None}
        self._effects += [
            PublishFrame(tag, self._broadcast.last(tag, clock)) for tag in sorted(filter(None, tags))
        ]

    def is_live(self, member: Member) -> bool:
        """Whether a peer's subscription is proven: a barrier came with it or after it."""
        session = self._links.sessions.get(member.peer)
        if session is None:
            return False
        since = session.interests.since(member.number)
        return since is not None and since <= session.live
