"""Our own interests: told to every peer, and proven live by barriers.

add → router, tag on the broadcast socket, change to every peer → a barrier at the new version →
each peer's echo confirms → the barrier ends when the last has.  A barrier that gets lost with
a connection is repeated; one barrier serves all that came before it.
"""

from __future__ import annotations

from typing import Final

from mesh.core.broadcast import Broadcast
from mesh.core.effects import Effect, Subscribe, Unsubscribe
from mesh.core.interest import InterestSet
from mesh.core.links import Links
from mesh.core.messages import InterestEntry
from mesh.core.router import LOCAL, SUBSCRIPTION, Router
from mesh.core.rules import overlap
from mesh.core.session import Session
from mesh.core.tags import scoped_tag
from mesh.core.types import NodeId

__all__ = ["Subscriber"]

_BARRIER_RETRY: Final = 0.25
"""Seconds after which a barrier is repeated, twice as long each time: one lost with a connection costs that much."""

_BARRIER_RETRY_MAX: Final = 2.0  # a publisher that never answers must not keep everybody busy


class Subscriber:
    """The subscribing side of one node. ``clock`` is monotonic seconds."""

    def __init__(
        self,
        interests: InterestSet,
        router: Router,
        broadcast: Broadcast,
        links: Links,
        effects: list[Effect],
    ) -> None:
        self._interests = interests
        self._router = router
        self._broadcast = broadcast
        self._links = links
        self._effects = effects
        self.barrier_at = float("inf")  # when the barrier that stands is repeated
        self._retry = _BARRIER_RETRY
        self._scopes: dict[
            bytes, bytes
        ] = {}  # tags of scopes that we may read and want → what subscribed them

    @property
    def version(self) -> int:
        """The version of our interests; each change makes it one more."""
        return self._interests.version

    def add(
        self, kind: str, pattern: str, clock: float, *, group: str = "", history: int = 0, mode: int = 0
    ) -> InterestEntry:
        """A subscription or responder begins: tell everybody."""
        before = self._interests.version
        entry = self._interests.add(kind, pattern, group, history, mode)
        self._router.add(LOCAL, [entry])
        if kind == SUBSCRIPTION and not group:
            body = self._broadcast.want(pattern)
            if body is not None:
                self._effects.append(Subscribe(body))
            self.follow_scopes()
        self._links.send_all(self._interests.changes_since(before))
        self.begin_barrier(clock)
        return entry

    def follow_scopes(self) -> bool:
        """Subscribe the scopes whose keys we were given, where a subscription of ours may take something.

        Whether there are more than before, so that a barrier is due.
        """
        wanted = [e.pattern for e in self._interests if e.kind == SUBSCRIPTION and not e.group]
        tags = {
            scoped_tag(key_id)
            for key_id, scope in self._broadcast.keyring.scoped()
            if any(overlap(pattern, scope) for pattern in wanted)
        }
        for tag in [tag for tag in self._scopes if tag not in tags]:
            self._effects.append(Unsubscribe(self._scopes.pop(tag)))
        fresh = [tag for tag in tags if tag not in self._scopes]
        for tag in fresh:
            self._scopes[tag] = self._broadcast.body(tag)
            self._effects.append(Subscribe(self._scopes[tag]))
        return bool(fresh)

    def rekey(self, mesh_secret: bytes, secret_epoch: int, clock: float) -> None:
        """Somebody was removed from the mesh: the same subscriptions, under new tags and a new token."""
        self._effects += [
            Unsubscribe(body) for body in self._broadcast.rekey(mesh_secret, secret_epoch, clock)
        ]
        self._effects += [Unsubscribe(body) for body in self._scopes.values()]
        self._scopes.clear()
        self.barrier_at = float("inf")
        for entry in self._interests:
            if entry.kind == SUBSCRIPTION and not entry.group:
                body = self._broadcast.want(entry.pattern)
                if body is not None:
                    self._effects.append(Subscribe(body))
        self.follow_scopes()

    def remove(self, entry: InterestEntry) -> None:
        """It ended."""
        before = self._interests.version
        self._interests.remove(entry.number)
        self._router.remove(LOCAL, [entry])
        if entry.kind == SUBSCRIPTION and not entry.group:
            body = self._broadcast.unwant(entry.pattern)
            if body is not None:
                self._effects.append(Unsubscribe(body))
            self.follow_scopes()
        self._links.send_all(self._interests.changes_since(before))

    # -- barriers ----------------------------------------------------------------

    def begin_barrier(self, clock: float) -> None:
        """Ask every publisher that we are connected to for proof."""
        self._retry = _BARRIER_RETRY
        if any(session.broadcast_connected for session in self._links.sessions.values()):
            self._set_barrier(clock)

    def _set_barrier(self, clock: float) -> None:
        old, body = self._broadcast.begin_barrier(self._interests.version)
        self._effects.append(Subscribe(body))
        if old is not None:
            self._effects.append(Unsubscribe(old))
        self.barrier_at = clock + self._retry

    def echoed(self, session: Session, tag: bytes) -> None:
        """A publisher's echo arrived (of this barrier, or of an older one, which counts for nothing)."""
        version = self._broadcast.echoed(tag)
        if version is not None:
            session.confirmed = max(session.confirmed, version)
            self.end_barrier_if_proven()

    def unconfirmed(self, version: int) -> set[NodeId]:
        """The peers that have not yet proven that our interests up to ``version`` are live.

        Also those that have not joined here, but may have us as joined: of two, one is always the first.
        """
        return {node for node, s in self._links.sessions.items() if s.awaited and s.confirmed < version}

    def _unproven(self) -> bool:
        version = self._interests.version
        return any(s.broadcast_connected and s.confirmed < version for s in self._links.sessions.values())

    def end_barrier_if_proven(self) -> None:
        """Take the barrier back once nobody's echo is missing."""
        if self.barrier_at == float("inf") or self._unproven():
            return
        self.barrier_at = float("inf")
        body = self._broadcast.end_barrier()
        if body is not None:
            self._effects.append(Unsubscribe(body))

    def timer(self, clock: float) -> None:
        """Repeat the barrier if echoes are missing."""
        if self.barrier_at <= clock:
            if self._unproven():
                self._retry = min(2 * self._retry, _BARRIER_RETRY_MAX)
                self._set_barrier(clock)
            else:
                self.end_barrier_if_proven()
