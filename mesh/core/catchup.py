"""A subscription that begins: what publishers kept for it comes first, then what is live, with no seam to be seen.

``subscribed`` → until a publisher's positions have come, what arrives of it for this subscription is held
(``take``) → the positions say from which number on the publisher has something for it → that is asked for
(``repairs``), in parts, as if it were missing → when it is there, or is kept no longer, what was held follows.
Other subscriptions to the same topic do not notice.

Positions of a second session say nothing new: a subscription catches up with a publisher once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from mesh.core.effects import Deliver, Effect
from mesh.core.links import Links
from mesh.core.messages import Batch
from mesh.core.reorder import Fresh, Hole, Reorder, Room, Step
from mesh.core.repairs import Key, Repairs
from mesh.core.session import Session
from mesh.core.types import NodeId

__all__ = ["CatchUp", "CatchUps", "Taken"]


class CatchUp(Reorder):
    """One subscription with one stream. What is missing from ``until`` on is the stream's own business."""

    __slots__ = ("until",)

    def __init__(self) -> None:
        super().__init__(None, Room())
        self.until = 0

    @property
    def hole(self) -> Hole | None:
        hole = super().hole
        if hole is None or hole.first >= self.until:
            return None
        return Hole(hole.first, min(hole.end, self.until))


class Taken(NamedTuple):
    """What is due of a batch (holes among it are nobody's loss), and how many messages there was no room to hold."""

    steps: list[Step]
    refused: int


class CatchUps:
    """All of a node's. ``behind`` are the publishers with which some subscription has yet to catch up."""

    def __init__(self, repairs: Repairs, links: Links, effects: list[Effect]) -> None:
        self._repairs = repairs
        self._links = links
        self._effects = effects
        self._began: dict[
            int, int
        ] = {}  # our subscriptions → the version of our interests that has them first
        self._latest = 0
        self._caught: dict[NodeId, int] = {}  # up to which version they have caught up with a publisher
        self._active: dict[NodeId, dict[tuple[str, int], CatchUp]] = {}
        self.behind: set[NodeId] = set()
        self.kept_nothing: dict[int, tuple[NodeId, str]] = {}  # subscriptions that asked a publisher in vain

    # -- our subscriptions ---------------------------------------------------------

    def subscribed(self, number: int, version: int) -> None:
        """A subscription of ours begins."""
        self._began[number] = self._latest = version
        self.behind.update(self._links.sessions)

    def unsubscribed(self, number: int) -> None:
        """It ended."""
        self._began.pop(number, None)
        self.kept_nothing.pop(number, None)
        for node, active in list(self._active.items()):
            for topic, who in [key for key in active if key[1] == number]:
                self._end(node, topic, who)

    # -- what arrives -----------------------------------------------------------------

    def met(self, node: NodeId) -> None:
        """A publisher that is heard for the first time, or has a new session."""
        if self._latest > self._caught.get(node, -1):
            self.behind.add(node)

    def take(self, number: int, node: NodeId, batch: Batch, clock: float) -> Taken | None:
        """A live batch for a subscription, from a publisher in ``behind``; None if that has caught up."""
        key = (batch.topic, number)
        catching = self._active.get(node, {}).get(key)
        if catching is None:
            if self._began.get(number, -1) <= self._caught.get(node, -1):
                return None
            catching = self._begin(node, batch.topic, number)
            self._repairs.watch(Key(node, *key), catching, clock)
        steps = catching.take(batch)
        refused, catching.refused = catching.refused, 0
        return Taken(steps + self._finished(node, batch.topic, number, catching), refused)

    def _begin(self, node: NodeId, topic: str, number: int) -> CatchUp:
        catching = self._active.setdefault(node, {})[topic, number] = CatchUp()
        self.behind.add(node)  # what is live waits behind it
        return catching

    def _finished(self, node: NodeId, topic: str, number: int, catching: CatchUp) -> list[Step]:
        """What else follows because it has caught up."""
        if catching.next is None or catching.next < catching.until:
            return []
        self._end(node, topic, number)
        return catching.give_up()

    def _end(self, node: NodeId, topic: str, number: int) -> None:
        active = self._active.get(node, {})
        active.pop((topic, number), None)
        self._repairs.forget(Key(node, topic, number))
        if not active:
            self._active.pop(node, None)
            if self._caught.get(node, -1) >= self._latest:
                self.behind.discard(node)

    def _deliver(self, node: NodeId, number: int, steps: Iterable[Step]) -> None:
        for step in steps:
            if isinstance(step, Fresh):
                self._effects.append(Deliver(node, step.batch, step.skip, only=number))

    # -- what publishers say ---------------------------------------------------------------

    def positions(self, session: Session, stands: Callable[[str, int], int], clock: float) -> None:
        """All positions of a publisher, up to a version of our interests.

        ``stands`` tells from which number on a topic goes to all subscriptions: what is still missing there
        is not to be got twice.
        """
        node, version = session.node, session.positioned
        caught = self._caught.get(node, -1)
        for number, topic, next_number, _, first, *_ in session.positions:
            catching = self._active.get(node, {}).get((topic, number))
            if self._began.get(number, -1) <= caught:
                # It has unsubscribed, or this is another session: what it began in an earlier one goes on.
                if catching is not None:
                    self._repairs.watch(Key(node, topic, number), catching, clock)
                continue
            live = min(next_number, stands(topic, next_number))
            if first >= next_number:
                self.kept_nothing.setdefault(number, (node, topic))
            if catching is None:
                if first >= live:
                    continue
                catching = self._begin(node, topic, number)
            catching.until = live
            steps = catching.begin(min(first, live))
            catching.announced(live)
            self._got_on(node, topic, number, catching, steps, clock)
        self._caught[node] = max(caught, version)
        for (topic, number), catching in list(self._active.get(node, {}).items()):
            if catching.next is None and self._began.get(number, -1) <= version:
                self._got_on(node, topic, number, catching, catching.begin_with_held(), clock)
        if node not in self._active and version >= self._latest:
            self.behind.discard(node)

    def _got_on(
        self, node: NodeId, topic: str, number: int, catching: CatchUp, steps: list[Step], clock: float
    ) -> None:
        steps = steps + self._finished(node, topic, number, catching)
        self._deliver(node, number, steps)
        if (topic, number) in self._active.get(node, {}):
            self._repairs.watch(Key(node, topic, number), catching, clock)

    def repaired(self, key: Key, kept: int, batch: Batch | None, clock: float, *, last: bool) -> None:
        """A part of what a subscription asked for."""
        node, topic, number = key
        catching = self._active.get(node, {}).get((topic, number))
        if catching is None or catching.next is None:
            return
        before = catching.next
        steps = catching.gone_below(min(kept, catching.until))
        if batch is not None:
            steps += catching.take(batch)
        self._got_on(node, topic, number, catching, steps, clock)
        if (topic, number) in self._active.get(node, {}):
            self._repairs.answered(key, catching, before, clock, last=last)

    def overdue(self, key: Key, clock: float) -> None:
        """Nobody says where it begins: with what is here."""
        catching = self._active.get(key.node, {}).get((key.topic, key.number))
        if catching is not None:
            # It will not be waited for again, for each batch.
            self._caught[key.node] = max(self._caught.get(key.node, -1), self._began.get(key.number, -1))
            steps = catching.begin_with_held()
            self._got_on(key.node, key.topic, key.number, catching, steps, clock)

    def give_up(self, key: Key) -> None:
        """The publisher stays away: what is here is all there is."""
        node, topic, number = key
        catching = self._active.get(node, {}).get((topic, number))
        if catching is not None:
            self._end(node, topic, number)
            self._deliver(node, number, catching.give_up())

    def away(self, node: NodeId) -> None:
        """The publisher has no session any more; what has begun with it may go on when it is back (``met``)."""
        if node not in self._active:
            self.behind.discard(node)

    def departed(self, node: NodeId) -> None:
        """The publisher said goodbye."""
        for topic, number in list(self._active.get(node, {})):
            self.give_up(Key(node, topic, number))

    def forget(self, node: NodeId) -> None:
        """Nothing is remembered of this publisher any more."""
        self._caught.pop(node, None)
        self.behind.discard(node)
