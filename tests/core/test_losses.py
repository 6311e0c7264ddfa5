"""Every loss is known to the side that suffers it, within a second: in the middle, at the end, at the beginning."""

from __future__ import annotations

import pytest

from mesh.core.effects import LossCause, PublishFrame
from tests.core.virtual import VirtualNode, World


def pair(pattern: str = "x", seed: int = 1) -> tuple[World, VirtualNode, VirtualNode]:
    world = World(seed)
    a, b = world.add("a"), world.add("b")
    world.meet()
    b.subscribe(pattern)
    world.run(0.5)
    return world, a, b


def lose(world: World, a: VirtualNode, topic: str, *values: bytes) -> None:
    """Publish something that gets lost on its way."""
    world.loss = 1.0
    a.publish(topic, *values)
    world.loss = 0.0


def ranges(node: VirtualNode) -> list[tuple[str, int, int]]:
    return [(each.topic, each.first, each.end) for each in node.losses]


def test_a_loss_at_the_end_is_known_within_a_second() -> None:
    world, a, b = pair()
    a.publish("x", b"0")
    world.run(0.1)
    lose(world, a, "x", b"1", b"2")
    world.run(1.0)
    assert ranges(b) == [("x", 1, 3)]
    assert b.losses[0].cause is LossCause.NETWORK
    a.publish("x", b"3")
    world.run(1.0)
    assert b.received("x") == [b"0", b"3"]
    assert b.lost == 2  # once


@pytest.mark.parametrize("kept", [False, True], ids=["plain", "reliable"])
def test_a_topic_that_begins_while_two_have_lost_each_other_is_accounted_for_from_its_first(
    kept: bool,
) -> None:
    """Both live, each let the other go, and nothing of the topic had come before."""
    world, a, b = pair("x/*")
    if kept:
        a.keep("x/new")
    world.cuts |= {("a", "b"), ("b", "a")}
    a.publish("x/new", b"0", b"1")
    world.run(15.0)
    assert not b.peers
    a.publish("x/new", b"2")
    world.cuts.clear()
    world.run(15.0)
    assert b.peers == {"a"}
    a.publish("x/new", b"3")
    world.run(1.0)
    if kept:
        assert (b.received("x/new"), b.lost) == ([b"0", b"1", b"2", b"3"], 0)
    else:
        assert (b.received("x/new"), ranges(b)) == ([b"3"], [("x/new", 0, 3)])


def test_a_topic_of_which_nothing_came_is_lost_from_its_first_message_on() -> None:
    world, a, b = pair("x/*")
    lose(world, a, "x/new", b"0", b"1")
    world.run(1.0)
    assert ranges(b) == [("x/new", 0, 2)]


def test_what_came_before_the_subscription_is_no_loss() -> None:
    world = World(1)
    a, b = world.add("a"), world.add("b")
    world.meet()
    for number in range(5):
        a.publish("x", b"%d" % number)
    b.subscribe("x")
    world.run(2.0)
    a.publish("x", b"5")
    world.run(2.0)
    assert b.received("x") == [b"5"]
    assert b.lost == 0


def test_a_second_subscription_costs_no_losses() -> None:
    world, a, b = pair("x")
    for number in range(3):
        a.publish("x", b"%d" % number)
        a.publish("y", b"%d" % number)
    world.run(1.0)
    b.subscribe("*")
    world.run(1.0)
    a.publish("x", b"3")
    a.publish("y", b"3")
    lose(world, a, "z", b"0")
    world.run(1.0)
    assert b.received("x") == [b"0", b"1", b"2", b"3"]
    assert b.received("y") == [b"3"]
    assert ranges(b) == [("z", 0, 1)]


def test_idle_streams_are_silent() -> None:
    world, a, _ = pair()
    sent: list[bytes] = []
    publish = a._PublishFrame

    def note(effect: PublishFrame) -> None:
        sent.append(effect.frame)
        publish(effect)

    a._PublishFrame = note  # type: ignore[method-assign]
    a.publish("x", b"0")
    world.run(5.0)
    assert len(sent) == 3
    world.run(60.0)
    assert len(sent) == 3
    assert a.engine.outgoing.deadline() == float("inf")


def test_nothing_is_announced_to_nobody() -> None:
    world, a, b = pair()
    entry = b.subscribe("y")
    world.run(0.5)
    a.publish("y", b"0")
    b.engine.remove_interest(entry)
    b.carry_out()
    sent: list[PublishFrame] = []
    a._PublishFrame = sent.append  # type: ignore[method-assign]
    world.run(5.0)
    assert sent == []


def test_a_stream_that_flows_announces_nothing() -> None:
    world, a, b = pair()
    tails: list[PublishFrame] = []
    a._PublishFrame = tails.append  # type: ignore[method-assign]
    for number in range(100):
        a.publish("x", b"%d" % number)
        world.run(0.15)
    assert tails == []
    assert b.lost == 0


def test_a_subscriber_that_had_to_connect_anew_is_told_again() -> None:
    """Its connection broke, and with it what was under way; libzmq connects by itself and repeats the subscriptions."""
    world, a, b = pair()
    a.publish("x", b"0")
    world.run(5.0)
    lose(world, a, "x", b"1")
    world.loss = 1.0
    world.run(5.0)  # the announcements are lost too
    assert b.lost == 0
    world.loss = 0.0
    for body in b.bodies:
        a.heard_subscription("b", b"\1" + body)
    world.run(1.0)
    assert ranges(b) == [("x", 1, 2)]


def test_as_long_as_a_pipe_is_known_to_be_full_the_tail_is_repeated() -> None:
    world, a, b = pair()
    a.publish("x", b"0")
    world.run(0.1)
    world.loss = 1.0  # as a full pipe: the transport said so
    a.publish("x", b"1", b"2", b"3")
    a.engine.outgoing.passed_over(a.engine.broadcast.tag("x"), world.clock)
    world.run(8.0)
    world.loss = 0.0
    world.run(1.0)
    assert ranges(b) == [("x", 1, 4)]
    world.run(30.0)
    assert a.engine.outgoing.deadline() == float("inf")


@pytest.mark.parametrize("lost_too", [False, True])
def test_losses_between_two_sessions(lost_too: bool) -> None:
    world, a, b = pair()
    a.publish("x", b"0")
    world.run(0.1)
    world.cuts |= {("a", "b"), ("b", "a")}
    a.publish("x", b"1", b"2")
    world.run(30.0)
    assert a.peers == set() and b.peers == set()
    a.publish("x", b"3")
    world.cuts.clear()
    world.run(20.0)
    assert b.peers == {"a"}
    assert ranges(b) == [("x", 1, 4)]  # as soon as it is back, though nothing more comes
    (lose if lost_too else lambda w, n, t, v: n.publish(t, v))(world, a, "x", b"4")
    world.run(1.0)
    assert b.lost == 3 + lost_too


def test_the_account_holds_whatever_is_lost() -> None:
    """published = delivered + lost, for every stream, with a third of all frames lost."""
    for seed in range(20):
        world = World(seed)
        a, b = world.add("a"), world.add("b")
        world.meet()
        b.subscribe("**")
        world.run(0.5)
        world.loss = 0.3
        published = 0
        for _ in range(200):
            values = [b"v"] * world.random.randrange(1, 4)
            published += len(values)
            a.publish(world.random.choice(["x", "y", "z/1"]), *values)
            world.run(world.random.choice([0.0, 0.001, 0.05, 0.3]))
        world.loss = 0.0
        world.run(30.0)
        for topic in ("x", "y", "z/1"):
            a.publish(topic, b"last")
        world.run(1.0)
        received = sum(len(b.received(topic)) for topic in ("x", "y", "z/1"))
        assert received + b.lost == published + 3, seed
