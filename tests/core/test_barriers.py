"""Barriers that have no easy way: interests lost, publishers that do not answer, tags of a forger."""

from __future__ import annotations

from typing import Any

from mesh.core.effects import SendDirect, Subscribe
from mesh.core.messages import InterestsMessage, PositionsMessage
from mesh.core.tags import barrier_tag, subscription_body
from tests.core.virtual import World


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
