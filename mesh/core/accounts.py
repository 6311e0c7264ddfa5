"""What we have of every publisher's streams, and what is missing: the receiving side's books.

A batch → ``observe`` (nothing is kept: a gap is a loss, at once), or ``kept`` (in order through ``reorder``; a hole
is asked for, over the direct plane, until it is repaired or the publisher says that it keeps it no
longer).  A publisher that falls silent announces its tail, and one at which our subscriptions become live says
where its streams stand (``positions``), so that losses at the end and at the beginning are seen too.

Results are ``Deliver`` and ``Lost`` effects; only a batch that comes when it is due is handed back at once.  While nothing is
missing nothing is sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mesh.config import Config
from mesh.core.codec import decode_batch
from mesh.core.effects import Deliver, Effect, LossCause, Lost, SendDirect
from mesh.core.links import Links
from mesh.core.messages import Batch, PositionsMessage, RepairedMessage, RepairMessage, Tail
from mesh.core.reorder import Fresh, Reorder, Room, Step
from mesh.core.router import Router
from mesh.core.sequence import TOPICS_PER_PUBLISHER, Missing, Observation, StreamSequences
from mesh.core.session import Session
from mesh.core.types import NodeId, RandomBytes, Reason, RemoteProtocolError

__all__ = ["Accounts"]

_REMEMBERED: Final = 256  # departed peers whose numbers are remembered

_SPREAD: Final = 0.02
"""Seconds within which a hole is first asked for: many may miss the same, and the publisher is one."""

_RETRY: Final = 0.25
"""Seconds after which an unanswered question is repeated, twice as long each time."""

_RETRY_MAX: Final = 2.0

_BEGINNING: Final = 1.0
"""Seconds for which a kept stream waits to be told where it begins for us."""

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
        self, config: Config, rng: RandomBytes, links: Links, router: Router, effects: list[Effect]
    ) -> None:
        self._config = config
        self._rng = rng
        self._links = links
        self._router = router
        self._effects = effects
        self._subscribed = 0  # the version of our interests with which our latest subscription began
        self._publishers: dict[NodeId, _Publisher] = {}
        self._waiting: dict[tuple[NodeId, str], Reorder] = {}  # those with a hole, or without a beginning

    @property
    def awaited(self) -> int:
        """Messages that are missing and hoped for, and those that wait behind them."""
        return sum(r.end - r.next if r.next is not None else r.held for r in self._waiting.values())

    def _of(self, node: NodeId) -> _Publisher:
        publisher = self._publishers.get(node)
        if publisher is None:
            if len(self._publishers) >= _REMEMBERED + len(self._links.sessions):
                self._forget(next(n for n in self._publishers if n not in self._links.sessions))
            publisher = self._publishers[node] = _Publisher()
        return publisher

    def _forget(self, node: NodeId) -> None:
        for topic in self._publishers.pop(node).kept:
            self._waiting.pop((node, topic), None)

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
        if reorder.hole is not None or reorder.next is None or (node, batch.topic) in self._waiting:
            self._watch(node, batch.topic, reorder, clock)
        if len(steps) == 1 and isinstance(steps[0], Fresh):
            return steps[0]
        self._carry_out(node, batch.topic, steps)
        return None

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
        if tail.kept is None and tail.topic not in publisher.kept:
            self._lose(node, tail.topic, [publisher.plain.tail(tail.topic, tail.next)])
            return
        reorder = self._reorder(publisher, tail.topic)
        if reorder is not None:
            reorder.announced(tail.next)
            self._watch(node, tail.topic, reorder, clock)

    def _lose(self, node: NodeId, topic: str, missing: Iterable[Missing]) -> None:
        for first, end in missing:
            if first < end:
                self._effects.append(Lost(node, topic, first, end, LossCause.NETWORK))

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
        for _, topic, next_number, kept, *_ in session.positions:
            if not self._router.subscribed(topic):
                continue
            if kept is None and topic not in publisher.kept:
                self._lose(node, topic, publisher.plain.stands_at(topic, next_number))
            elif (reorder := self._reorder(publisher, topic)) is not None:
                self._carry_out(node, topic, reorder.begin(next_number))
                reorder.announced(next_number)
                self._watch(node, topic, reorder, clock)
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
                    reorder.due = float("inf")
                    self._watch(node, topic, reorder, clock)

    def subscribed(self, version: int) -> None:
        """A subscription of ours begins: nobody has yet said where its topics stand."""
        self._subscribed = version
        for publisher in self._publishers.values():
            publisher.plain.unsettle()

    def renewed(self, node: NodeId) -> None:
        """A new session of the peer: it will say anew where its streams stand."""
        publisher = self._publishers.get(node)
        if publisher is not None:
            publisher.plain.unsettle()

    def forget_unsubscribed(self) -> None:
        """We do not follow some topics any more: a gap in them is no loss."""
        for node, publisher in self._publishers.items():
            publisher.plain.forget_if(lambda topic: not self._router.subscribed(topic))
            for topic in [topic for topic in publisher.kept if not self._router.subscribed(topic)]:
                publisher.kept.pop(topic).drop()
                self._waiting.pop((node, topic), None)

    # -- repair ------------------------------------------------------------------------

    def _watch(self, node: NodeId, topic: str, reorder: Reorder, clock: float) -> None:
        """See to it that what is missing is asked for."""
        if reorder.next is None:
            if reorder.due == float("inf"):
                reorder.due = clock + _BEGINNING
        elif reorder.hole is None:
            reorder.due = float("inf")
            reorder.tries = 0
            self._waiting.pop((node, topic), None)
            return
        elif (node, topic) not in self._waiting or reorder.due > clock + _RETRY_MAX:
            reorder.due = clock + _SPREAD * self._rng(1)[0] / 256
        self._waiting[node, topic] = reorder

    def repaired(self, session: Session, message: RepairedMessage, clock: float) -> None:
        """An answer, or a part of one."""
        node = session.node
        publisher = self._of(node)
        reorder = publisher.kept.get(message.topic)
        if reorder is None or reorder.next is None:
            return  # we have unsubscribed meanwhile
        batch = None if message.batch is None else decode_batch(message.batch)
        if batch is not None and batch.topic != message.topic:
            raise RemoteProtocolError(Reason.BAD_MESSAGE, "repaired with another topic")
        before = reorder.next
        steps = reorder.gone_below(message.kept)
        if batch is not None:
            steps += reorder.take(batch)
        self._carry_out(node, message.topic, steps, repaired=True)
        if reorder.next > before:
            reorder.tries = 0
        self._watch(node, message.topic, reorder, clock)
        if message.last and reorder.hole is not None and reorder.next > before:
            self._ask(node, message.topic, reorder, clock)  # the rest of it

    def _ask(self, node: NodeId, topic: str, reorder: Reorder, clock: float) -> None:
        hole = reorder.hole
        session = self._links.sessions.get(node)
        if hole is None or session is None or not session.link_open:
            reorder.due = float("inf")  # it is looked at again when the publisher is back
            return
        self._effects.append(SendDirect(node, RepairMessage(topic, hole.first, hole.end)))
        reorder.due = clock + min(_RETRY * 2**reorder.tries, _RETRY_MAX)
        reorder.tries = min(reorder.tries + 1, 8)

    # -- time ------------------------------------------------------------------------------

    def ended(self, node: NodeId, clock: float) -> None:
        """The peer has no session any more. If it said goodbye, it never comes back."""
        publisher = self._publishers.get(node)
        if publisher is None:
            return
        publisher.gone_at = clock
        if node in self._links.departed:
            self._give_up(node, publisher)

    def _give_up(self, node: NodeId, publisher: _Publisher) -> None:
        for topic, reorder in publisher.kept.items():
            self._give_up_on(node, topic, reorder)

    def _give_up_on(self, node: NodeId, topic: str, reorder: Reorder) -> None:
        self._waiting.pop((node, topic), None)
        self._carry_out(node, topic, reorder.give_up(), LossCause.PUBLISHER_GONE)

    def deadline(self) -> float:
        if not self._waiting:
            return float("inf")
        soonest = min(reorder.due for reorder in self._waiting.values())
        away = {node for node, _ in self._waiting if node not in self._links.sessions}
        for node in away:
            soonest = min(soonest, self._publishers[node].gone_at + self._config.repair_patience)
        return soonest

    def timer(self, clock: float) -> None:
        """Ask for what is missing (again); give up on publishers that stay away."""
        for (node, topic), reorder in list(self._waiting.items()):
            publisher = self._publishers[node]
            away = node not in self._links.sessions
            if away and publisher.gone_at + self._config.repair_patience <= clock:
                self._give_up_on(node, topic, reorder)
                continue
            if reorder.due > clock:
                continue
            if reorder.next is None:
                self._carry_out(node, topic, reorder.begin_with_held())
                reorder.due = float("inf")
                self._watch(node, topic, reorder, clock)
            else:
                self._ask(node, topic, reorder, clock)
