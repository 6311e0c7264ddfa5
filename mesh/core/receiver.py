"""Sealed frames in: opened, judged, accounted, and handed on as batches.

(tag, frame) → the keyring authenticates and opens it → a barrier's echo goes to the subscriber, a last
frame to the links; a batch is decoded, its numbers checked against the publisher's others (``accounts``) → ``Delivery``.  A frame whose key we
do not have yet is held for a moment while the key is asked for.  Every other failure is
counted by its reason; those of frames that did authenticate may, by the table of ``strikes``, end
their sender's link, and many that did not are an incident.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from mesh.config import Config
from mesh.core.access import Access
from mesh.core.accounts import Accounts
from mesh.core.broadcast import Broadcast
from mesh.core.codec import decode_batch, decode_chunk, decode_tail
from mesh.core.effects import Effect, Incident, SendDirect
from mesh.core.envelope import BARRIER, BATCH, CHUNK, KEPT, KEPT_CHUNK, LAST, TAIL, OpeningKey
from mesh.core.links import Links
from mesh.core.messages import Batch, KeyAnnouncement, KeyWantedMessage
from mesh.core.pace import TokenBucket
from mesh.core.router import Router
from mesh.core.session import Session
from mesh.core.strikes import Strikes
from mesh.core.subscriber import Subscriber
from mesh.core.topic import is_valid_pattern
from mesh.core.types import NodeId, Reason, RemoteProtocolError

__all__ = ["QUIET", "Delivery", "Receiver"]

QUIET: Final = 0.05
"""Seconds between two notes of a peer's sign of life: noting each frame would cost more than it tells."""

_HELD: Final = 1.0  # seconds for which a frame of an unknown key is held
_QUESTIONS: Final = 8.0
"""Unknown keys a second that every peer is asked for: whoever can write on a connection to a publisher can make up
any number of them, and each question goes to all."""

_KEY_ID: Final = slice(6, 14)  # where the header has it (``envelope``)


class Delivery(NamedTuple):
    """A batch that authenticated, with the messages of it that are new.

    ``skip`` leading messages were delivered before; ``lost`` messages are missing in front of it.
    """

    publisher: NodeId
    batch: Batch
    skip: int
    lost: int


class Receiver:
    """The receiving side of one node. ``rejected(session, reason, clock)`` counts and may end a link."""

    def __init__(
        self,
        config: Config,
        broadcast: Broadcast,
        links: Links,
        router: Router,
        subscriber: Subscriber,
        accounts: Accounts,
        access: Access,
        effects: list[Effect],
        rejected: Callable[[Session | None, Reason, float], None],
        clock: float,
    ) -> None:
        self._config = config
        self._broadcast = broadcast
        self._links = links
        self._router = router
        self._subscriber = subscriber
        self._access = access
        self._effects = effects
        self._rejected = rejected
        self._accounts = accounts
        self._held: deque[tuple[float, bytes, bytes]] = deque()
        self._keys_wanted: dict[bytes, float] = {}
        self._released: list[tuple[bytes, bytes]] = []
        self._asked = TokenBucket(_QUESTIONS, clock)
        self._forged = Strikes()  # frames that did not authenticate, whoever sent them

    def received(self, tag: bytes, frame: bytes, clock: float) -> Delivery | None:
        """One frame. None if it was not a batch for a program, or was rejected and counted."""
        session: Session | None = None
        try:
            opened = self._broadcast.open(tag, frame)
            session = self._links.sessions.get(opened.owner)
            if session is None:
                raise RemoteProtocolError(Reason.UNKNOWN_KEY, "its owner left")
            if clock - session.liveness.heard_at > QUIET:
                self._links.heard(session, clock)
            if opened.type == BARRIER:
                self._subscriber.echoed(session, tag)
                self._accounts.echoed(session, clock)
                return None
            if opened.type == TAIL:
                tail = decode_tail(opened.plaintext)
                if self._router.subscribed(tail.topic):
                    self._accounts.tail(session.node, tail, clock)
                return None
            if opened.type == LAST:
                self._links.heard_last(session, clock)
                return None
            if opened.type == CHUNK or opened.type == KEPT_CHUNK:
                whole = self._chunk(session, opened.type, opened.plaintext, clock)
                if whole is None:
                    return None
                batch = whole
            elif opened.type == BATCH or opened.type == KEPT:
                batch = decode_batch(opened.plaintext)
            else:
                raise RemoteProtocolError(Reason.BAD_MESSAGE, f"frame of type {opened.type}")
            if self._access.denial("publish", session.node, batch.topic) is not None:
                return None  # counted and told there
        except RemoteProtocolError as error:
            self._bad_frame(error.reason, session, tag, frame, clock)
            return None
        if not self._router.subscribed(batch.topic):
            return None  # a tag let it through by chance, or we have just unsubscribed
        if opened.type == KEPT or opened.type == KEPT_CHUNK:
            fresh = self._accounts.kept(session.node, batch, clock)
            return None if fresh is None else Delivery(session.node, batch, fresh.skip, 0)
        seen = self._accounts.observe(session.node, batch)
        return Delivery(session.node, batch, seen.fresh_from, seen.lost)

    def _chunk(self, session: Session, kind: int, plaintext: bytes, clock: float) -> Batch | None:
        """A piece of a batch; the batch, if it was the last."""
        chunk, piece = decode_chunk(plaintext)
        if not self._router.subscribed(chunk.topic):
            return None
        if not chunk.offset and self._access.denial("publish", session.node, chunk.topic) is not None:
            return None  # its other pieces find no beginning
        pieces = self._accounts.chunk(session.node, chunk, kind, piece, clock)
        if pieces is None:
            return None
        batch = decode_batch(pieces)
        if (batch.topic, batch.sequence, len(batch.values)) != (chunk.topic, chunk.sequence, 1):
            raise RemoteProtocolError(Reason.BAD_MESSAGE, "not the batch that its pieces named")
        return batch

    # -- bad frames, and keys that come late -----------------------------------------

    def _bad_frame(
        self, reason: Reason, session: Session | None, tag: bytes, frame: bytes, clock: float
    ) -> None:
        key_id = bytes(frame[_KEY_ID])
        if session is None and reason is Reason.UNKNOWN_KEY:
            if len(self._held) < self._config.limits.unknown_key_frames:
                self._held.append((clock, tag, frame))
                if self._asked.take(clock):
                    self._want_key(key_id, list(self._links.sessions.values()), clock)
                return
        elif session is None:
            # It did not authenticate, so it accuses nobody: whoever can write on any of our connections to
            # publishers can name any key.
            owner = self._broadcast.keyring.owner(key_id)
            named = None if owner is None else self._links.sessions.get(owner)
            if named is not None and reason is Reason.FUTURE_EPOCH:
                self._want_key(key_id, [named], clock)
            policy = self._forged.add(reason, clock)
            if policy is not None and policy.alert:
                self._forged = Strikes()
                whose = "nobody's" if named is None else f"{named.name}'s"
                self._effects.append(
                    Incident("forged frames", f"{policy.strikes} did not verify; they name {whose} key")
                )
        self._rejected(session, reason, clock)

    def _want_key(self, key_id: bytes, sessions: list[Session], clock: float) -> None:
        if self._keys_wanted.get(key_id, float("-inf")) > clock - _HELD:
            return
        if len(self._keys_wanted) >= self._config.limits.unknown_key_frames:
            self._keys_wanted.clear()
        self._keys_wanted[key_id] = clock
        self._effects += [SendDirect(s.node, KeyWantedMessage(key_id)) for s in sessions if s.link_open]

    def add_key(self, session: Session, key: list[Any], clock: float) -> None:
        """A peer announced its key; frames that waited for it can be received again."""
        announcement = KeyAnnouncement._make(key[:6])
        if announcement.scope and not is_valid_pattern(announcement.scope):
            raise RemoteProtocolError(Reason.BAD_MESSAGE, "scope")
        self._broadcast.keyring.add(session.node, OpeningKey.from_announcement(announcement, session.node))
        if announcement.scope and self._subscriber.follow_scopes():
            self._subscriber.begin_barrier(clock)
        for _ in range(len(self._held)):
            held = self._held.popleft()
            if bytes(held[2][_KEY_ID]) == announcement.key_id:
                self._released.append(held[1:])
            else:
                self._held.append(held)

    def take_released(self) -> list[tuple[bytes, bytes]]:
        """Held frames whose key has come since: to be given to ``received`` again."""
        released, self._released = self._released, []
        return released

    def deadline(self) -> float:
        return self._held[0][0] + _HELD if self._held else float("inf")

    def timer(self, clock: float) -> None:
        """Give up on frames whose key never came."""
        while self.deadline() <= clock:
            self._held.popleft()
            self._rejected(None, Reason.UNKNOWN_KEY, clock)
