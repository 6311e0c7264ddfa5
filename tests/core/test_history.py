"""Who subscribes later gets what was kept, then what is live: in order, nothing twice, nothing missing at the seam."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.core.messages import RepairedMessage
from tests.core.virtual import VirtualNode, World


def pair(seed: int = 1, **how: Any) -> tuple[World, VirtualNode, VirtualNode]:
    world = World(seed)
    a, b = world.add("a"), world.add("b")
    world.meet()
    a.keep("x", **(how or {"history": 100}))
    return world, a, b


def publish(a: VirtualNode, first: int, end: int, topic: str = "x", size: int = 1) -> None:
    for number in range(first, end):
        a.publish(topic, number.to_bytes(4, "big") + bytes(size))


def numbers(b: VirtualNode, entry: Any) -> list[int]:
    return [number for _, number in b.given[entry.number]]


def calm(b: VirtualNode) -> bool:
    """Nothing of what it took to catch up is left."""
    catchups = b.engine.accounts.catchups
    return not catchups.behind and not catchups._active and not b.engine.accounts._repairs.waiting


@pytest.mark.parametrize(("asked", "first"), [(0, 20), (1, 19), (7, 13), (20, 0), (50, 0)])
def test_the_last_n_then_what_is_live(asked: int, first: int) -> None:
    world, a, b = pair()
    publish(a, 0, 20)
    entry = b.subscribe("x", history=asked)
    world.run(0.5)
    publish(a, 20, 23)
    world.run(0.5)
    assert numbers(b, entry) == list(range(first, 23))
    assert b.lost == 0 and calm(b)


def test_what_leaves_while_a_subscription_is_becoming_live_is_live() -> None:
    """The tag stands, the barrier is still on its way: *history* counts from the end, and takes nothing away."""
    world, a, b = pair()
    publish(a, 0, 20)
    world.run(0.1)
    waiting: list[tuple[str, bytes]] = []
    tell = b._tell
    told: list[bytes] = []

    def only_the_tag(endpoint: str, message: bytes) -> None:
        told.append(message)
        tell(endpoint, message) if len(told) == 1 else waiting.append((endpoint, message))

    b._tell = only_the_tag  # type: ignore[method-assign]
    entry = b.subscribe("x", history=3)
    world.run(0.01)
    publish(a, 20, 30)
    world.run(0.01)
    assert numbers(b, entry) == [] and waiting  # where it begins is not known yet
    b._tell = tell  # type: ignore[method-assign]
    for each in waiting:
        tell(*each)
    later = b.subscribe("x", history=3)
    world.run(0.5)
    publish(a, 30, 33)
    world.run(0.5)
    assert numbers(b, entry) == list(range(20, 33))
    assert numbers(b, later) == list(range(27, 33))
    assert b.lost == 0 and calm(b)


def test_at_most_what_the_publisher_offers() -> None:
    world, a, b = pair(history=3)
    a.publish("x", *[b"v"] * 10)  # they are kept together, and offered one by one
    entry = b.subscribe("x", history=8)
    world.run(0.5)
    assert numbers(b, entry) == [7, 8, 9]


def test_the_last_value_is_for_everybody() -> None:
    world, a, b = pair(retain=True)
    publish(a, 0, 5)
    entry, pattern = b.subscribe("x"), b.subscribe("**")
    world.run(0.5)
    assert numbers(b, entry) == numbers(b, pattern) == [4]
    publish(a, 5, 6)
    world.run(0.5)
    assert numbers(b, entry) == numbers(b, pattern) == [4, 5]
    assert b.lost == 0 and calm(b)


def test_while_the_publisher_goes_on() -> None:
    """Whatever is published before, during and after: each subscription sees one unbroken sequence to the end."""
    for seed in range(15):
        world, a, b = pair(seed)
        chance = world.random
        entries = []
        at = 0
        for _ in range(60):
            count = chance.randrange(0, 4)
            publish(a, at, at + count)
            at += count
            if chance.random() < 0.1:
                entries.append(b.subscribe(chance.choice(["x", "*", "**"]), history=chance.randrange(0, 12)))
            world.run(chance.choice([0.0, 0.0002, 0.001, 0.003, 0.05]))
        world.run(2.0)
        publish(a, at, at + 1)
        world.run(1.0)
        for entry in entries:
            got = numbers(b, entry)
            assert got == list(range(got[0], at + 1)), (seed, entry)
            assert len(got) >= min(entry.history, at)
        assert b.lost == 0 and calm(b)


def test_with_losses_all_the_while() -> None:
    for seed in range(15):
        world, a, b = pair(seed, reliable=True, history=1)
        world.loss = 0.25
        entries = []
        for at in range(0, 120, 2):
            publish(a, at, at + 2)
            if at % 30 == 10:
                entries.append(b.subscribe("x", history=20))
            world.run(0.03)
        world.loss = 0.0
        world.run(10.0)
        for entry in entries:
            got = numbers(b, entry)
            assert got == list(range(got[0], 120)), (seed, entry)
            assert len(got) >= 20 or got[0] == 0
        assert b.lost == 0 and calm(b)


def test_a_history_over_several_parts() -> None:
    world, a, b = pair(reliable=True, history=1)
    a.keep("x", 4 << 20)
    publish(a, 0, 30, size=60 << 10)
    answers: list[Any] = []
    send = a._SendDirect
    a._SendDirect = lambda effect: (answers.append(effect.message), send(effect))  # type: ignore[method-assign,assign,func-returns-value]
    entry = b.subscribe("x", history=30)
    world.run(0.05)
    publish(a, 30, 32)
    world.run(1.0)
    assert numbers(b, entry) == list(range(32))
    assert sum(isinstance(each, RepairedMessage) and each.last for each in answers) > 5


def test_another_session_brings_nothing_twice() -> None:
    world, a, b = pair(reliable=True, history=1)
    publish(a, 0, 10)
    entry = b.subscribe("x", history=5)
    world.run(0.5)
    world.cuts |= {("a", "b"), ("b", "a")}
    publish(a, 10, 12)
    world.run(30.0)
    assert a.peers == b.peers == set()
    world.cuts.clear()
    world.run(20.0)
    publish(a, 12, 13)
    world.run(1.0)
    assert numbers(b, entry) == list(range(5, 13))
    assert calm(b)


@pytest.mark.parametrize("reliable", [False, True])
def test_a_partition_in_the_middle_of_catching_up(reliable: bool) -> None:
    world, a, b = pair(reliable=reliable, history=40)
    publish(a, 0, 40, size=16 << 10)
    entry = b.subscribe("x", history=40)
    world.run(0.005)
    world.cuts.add(("a", "b"))
    world.run(30.0)
    world.cuts.clear()
    world.run(20.0)
    publish(a, 40, 41)
    world.run(1.0)
    assert numbers(b, entry) == list(range(41))
    assert calm(b)


def test_a_publisher_that_joins_later_brings_its_history() -> None:
    world, a, b = pair()
    publish(a, 0, 3)
    entry = b.subscribe("x", history=2)
    world.run(0.5)
    c = world.add("c")
    c.keep("x", history=5)
    publish(c, 0, 4)
    world.meet()
    publish(c, 4, 5)
    world.run(1.0)
    assert numbers(b, entry) == [1, 2, 2, 3, 4]
    assert calm(b)


def test_a_publisher_that_leaves_in_the_middle() -> None:
    world, a, b = pair()
    publish(a, 0, 10)
    entry = b.subscribe("x", history=5)
    world.run(0.0035)
    a.kill()
    world.run(60.0)
    assert numbers(b, entry) in ([], [5, 6, 7, 8, 9])
    assert calm(b)


def test_unsubscribing_in_the_middle() -> None:
    world, a, b = pair()
    publish(a, 0, 10)
    entry = b.subscribe("x", history=5)
    world.run(0.0035)
    b.engine.remove_interest(entry)
    b.carry_out()
    world.run(5.0)
    assert calm(b)


def test_one_that_nobody_keeps_anything_for_is_known() -> None:
    world, a, b = pair()
    publish(a, 0, 3)
    publish(a, 0, 3, topic="y")
    plain, kept = b.subscribe("y", history=5), b.subscribe("x", history=5)
    world.run(0.5)
    assert b.engine.accounts.catchups.kept_nothing == {plain.number: (a.id, "y")}
    assert numbers(b, kept) == [0, 1, 2]


def test_of_own_lines() -> None:
    _, a, _ = pair(history=5)
    publish(a, 0, 3)
    a.publish("x", b"3", b"4", b"5", b"6")
    entry = a.subscribe("x", history=3)
    caught = a.engine.outgoing.catch_up(entry.number, 3)
    assert [batch.sequence + skip for batch, skip in caught] == [4]
    assert a.engine.outgoing.catch_up(entry.number, 0) == []
    a.keep("x", retain=True)
    ((batch, skip),) = a.engine.outgoing.catch_up(entry.number, 0)
    assert batch.values[skip:] == [b"6"]


def test_a_publisher_that_opens_its_link_anew_says_again_where_it_stands() -> None:
    """The subscriber forgets with its session what it was told, and connects afresh."""
    world, a, b = pair(history=5)
    entry = b.subscribe("x", history=5)
    world.run(0.5)
    publish(a, 0, 3)
    world.run(1.0)
    session = a.engine.links.sessions[b.id]
    assert session.address is not None
    a.engine.links._open(session, session.address, world.clock)
    a.carry_out()
    world.run(2.0)
    later = b.subscribe("x", history=2)
    publish(a, 3, 4)
    world.run(1.0)
    assert b.engine.links.sessions[a.id].settled == b.engine.subscriber.version
    assert (numbers(b, entry), numbers(b, later)) == ([0, 1, 2, 3], [2, 3])
    assert b.lost == 0 and calm(b)
