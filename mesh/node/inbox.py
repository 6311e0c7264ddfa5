"""From batches to subscriptions: who of this node gets what arrived, and what is counted.

A batch of the broadcast plane (opened, decoded, its sequence checked) → every matching
subscription without a group.  A directed batch → one subscription of its group, or for
``to=`` all that match.  What this node publishes itself takes the same way, unsealed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import trio

from mesh.core.catchup import CatchUps
from mesh.core.effects import LossCause, Lost
from mesh.core.messages import Batch
from mesh.core.receiver import Delivery
from mesh.core.reorder import Fresh
from mesh.core.router import LOCAL, Member, Router
from mesh.core.types import NodeId
from mesh.node.message import MessagesLost, Origin, Peer
from mesh.node.paced import PacedSubscription
from mesh.node.subscription import Subscription
from mesh.node.watch import Watch, Watches

__all__ = ["Inbox", "LossWatch", "Turns"]


_UNSUBSCRIBED: Final = "unsubscribed"
"""Why messages are dropped that nobody wants any more when they could be taken."""

_GROUPS: Final = 4096  # whose turns are remembered


class LossWatch(Watch[MessagesLost]):
    """Made by ``node.watch_losses``: an async iterator of ``MessagesLost``.

    A watcher that does not read loses the oldest events; ``dropped`` counts them. It ends
    when the node closes.
    """

    async def __anext__(self) -> MessagesLost:
        return await super().__anext__()


class Turns:
    """Whose turn it is in each group: one after the other."""

    def __init__(self) -> None:
        self._turns: Counter[str] = Counter()

    def choose(self, group: str, members: Sequence[Member]) -> Member:
        if len(self._turns) >= _GROUPS and group not in self._turns:
            self._turns.clear()  # whose turn it is may be forgotten; group names are the peers' to choose
        self._turns[group] += 1
        return members[self._turns[group] % len(members)]


class Inbox:
    """The subscriptions of one node, by the number of their interest."""

    def __init__(self, router: Router, turns: Turns, catchups: CatchUps) -> None:
        self._router = router
        self._catchups = catchups
        self._turns = turns
        self.subscriptions: dict[int, Subscription] = {}
        self.received = self.lost = self.duplicates = self.repaired = 0
        self.lost_by_cause: Counter[LossCause] = Counter()
        self.losses: Watches[MessagesLost] = Watches()
        self.received_from: Counter[NodeId] = Counter()
        self.lost_from: Counter[NodeId] = Counter()
        self._past_delivered = 0  # of subscriptions that have ended
        self._past_dropped: Counter[str] = Counter()  # … by reason

    def end(self, number: int) -> bool:
        """A subscription ends; what it counted stays counted. False if it had ended before."""
        subscription = self.subscriptions.pop(number, None)
        if subscription is None:
            return False
        self._past_delivered += subscription.delivered
        self._past_dropped[subscription.overflow] += subscription.dropped
        self._past_dropped[_UNSUBSCRIBED] += subscription.queued
        return True

    @property
    def delivered(self) -> int:
        return self._past_delivered + sum(s.delivered for s in self.subscriptions.values())

    @property
    def dropped(self) -> int:
        return self._past_dropped.total() + sum(s.dropped for s in self.subscriptions.values())

    def dropped_by_reason(self) -> dict[str, int]:
        """By the overflow policy that dropped them; what waited, or was under way, as its subscription ended."""
        reasons = Counter(self._past_dropped)
        for subscription in self.subscriptions.values():
            reasons[subscription.overflow] += subscription.dropped
        return {reason: count for reason, count in reasons.items() if count}

    def forget(self, node: NodeId) -> None:
        """The peer left: its own counts go, the node's stay."""
        for subscription in self.subscriptions.values():
            if isinstance(subscription, PacedSubscription):
                subscription.forget(node)
        del self.received_from[node]
        del self.lost_from[node]

    def deliver(self, delivery: Delivery, sender: Peer) -> None:
        """A batch of the broadcast plane, or one that was repaired."""
        node, batch, skip, lost = delivery
        self.duplicates += skip
        numbers = self._router.route(batch.topic).local
        if lost:
            self.count_lost(
                Lost(node, batch.topic, batch.sequence - lost, batch.sequence, LossCause.NETWORK), sender
            )
        fresh = len(batch.values) - skip
        if fresh <= 0:
            return
        self.received += fresh
        self.received_from[node] += fresh
        if not numbers:
            self._past_dropped[_UNSUBSCRIBED] += fresh  # it unsubscribed while this was awaited
        origin = Origin(batch, sender)
        if node in self._catchups.behind:
            numbers = self._deliver_behind(node, batch, sender, numbers)
        for number in numbers:
            self.subscriptions[number].feed(origin, batch, skip)

    def _deliver_behind(
        self, node: NodeId, batch: Batch, sender: Peer, numbers: tuple[int, ...]
    ) -> tuple[int, ...]:
        """Some of these subscriptions have something to get before this. Those which have not."""
        ready = []
        for number in numbers:
            taken = self._catchups.take(number, node, batch, trio.current_time())
            if taken is None:
                ready.append(number)
                continue
            subscription = self.subscriptions[number]
            subscription.refuse(taken.refused)
            for step in taken.steps:
                if isinstance(step, Fresh):
                    subscription.feed(Origin(step.batch, sender), step.batch, step.skip)
        return tuple(ready)

    def deliver_to(self, number: int, batch: Batch, skip: int, sender: Peer) -> None:
        """What was kept for one subscription."""
        subscription = self.subscriptions.get(number)
        if subscription is not None:
            self.received += len(batch.values) - skip
            subscription.feed(Origin(batch, sender), batch, skip)

    def watch(self) -> LossWatch:
        """For a program that wants to know of each loss."""
        watch = LossWatch()
        self.losses.add(watch)
        return watch

    def count_lost(self, loss: Lost, sender: Peer) -> None:
        """Messages that will never come."""
        node, topic, first, end, cause = loss
        count = end - first
        self.lost += count
        self.lost_from[node] += count
        self.lost_by_cause[cause] += count
        for number in self._router.route(topic).local:
            subscription = self.subscriptions[number]
            subscription.lost += count
            subscription.lost_by_cause[cause] += count
            if isinstance(subscription, PacedSubscription):
                subscription.passed(sender, topic, end, count)
        self.losses.feed(MessagesLost(sender, cause.value, topic, first, count))

    def wanted(self, number: int, node: NodeId) -> None:
        """A publisher waits for a subscription."""
        subscription = self.subscriptions.get(number)
        if isinstance(subscription, PacedSubscription):
            subscription.wanted(node)

    def cut_off(self, number: int, sender: Peer) -> None:
        """A publisher waits no more for a subscription."""
        subscription = self.subscriptions.get(number)
        if isinstance(subscription, PacedSubscription):
            subscription.cut_off(sender)

    def deliver_directed(self, node: NodeId, group: str, batch: Batch, sender: Peer) -> None:
        """A batch over the direct plane: for one member of a group, or for all that match."""
        route = self._router.route(batch.topic)
        numbers: Sequence[int]
        if group:
            members = [member for member in route.groups.get(group, ()) if member.peer == LOCAL]
            numbers = [self._turns.choose(group, members).number] if members else []
        else:
            grouped = [m.number for members in route.groups.values() for m in members if m.peer == LOCAL]
            numbers = [*route.local, *grouped]
        fresh = len(batch.values)
        self.received += fresh
        self.received_from[node] += fresh
        if not numbers:
            self._past_dropped[_UNSUBSCRIBED] += fresh  # it unsubscribed while this was under way
            return
        origin = Origin(batch, sender, apart=True)
        for number in numbers:
            self.subscriptions[number].feed(origin, batch)

    def deliver_local(self, numbers: Sequence[int], batch: Batch, sender: Peer) -> None:
        """What this node itself published."""
        origin = Origin(batch, sender)
        self.received += len(batch.values)
        for number in numbers:
            self.subscriptions[number].feed(origin, batch)
