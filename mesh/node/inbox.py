"""From batches to subscriptions: who of this node gets what arrived, and what is counted.

A batch of the broadcast plane (opened, decoded, its sequence checked) → every matching
subscription without a group.  A directed batch → one subscription of its group, or for
``to=`` all that match.  What this node publishes itself takes the same way, unsealed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from mesh.core.messages import Batch
from mesh.core.receiver import Delivery
from mesh.core.router import LOCAL, Member, Router
from mesh.core.types import NodeId
from mesh.node.message import Origin, Peer
from mesh.node.subscription import Subscription

__all__ = ["Inbox", "Turns"]


_GROUPS: Final = 4096  # whose turns are remembered


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

    def __init__(self, router: Router, turns: Turns) -> None:
        self._router = router
        self._turns = turns
        self.subscriptions: dict[int, Subscription] = {}
        self.received = self.lost = self.duplicates = 0
        self.received_from: Counter[NodeId] = Counter()
        self.lost_from: Counter[NodeId] = Counter()
        self._past_delivered = self._past_dropped = 0  # of subscriptions that have ended

    def end(self, number: int) -> bool:
        """A subscription ends; what it counted stays counted. False if it had ended before."""
        subscription = self.subscriptions.pop(number, None)
        if subscription is None:
            return False
        self._past_delivered += subscription.delivered
        self._past_dropped += subscription.dropped + subscription.queued
        return True

    @property
    def delivered(self) -> int:
        return self._past_delivered + sum(s.delivered for s in self.subscriptions.values())

    @property
    def dropped(self) -> int:
        return self._past_dropped + sum(s.dropped for s in self.subscriptions.values())

    def forget(self, node: NodeId) -> None:
        """The peer left: its own counts go, the node's stay."""
        del self.received_from[node]
        del self.lost_from[node]

    def deliver(self, delivery: Delivery, sender: Peer) -> None:
        """A batch of the broadcast plane."""
        session, batch, skip, lost = delivery
        node = session.node
        self.duplicates += skip
        numbers = self._router.route(batch.topic).local
        if lost:
            self.lost += lost
            self.lost_from[node] += lost
            for number in numbers:
                self.subscriptions[number].lost += lost
        fresh = len(batch.values) - skip
        if fresh <= 0:
            return
        self.received += fresh
        self.received_from[node] += fresh
        origin = Origin(batch, sender)
        for number in numbers:
            self.subscriptions[number].feed(origin, batch, skip)

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
            self._past_dropped += fresh  # it unsubscribed while this was under way
            return
        origin = Origin(batch, sender)
        for number in numbers:
            self.subscriptions[number].feed(origin, batch)

    def deliver_local(self, numbers: Sequence[int], batch: Batch, sender: Peer) -> None:
        """What this node itself published."""
        origin = Origin(batch, sender)
        self.received += len(batch.values)
        for number in numbers:
            self.subscriptions[number].feed(origin, batch)
