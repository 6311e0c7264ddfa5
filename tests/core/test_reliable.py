"""Kept streams: every message, in order, once, whatever the network does; or the exact range that will never come."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.config import Config, Limits
from mesh.core.codec import encode_batch
from mesh.core.effects import LossCause, SendDirect
from mesh.core.messages import Batch, RepairedMessage, RepairMessage
from mesh.core.ring import LEAST
from mesh.errors import ConfigError
from tests.core.virtual import VirtualNode, World


def pair(seed: int = 1, ring: int = 1 << 20) -> tuple[World, VirtualNode, VirtualNode]:
    world = World(seed)
    a, b = world.add("a"), world.add("b")
    world.meet()
    a.keep("x", ring)
    b.subscribe("x")
    world.run(0.5)
    return world, a, b


def number(value: int) -> bytes:
    return value.to_bytes(4, "big")


def publish(a: VirtualNode, first: int, count: int, size: int = 0) -> None:
    a.publish("x", *[number(n) + bytes(size) for n in range(first, first + count)])


def numbers(b: VirtualNode) -> list[int]:
    return [int.from_bytes(value[:4], "big") for value in b.received("x")]


def sent_direct(node: VirtualNode) -> list[Any]:
    """Everything that it says from now on over the direct plane."""
    messages: list[Any] = []
    send = node._SendDirect

    def note(effect: SendDirect) -> None:
        messages.append(effect.message)
        send(effect)

    node._SendDirect = note  # type: ignore[method-assign]
    return messages


def test_nothing_is_asked_while_nothing_is_missing() -> None:
    world, a, b = pair()
    said = sent_direct(b) + sent_direct(a)
    for n in range(50):
        publish(a, n, 1)
        world.run(0.01)
    assert numbers(b) == list(range(50))
    assert said == []
    assert b.engine.accounts.awaited == 0


def test_a_hole_is_repaired_in_order() -> None:
    world, a, b = pair()
    publish(a, 0, 2)
    world.loss = 1.0
    publish(a, 2, 3)
    world.loss = 0.0
    publish(a, 5, 2)
    world.run(0.005)
    assert numbers(b) == [0, 1]
    assert b.engine.accounts.awaited == 5
    world.run(0.1)
    assert numbers(b) == list(range(7))
    assert (b.lost, b.repaired, b.engine.accounts.awaited) == (0, 5, 0)


def test_a_lost_end_is_repaired_within_a_second() -> None:
    world, a, b = pair()
    publish(a, 0, 1)
    world.loss = 1.0
    publish(a, 1, 3)
    world.loss = 0.0
    world.run(1.0)
    assert numbers(b) == [0, 1, 2, 3]


def test_a_lost_beginning_is_repaired() -> None:
    world, a, b = pair()
    world.loss = 1.0
    publish(a, 0, 3)
    world.loss = 0.0
    publish(a, 3, 1)
    world.run(1.0)
    assert numbers(b) == [0, 1, 2, 3]


def test_who_comes_late_misses_nothing_from_then_on() -> None:
    world, a, _ = pair()
    publish(a, 0, 10)
    c = world.add("c")
    world.meet()
    c.subscribe("x")
    world.run(0.5)
    world.loss = 1.0
    publish(a, 10, 1)
    world.loss = 0.0
    publish(a, 11, 1)
    world.run(1.0)
    assert numbers(c) == [10, 11]
    assert c.lost == 0


def test_questions_and_answers_that_are_lost_are_repeated() -> None:
    for seed in range(10):
        world, a, b = pair(seed)
        world.loss = 0.5
        for n in range(100):
            publish(a, n, 1)
            world.run(0.02)
        world.loss = 0.0
        world.run(5.0)
        assert numbers(b) == list(range(100)), seed
        assert b.lost == 0


def test_across_a_partition_that_is_shorter_than_the_ring() -> None:
    world, a, b = pair()
    publish(a, 0, 1)
    world.run(0.1)
    world.cuts |= {("a", "b"), ("b", "a")}
    for n in range(1, 40):
        publish(a, n, 1)
        world.run(0.5)
    assert a.peers == b.peers == set()
    world.cuts.clear()
    world.run(20.0)
    assert numbers(b) == list(range(40))
    assert b.lost == 0


def test_a_pause_of_the_subscriber() -> None:
    world, a, b = pair()
    publish(a, 0, 1)
    world.run(0.1)
    b.pause()
    for n in range(1, 30):
        world.loss = 1.0 if n > 5 else 0.0  # its pipe is full
        publish(a, n, 1)
        world.loss = 0.0
        world.run(0.1)
    b.resume()
    world.run(2.0)
    assert numbers(b) == list(range(30))


def test_what_the_ring_has_let_go_is_named_exactly() -> None:
    world, a, b = pair(ring=LEAST)
    publish(a, 0, 1)
    world.run(0.1)
    world.cuts.add(("a", "b"))
    for n in range(1, 11):
        publish(a, n, 1, size=16 << 10)
    kept = a.engine.outgoing.line("x").kept
    assert kept is not None and 1 < kept < 10
    world.cuts.clear()
    world.run(1.0)
    assert numbers(b) == [0, *range(kept, 11)]
    (loss,) = b.losses
    assert (loss.topic, loss.first, loss.end, loss.cause) == ("x", 1, kept, LossCause.NOT_KEPT)


def test_a_large_hole_is_repaired_in_parts_while_others_get_through() -> None:
    world, a, b = pair(ring=8 << 20)
    answers = sent_direct(a)
    world.loss = 1.0
    for n in range(40):
        publish(a, n, 1, size=64 << 10)
    world.loss = 0.0
    world.run(2.0)
    assert numbers(b) == list(range(40))
    repaired = [each for each in answers if isinstance(each, RepairedMessage)]
    parts = sum(each.last for each in repaired)
    assert len(repaired) == 40 and 10 <= parts <= 20


def test_many_that_miss_the_same_do_not_ask_at_once() -> None:
    world = World(7)
    a = world.add("a")
    others = [world.add(f"b{n}") for n in range(12)]
    world.meet()
    a.keep("x")
    for each in others:
        each.subscribe("x")
    world.run(0.5)
    asked: list[float] = []
    repair = a.engine.outgoing.repair
    a.engine.outgoing.repair = lambda *args: (asked.append(world.clock), repair(*args))  # type: ignore[method-assign,assign,func-returns-value]
    world.loss = 1.0
    publish(a, 0, 1)
    world.loss = 0.0
    publish(a, 1, 1)
    world.run(1.0)
    assert all(numbers(each) == [0, 1] for each in others)
    assert len(asked) == 12
    assert max(asked) - min(asked) > 0.005


def test_a_publisher_that_leaves_leaves_no_hole_open() -> None:
    world, a, b = pair()
    publish(a, 0, 1)
    world.loss = 1.0
    publish(a, 1, 2)
    world.loss = 0.0
    publish(a, 3, 1)
    a.stop()
    world.run(5.0)
    assert numbers(b) == [0, 3]
    (loss,) = b.losses
    assert (loss.first, loss.end, loss.cause) == (1, 3, LossCause.PUBLISHER_GONE)


def test_a_publisher_that_is_killed_is_waited_for_in_vain_for_a_bounded_time() -> None:
    world, a, b = pair()
    world.loss = 1.0
    publish(a, 0, 2)
    world.loss = 0.0
    publish(a, 2, 1)
    world.run(0.0015)
    a.kill()
    world.run(12.0 + 25.0)
    assert numbers(b) == [] and b.lost == 0
    world.run(20.0)
    assert numbers(b) == [2]
    assert [(each.first, each.end, each.cause) for each in b.losses] == [(0, 2, LossCause.PUBLISHER_GONE)]


def test_a_topic_that_becomes_kept_later() -> None:
    world = World(3)
    a, b = world.add("a"), world.add("b")
    world.meet()
    b.subscribe("x")
    world.run(0.5)
    publish(a, 0, 2)
    world.run(0.1)
    world.loss = 1.0
    publish(a, 2, 1)
    world.loss = 0.0
    a.keep("x")
    publish(a, 3, 1)
    world.run(1.0)
    assert numbers(b) == [0, 1, 3]
    assert [(each.first, each.end) for each in b.losses] == [(2, 3)]


def test_unsubscribing_with_a_hole_open() -> None:
    world, a, b = pair()
    b.subscribe("y")
    publish(a, 0, 1)
    world.run(0.1)
    world.cuts.add(("b", "a"))
    world.loss = 1.0
    publish(a, 1, 1)
    world.loss = 0.0
    publish(a, 2, 1)
    world.run(0.1)
    assert b.engine.accounts.awaited == 2
    entry = next(iter(b.engine.subscriber._interests))
    b.engine.remove_interest(entry)
    b.carry_out()
    world.run(5.0)
    assert numbers(b) == [0] and b.lost == 0
    assert b.engine.accounts.awaited == 0


def test_a_topic_that_begins_while_another_subscription_does() -> None:
    world, a, b = pair()
    b.subscribe("y")  # nobody has said yet where its topics stand
    world.loss = 1.0
    publish(a, 0, 1)
    world.loss = 0.0
    publish(a, 1, 1)
    world.run(0.5)
    assert numbers(b) == [0, 1]


def test_repair_is_for_subscribers() -> None:
    world, a, b = pair()
    a.keep("secret")
    a.publish("secret", b"s")
    answers = sent_direct(a)
    b._SendDirect(SendDirect(a.id, RepairMessage(0, "secret", 0, 1, 1 << 20)))
    b._SendDirect(SendDirect(a.id, RepairMessage(0, "nothing", 0, 1, 1 << 20)))
    world.run(1.0)
    assert [each for each in answers if isinstance(each, RepairedMessage)] == []


def test_a_repair_of_another_topic_is_rejected() -> None:
    world, a, b = pair()
    publish(a, 0, 1)
    world.run(0.1)
    wrong = encode_batch(Batch("y", 1, 0, 0, [b""], None))
    a._SendDirect(SendDirect(b.id, RepairedMessage(0, "x", 0, wrong, True)))
    a._SendDirect(SendDirect(b.id, RepairedMessage(0, "x", 0, b"\xff", True)))
    a._SendDirect(SendDirect(b.id, RepairedMessage(0, "unknown", 0, b"\xff", True)))
    world.run(1.0)
    assert b.engine.rejected["bad_message"] == 3
    assert numbers(b) == [0]


def test_rings_have_bounds() -> None:
    world = World(1)
    a = world.add("a", Config.lan(limits=Limits(ring_total_bytes=4 * LEAST)))
    for size in (0, -1, LEAST - 1, 1.5, None):
        with pytest.raises(ConfigError, match="one batch"):
            a.keep("x", size)  # type: ignore[arg-type]
    a.keep("x", 2 * LEAST)
    a.keep("x", LEAST)  # it has more already
    a.keep("x", 3 * LEAST)
    with pytest.raises(ConfigError, match="do not fit") as caught:
        a.keep("y", 2 * LEAST)
    assert caught.value.key == "ring"
    a.keep("y", LEAST)
