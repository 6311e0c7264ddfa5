"""What we have of every publisher's streams, and what is missing: the receiving side's books.

A batch → ``observe`` (nothing is kept: a gap is a loss, at once), or ``kept`` (in order through ``reorder``; a hole
is asked for, over the direct plane, until it is repaired or the publisher says that it keeps it no
longer).  A batch that comes in pieces is put together first (``chunk``).  A publisher that falls silent announces its tail, and one at which our subscriptions become live says
where its streams stand (``positions``), so that losses at the end and at the beginning are seen too.

Results are ``Deliver`` and ``Lost`` effects; only a batch that comes when it is due is handed back at once.  While nothing is
missing nothing is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from mesh.config import Config
from mesh.core.catchup import CatchUps
from mesh.core.chunks import Assembly, Piece, Pool
from mesh.core.codec import decode_batch
from mesh.core.effects import Deliver, Effect, LossCause, Lost
from mesh.core.envelope import CHUNK
from mesh.core.links import Links
from mesh.core.messages import Batch, Chunk, InterestEntry, PositionsMessage, RepairedMessage, Tail
from mesh.core.parts import Parts
from mesh.core.reorder import Fresh, Reorder, Room, Step
from mesh.core.repairs import Key, Repairs
from mesh.core.router import SUBSCRIPTION, Router
from mesh.core.sequence import TOPICS_PER_PUBLISHER, Missing, Observation, StreamSequences
from mesh.core.session import Session
from mesh.core.types import NodeId, RandomBytes, Reason, RemoteProtocolError

__all__ = ["Accounts"]

_REMEMBERED: Final = 256  # departed peers whose numbers are remembered

_PENDING: Final = 1 << 16
"""Positions that wait for the echo of their barrier: four times the topics that are remembered."""


class _Publisher:
    """The books of one publisher. They outlive its session, so that what is lost between two is seen."""

    __slots__ = ("gone_at", "kept", "plain", "room")

    def __init__(self) -> None:
        self.plain = StreamSequences()
        self.kept: dict[str, Reorder] = {}
        self.room = Room()
        self.gone_at = float("inf")  # since when it has no session


class Accounts:
    """All publishers' streams. ``clock`` is monotonic seconds."""

    def __init__(
        self,
        config: Config,
        rng: RandomBytes,
        links: Links,
        router: Router,
        effects: list[Effect],
        reject: Callable[[Reason], None],
    ) -> None:
        self._config = config
        self._links = links
        self._router = router
        self._effects = effects
        self._subscribed = 0  # the version of our interests with which our latest subscription began
        self._publishers: dict[NodeId, _Publisher] = {}
        self._reject = reject
        largest = config.limits.assembled_bytes
        pool = Pool(config.limits.assembly_total_bytes)
        self.parts = Parts(largest, pool, effects, reject)
        self.chunks: Assembly[str, int] = Assembly(largest, pool, self._incomplete)
        self._repairs = Repairs(rng, links, effects, largest)
        self.catchups = CatchUps(self._repairs, links, effects)

    @property
    def awaited(self) -> int:
        """Messages that are missing and hoped for, and those that wait behind them."""
        return sum(
            r.end - r.next if r.next is not None else r.held
            for key, r in self._repairs.waiting.items()
            if not key.number
        )

    def awaited_by_topic(self) -> list[tuple[NodeId, str, int]]:
        """The same, publisher by publisher and topic by topic."""
        return [
            (key.node, key.topic, r.end - r.next if r.next is not None else r.held)
            for key, r in self._repairs.waiting.items()
            if not key.number
        ]

    def numbers(self) -> list[tuple[NodeId, str, int]]:
        """How far each publisher's streams have come, as far as we have seen: the number that comes next."""
        found = []
        for node, publisher in self._publishers.items():
            found += [(node, topic, number) for topic, number in publisher.plain.numbers()]
            found += [(node, topic, r.next) for topic, r in publisher.kept.items() if r.next is not None]
        return found

    def _of(self, node: NodeId) -> _Publisher:
        publisher = self._publishers.get(node)
        if publisher is None:
            if len(self._publishers) >= _REMEMBERED + len(self._links.sessions):
                self._forget(next(n for n in self._publishers if n not in self._links.sessions))
            publisher = self._publishers[node] = _Publisher()
            self.catchups.met(node)
        return publisher

    def _forget(self, node: NodeId) -> None:
        for topic in self._publishers.pop(node).kept:
            self._repairs.forget(Key(node, topic))
        self.catchups.forget(node)

    # -- batches -----------------------------------------------------------------

    def observe(self, node: NodeId, batch: Batch) -> Observation:
        """A batch that nobody keeps."""
        publisher = self._publishers.get(node) or self._of(node)
        return publisher.plain.observe(batch.topic, batch.sequence, len(batch.values))

    def kept(self, node: NodeId, batch: Batch, clock: float) -> Fresh | None:
        """A batch that its publisher keeps: what of it is due now, if it is due alone."""
        reorder = self._reorder(self._of(node), batch.topic)
        if reorder is None:
            return None
        steps = reorder.take(batch)
        key = Key(node, batch.topic)
        if reorder.hole is not None or reorder.next is None or key in self._repairs.waiting:
            self._repairs.watch(key, reorder, clock)
        if len(steps) == 1 and isinstance(steps[0], Fresh):
            return steps[0]
        self._carry_out(node, batch.topic, steps)
        return None

    def chunk(
        self, node: NodeId, chunk: Chunk, kind: int, data: memoryview, clock: float
    ) -> list[memoryview | bytes] | None:
        """A piece of a batch. All of them, with the last. Raises ``RemoteProtocolError``."""
        piece = Piece(chunk.total, chunk.offset, data)
        try:
            return self.chunks.take(node, chunk.topic, chunk.sequence, kind, piece, clock)
        except RemoteProtocolError as error:
            if error.reason is Reason.TOO_LARGE:
                self._not_coming(node, chunk.topic, chunk.sequence, kind, LossCause.TOO_LARGE, clock)
            raise

    def _incomplete(self, node: NodeId, topic: str, number: int, kind: int, clock: float) -> None:
        """The rest of a value will not come."""
        self._reject(Reason.INCOMPLETE)
        self._not_coming(node, topic, number, kind, LossCause.NETWORK, clock)

    def _not_coming(
        self, node: NodeId, topic: str, number: int, kind: int, cause: LossCause, clock: float
    ) -> None:
        publisher = self._of(node)
        if kind == CHUNK and topic not in publisher.kept:
            self._lose(node, topic, [publisher.plain.tail(topic, number)])
            self._lose(node, topic, [publisher.plain.tail(topic, number + 1)], cause)
            return
        reorder = self._reorder(publisher, topic)
        if (
            reorder is not None
        ):  # it is asked for as a whole; of one that is too large we are told that it is not kept
            reorder.announced(number + 1)
            self._repairs.watch(Key(node, topic), reorder, clock)

    def _reorder(self, publisher: _Publisher, topic: str) -> Reorder | None:
        """The books of a kept stream; None if there is no room for more."""
        reorder = publisher.kept.get(topic)
        if reorder is None:
            if len(publisher.kept) >= TOPICS_PER_PUBLISHER:
                return None
            # What came of it before it was kept has been counted, and the count goes on from there.
            reorder = publisher.kept[topic] = Reorder(publisher.plain.next_of(topic), publisher.room)
            publisher.plain.retire(topic)
        return reorder

    def _carry_out(
        self,
        node: NodeId,
        topic: str,
        steps: Iterable[Step],
        cause: LossCause = LossCause.NOT_KEPT,
        *,
        repaired: bool = False,
    ) -> None:
        for step in steps:
            if isinstance(step, Fresh):
                self._effects.append(Deliver(node, step.batch, step.skip, repaired))
            else:
                self._effects.append(Lost(node, topic, step.first, step.end, cause))

    # -- tails and positions --------------------------------------------------------

    def tail(self, node: NodeId, tail: Tail, clock: float) -> None:
        """Behind everything it has sent, the publisher says what would come next."""
        publisher = self._of(node)
        self.chunks.give_up_below(node, tail.topic, tail.next, clock)
        if tail.kept is None and tail.topic not in publisher.kept:
            self._lose(node, tail.topic, [publisher.plain.tail(tail.topic, tail.next)])
            return
        reorder = self._reorder(publisher, tail.topic)
        if reorder is not None:
            reorder.announced(tail.next)
            self._repairs.watch(Key(node, tail.topic), reorder, clock)

    def _lose(
        self, node: NodeId, topic: str, missing: Iterable[Missing], cause: LossCause = LossCause.NETWORK
    ) -> None:
        for first, end in missing:
            if first < end:
                self._effects.append(Lost(node, topic, first, end, cause))

    def positions(self, session: Session, message: PositionsMessage, clock: float) -> None:
        """A page of where the publisher's streams stand. They count once the barrier behind them is echoed."""
        if len(session.positions) + len(message.positions) > _PENDING:
            raise RemoteProtocolError(Reason.TOO_MANY, "positions")
        session.positions += message.positions
        if message.last:
            session.positioned = message.version
            self.echoed(session, clock)

    def echoed(self, session: Session, clock: float) -> None:
        """A barrier has been echoed: everything that was sent before its positions has come, or never will."""
        if session.positioned < 0 or session.confirmed < session.positioned:
            return
        node = session.node
        publisher = self._of(node)
        publisher.gone_at = float("inf")
        # First: what a subscription has held comes before what a stream lets go with the same positions.
        kept = publisher.kept
        self.catchups.positions(
            session, lambda topic, number: kept[topic].begins(number) if topic in kept else number, clock
        )
        for _, topic, next_number, oldest, *_ in session.positions:
            if not self._router.subscribed(topic):
                continue
            under_way = self.chunks.under_way(node, topic)
            if under_way is not None:  # the echo has passed pieces of it that are still to come
                next_number = min(next_number, under_way)
            if oldest is None and topic not in kept:
                self._lose(node, topic, publisher.plain.stands_at(topic, next_number))
            elif (reorder := self._reorder(publisher, topic)) is not None:
                self._carry_out(node, topic, reorder.begin(next_number))
                reorder.announced(next_number)
                self._repairs.watch(Key(node, topic), reorder, clock)
        session.settled = session.positioned
        session.positions.clear()
        session.positioned = -1
        if session.settled >= self._subscribed:
            self._settle(node, publisher, clock)

    def _settle(self, node: NodeId, publisher: _Publisher, clock: float) -> None:
        """What has come and was in no position began after they were told."""
        for topic, missing in publisher.plain.settle():
            self._lose(node, topic, [missing])
        if publisher.plain.settled:
            for topic, reorder in publisher.kept.items():
                if reorder.next is None:
                    self._carry_out(node, topic, reorder.begin(0))
                    self._repairs.watch(Key(node, topic), reorder, clock)

    def subscribed(self, entry: InterestEntry, version: int) -> None:
        """An interest of ours begins: nobody has yet said where its topics stand."""
        self._subscribed = version
        if entry.kind == SUBSCRIPTION and not entry.group:
            self.catchups.subscribed(entry.number, version)
        for publisher in self._publishers.values():
            publisher.plain.unsettle()

    def renewed(self, node: NodeId, clock: float) -> None:
        """A new session of the peer: it will say anew where its streams stand.

        It is the same process as before, so that what it had said of their beginnings holds.
        """
        self.chunks.drop(node, clock)
        self.parts.drop(node, clock)
        self.catchups.met(node)

    def unsettled(self, version: int) -> bool:
        """Whether some peer has yet to say where its streams stand for our interests up to ``version``."""
        return any(s.awaited and s.settled < version for s in self._links.sessions.values())

    def unsubscribed(self, entry: InterestEntry) -> None:
        """We may not follow some topics any more: a gap in them is no loss."""
        self.catchups.unsubscribed(entry.number)
        self.chunks.drop_if(lambda topic: not self._router.subscribed(topic))
        for node, publisher in self._publishers.items():
            publisher.plain.forget_if(lambda topic: not self._router.subscribed(topic))
            for topic in [topic for topic in publisher.kept if not self._router.subscribed(topic)]:
                publisher.kept.pop(topic).drop()
                self._repairs.forget(Key(node, topic))

    # -- repair ------------------------------------------------------------------------

    def repaired(self, session: Session, message: RepairedMessage, clock: float) -> None:
        """An answer, or a part of one."""
        node = session.node
        batch = None if message.batch is None else decode_batch(message.batch)
        if batch is not None and batch.topic != message.topic:
            raise RemoteProtocolError(Reason.BAD_MESSAGE, "repaired with another topic")
        key = Key(node, message.topic, message.number)
        if message.number:
            self.catchups.repaired(key, message.kept, batch, clock, last=message.last)
            return
        reorder = self._of(node).kept.get(message.topic)
        if reorder is None or reorder.next is None:
            return  # we have unsubscribed meanwhile
        before = reorder.next
        steps = reorder.gone_below(message.kept)
        if batch is not None:
            steps += reorder.take(batch)
        self._carry_out(node, message.topic, steps, repaired=True)
        self._repairs.answered(key, reorder, before, clock, last=message.last)

    # -- time ------------------------------------------------------------------------------

    def ended(self, node: NodeId, clock: float) -> None:
        """The peer has no session any more. If it said goodbye, it never comes back."""
        self.chunks.drop(node, clock)
        self.parts.drop(node, clock)
        self.catchups.away(node)
        publisher = self._publishers.get(node)
        if publisher is None:
            return
        publisher.gone_at = clock
        if node in self._links.departed:
            for topic, reorder in publisher.kept.items():
                self._give_up_on(Key(node, topic), reorder)
            self.catchups.departed(node)

    def _give_up_on(self, key: Key, reorder: Reorder) -> None:
        if key.number:
            self.catchups.give_up(key)
        else:
            self._repairs.forget(key)
            self._carry_out(key.node, key.topic, reorder.give_up(), LossCause.PUBLISHER_GONE)

    def deadline(self) -> float:
        waiting = self._repairs.waiting
        soonest = min(self.chunks.deadline(), self.parts.deadline())
        if not waiting:
            return soonest
        soonest = min(soonest, self._repairs.deadline())
        for node in {key.node for key in waiting if key.node not in self._links.sessions}:
            soonest = min(soonest, self._publishers[node].gone_at + self._config.repair_patience)
        return soonest

    def timer(self, clock: float) -> None:
        """Ask for what is missing (again); give up on publishers that stay away, and on what came in part."""
        self.chunks.timer(clock)
        self.parts.timer(clock)
        for key in self._repairs.timer(clock):
            self._begin_without(key, clock)
        for key, reorder in list(self._repairs.waiting.items()):
            node = key.node
            away = node not in self._links.sessions
            if away and self._publishers[node].gone_at + self._config.repair_patience <= clock:
                self._give_up_on(key, reorder)

    def _begin_without(self, key: Key, clock: float) -> None:
        """Nobody says where a stream begins: with what is here."""
        if key.number:
            self.catchups.overdue(key, clock)
            return
        reorder = self._repairs.waiting[key]
        self._carry_out(key.node, key.topic, reorder.begin_with_held())
        self._repairs.watch(key, reorder, clock)
