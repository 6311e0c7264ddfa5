"""Attaching: what comes over a link before its first word, and who is kept out for a while."""

from __future__ import annotations

from mesh.core.codec import encode_intro
from mesh.core.effects import SendDirect
from mesh.core.messages import RequestMessage
from mesh.core.strikes import BACKOFF
from mesh.core.types import NodeId
from tests.core.virtual import World


def two() -> World:
    world = World(1)
    world.add("a")
    world.add("b")
    world.meet()
    return world


def test_what_an_old_link_still_brings_is_held_against_nobody() -> None:
    world = two()
    a, b = world.nodes.values()
    # The network held b's frames back for so long that a gave it up, and met it again.
    a.engine.links.end(a.engine.links.sessions[b.id], "silent for too long", world.clock)
    a.carry_out()
    a.engine.stranger_received(77, encode_intro(b.engine._introducer.hello()), "b", world.clock)
    answers = ("SendIntro", "CloseIntro")
    for effect in a.engine.take_effects():
        if type(effect).__name__ not in answers:
            getattr(a, "_" + type(effect).__name__)(effect)
    for number in range(30):
        b._SendDirect(SendDirect(a.id, RequestMessage(number, "t", 0, b"", None, 1000, 1, False)))
    world.run(0.01)
    assert a.engine.rejected["unexpected"] == 30
    assert not a.messages
    assert not a.engine.links.banned
    world.run(10.0)
    assert a.peers == {"b"} and b.peers == {"a"}


def test_who_was_kept_out_is_forgotten_when_the_time_is_over() -> None:
    links = two().nodes["a"].engine.links
    for n in range(1000):
        links.ban(NodeId(n.to_bytes(16, "big")), float(n), BACKOFF)
    assert len(links.banned) <= BACKOFF + 1
