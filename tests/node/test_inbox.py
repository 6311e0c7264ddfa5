"""The inbox: which subscriptions get what arrived, and what is counted."""

from __future__ import annotations

from typing import Any

import trio

from mesh.core.catchup import CatchUps
from mesh.core.messages import RAW, Batch, InterestEntry
from mesh.core.receiver import Delivery
from mesh.core.router import LOCAL, SUBSCRIPTION, Member, Router
from mesh.node.inbox import Inbox, Turns
from mesh.node.message import Peer
from mesh.node.subscription import Subscription
from tests.node.fakes import as_any, node

PEER = Peer(node(1).hex(), "peer", "member", (), "alive", None)


class Room:
    """An inbox with a router, and subscriptions made by pattern and group."""

    def __init__(self) -> None:
        self.router = Router()
        self.inbox = Inbox(self.router, Turns(), CatchUps(as_any(None), as_any(None), []))

    def subscribe(self, pattern: str, group: str = "", *, buffer: int = 100) -> Subscription:
        number = len(self.inbox.subscriptions) + 1
        self.router.add(LOCAL, [InterestEntry(number, SUBSCRIPTION, pattern, group, 0, 0)])
        subscription = Subscription(
            pattern,
            buffer=buffer,
            overflow="drop_oldest",
            group=group,
            most_bytes=1 << 20,
            enter=as_any(None),
            leave=as_any(None),
        )
        self.inbox.subscriptions[number] = subscription
        return subscription

    def deliver(self, topic: str, *values: bytes, first: int = 0, skip: int = 0, lost: int = 0) -> None:
        batch = Batch(topic, first, 0, RAW, list(values), None)
        self.inbox.deliver(Delivery(node(1), batch, skip, lost), PEER)

    def direct(self, group: str, topic: str, *values: bytes) -> None:
        self.inbox.deliver_directed(node(1), group, Batch(topic, 0, 0, RAW, list(values), None), PEER)


def drained(subscription: Subscription) -> list[Any]:
    taken = []
    try:
        while True:
            taken.append(subscription.receive_nowait().data)
    except trio.WouldBlock:
        return taken


def test_a_batch_goes_to_every_plain_subscription_that_matches() -> None:
    room = Room()
    exact, star, other, grouped = (
        room.subscribe("a/b"),
        room.subscribe("a/*"),
        room.subscribe("b"),
        room.subscribe("a/b", "g"),
    )
    room.deliver("a/b", b"0", b"1")
    assert [drained(s) for s in (exact, star, other, grouped)] == [[b"0", b"1"], [b"0", b"1"], [], []]
    assert (room.inbox.received, room.inbox.received_from[node(1)], room.inbox.delivered) == (2, 2, 4)


def test_repeated_and_lost_messages() -> None:
    room = Room()
    subscription = room.subscribe("t")
    room.deliver("t", b"0", b"1", first=10, lost=10)
    room.deliver("t", b"1", b"2", first=11, skip=1)
    room.deliver("t", b"1", b"2", first=11, skip=2)
    assert drained(subscription) == [b"0", b"1", b"2"]
    inbox = room.inbox
    assert (inbox.received, inbox.duplicates, inbox.lost, subscription.lost) == (3, 3, 10, 10)
    assert inbox.lost_from[node(1)] == 10
    inbox.forget(node(1))
    assert (inbox.lost_from[node(1)], inbox.received_from[node(1)], inbox.lost) == (0, 0, 10)


def test_a_directed_batch_goes_to_all_that_match() -> None:
    room = Room()
    plain, grouped, other = room.subscribe("t"), room.subscribe("t", "g"), room.subscribe("u")
    room.direct("", "t", b"0")
    assert [drained(s) for s in (plain, grouped, other)] == [[b"0"], [b"0"], []]


def test_a_batch_for_a_group_goes_to_one_of_its_members_by_turns() -> None:
    room = Room()
    plain, first, second, elsewhere = (
        room.subscribe("t"),
        room.subscribe("t", "g"),
        room.subscribe("*", "g"),
        room.subscribe("t", "h"),
    )
    for n in range(4):
        room.direct("g", "t", b"%d" % n)
    assert drained(plain) == drained(elsewhere) == []
    one, two = drained(first), drained(second)
    assert sorted(one + two) == [b"0", b"1", b"2", b"3"] and len(one) == len(two) == 2


def test_what_nobody_takes_any_more_is_dropped_and_counted() -> None:
    room = Room()
    room.subscribe("other")
    room.direct("g", "t", b"0", b"1")
    room.direct("", "t", b"2")
    assert (room.inbox.received, room.inbox.dropped) == (3, 3)


def test_what_an_ended_subscription_counted_stays_counted() -> None:
    room = Room()
    subscription = room.subscribe("t", buffer=3)
    room.deliver("t", *[b""] * 5)
    subscription.receive_nowait()
    assert (room.inbox.delivered, room.inbox.dropped) == (1, 2)
    assert room.inbox.end(1)
    assert not room.inbox.end(1)
    assert (room.inbox.delivered, room.inbox.dropped) == (1, 4)


def test_own_messages() -> None:
    room = Room()
    first, second = room.subscribe("t"), room.subscribe("t", "g")
    room.inbox.deliver_local((2,), Batch("t", 0, 0, RAW, [b"0"], None), PEER)
    assert (drained(first), drained(second), room.inbox.received) == ([], [b"0"], 1)


def test_turns_are_fair_and_bounded() -> None:
    turns = Turns()
    members = [Member(node(n), 0) for n in range(3)]
    assert [turns.choose("g", members).peer for _ in range(6)] == [node(n) for n in (1, 2, 0, 1, 2, 0)]
    for n in range(10_000):
        turns.choose(f"group {n}", members)
    assert len(turns._turns) <= 4096
