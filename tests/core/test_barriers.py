"""Barriers that have no easy way: interests lost, publishers that do not answer, tags of a forger."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.core.effects import SendDirect, Subscribe
from mesh.core.messages import InterestsMessage, PositionsMessage
from mesh.core.tags import barrier_tag, subscription_body
from tests.core.virtual import VirtualNode, World


def two() -> World:
    world = World(1)
    world.add("a")
    world.add("b")
    world.meet()
    return world


def test_interests_that_were_lost_are_asked_for_even_if_nobody_is_ever_silent() -> None:
    world = two()
    a, b = world.nodes.values()
    a.subscribe("of b")
    b.subscribe("of a")
    world.run(1.0)
    send = b._SendDirect

    def lose(effect: SendDirect) -> None:
        if not isinstance(effect.message, InterestsMessage):
            send(effect)

    b._SendDirect = lose  # type: ignore[method-assign]
    b.subscribe("new")
    b._SendDirect = send  # type: ignore[method-assign]
    for _ in range(20):
        a.publish("of a", b"1")
        b.publish("of b", b"1")
        world.run(0.1)
    assert a.engine.router.route("new").broadcast
    assert not b.engine.subscriber.unconfirmed(b.engine.subscriber.version)


@pytest.mark.parametrize("seed", range(6))
def test_who_enters_a_subscription_waits_also_for_a_peer_that_joined_on_the_other_side_alone(
    seed: int,
) -> None:
    """Of two that meet one has the other as joined first, and may publish: its program has waited for that peer."""
    world = World(seed)
    for node in (world.add("a"), world.add("b")):
        for other in world.nodes.values():
            node.engine.hint(other.id, [each.intro for each in other.addresses], world.clock)
        node.carry_out()
    late, early = one_of_them_first(world)
    late.subscribe("t")
    version = late.engine.subscriber.version
    assert late.engine.subscriber.unconfirmed(version) == {early.id}
    while late.engine.subscriber.unconfirmed(version):
        world.run(0.001)
    assert early.publish("t", b"x")
    world.run(0.1)
    assert late.received("t") == [b"x"]


def one_of_them_first(world: World) -> tuple[VirtualNode, VirtualNode]:
    """Run until one has joined and the other has not: (who is behind, who is ahead)."""
    a, b = world.nodes.values()
    while bool(a.peers) == bool(b.peers):
        world.run(0.0003)
        assert world.clock < 5
    return (b, a) if a.peers else (a, b)


def test_who_leaves_is_not_waited_for() -> None:
    world = two()
    a, b = world.nodes.values()
    world.cuts.add(("b", "a"))  # what it said last is late, so that it is still known here
    b.engine.say_goodbye(world.clock)
    session = a.engine.links.sessions[b.id]
    a.engine.links.say_farewell(session, world.clock)
    assert session.farewell is not None
    a.subscribe("t")
    assert not a.engine.subscriber.unconfirmed(a.engine.subscriber.version)


def test_many_subscriptions_at_once_make_nobody_ask() -> None:
    world = two()
    a, b = world.nodes.values()
    asked: list[Any] = []
    send = a._SendDirect

    def note(effect: SendDirect) -> None:
        if not isinstance(effect.message, PositionsMessage):
            asked.append(effect.message)
        send(effect)

    a._SendDirect = note  # type: ignore[method-assign]
    for n in range(200):
        b.subscribe(f"x/{n}")
    world.run(1.0)
    assert not b.engine.subscriber.unconfirmed(b.engine.subscriber.version)
    assert not asked


def test_a_publisher_that_does_not_answer_is_asked_ever_more_rarely() -> None:
    world = two()
    a, b = world.nodes.values()
    world.run(1.0)
    a.heard_subscription = lambda *_: None  # type: ignore[method-assign]
    subscribed: list[Subscribe] = []
    subscribe = b._Subscribe

    def note(effect: Subscribe) -> None:
        subscribed.append(effect)
        subscribe(effect)

    b._Subscribe = note  # type: ignore[method-assign]
    b.subscribe("x")
    world.run(60.0)
    assert 20 < len(subscribed) < 40


def test_barriers_that_can_never_be_answered_do_not_crowd_out_the_newest() -> None:
    world = two()
    a, b = world.nodes.values()
    for n in range(40):
        # Every peer of b holds the token that its subscriptions are made with.
        tag = barrier_tag(bytes([n]) * 8, 1 << 60)
        a.engine.subscription_received(
            b"\1" + subscription_body(b.id, b.engine.broadcast.token_epoch, b.engine.broadcast.token, tag)
        )
    assert len(a.engine.links.sessions[b.id].barriers) == 16
    b.subscribe("x")
    world.run(0.1)
    assert not b.engine.subscriber.unconfirmed(b.engine.subscriber.version)
