"""Dialling when something is wrong: never without pause, never in vain for ever, and newcomers first."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from mesh.config import Config, Limits
from mesh.core.effects import SendDirect
from mesh.core.identity import sign_record
from mesh.core.messages import GossipMessage
from mesh.core.types import Address
from tests.core.virtual import VirtualNode, World


def counted(node: VirtualNode, *kinds: str) -> Counter[str]:
    """How many effects of these kinds are carried out from now on."""
    counts: Counter[str] = Counter()

    def count(kind: str) -> None:
        carry_out = getattr(node, f"_{kind}")

        def counting(effect: Any) -> None:
            counts[kind] += 1
            carry_out(effect)

        setattr(node, f"_{kind}", counting)

    for kind in kinds:
        count(kind)
    return counts


def test_a_peer_that_welcomes_us_and_says_nothing_is_redialled_with_pauses() -> None:
    world = World(1)
    a, b = world.add("a"), world.add("b")
    world.meet()
    counts = counted(a, "Dial", "OpenLink")
    b._SendDirect = lambda effect: None  # type: ignore[method-assign]
    world.run(20.0)
    assert 0 < counts["Dial"] < 30
    assert 0 < counts["OpenLink"] < 30


def test_members_for_whom_there_is_no_room_are_dialled_with_pauses() -> None:
    world = World(8)
    a = world.add("a", Config.lan(limits=Limits(peers=2)))
    others = [world.add(f"n{n}") for n in range(4)]
    counts = counted(a, "Dial")
    for node in others:
        a.engine.hint(node.id, [address.intro for address in node.addresses], world.clock)
    a.carry_out()
    world.run(20.0)
    assert len(a.peers) == 2
    assert counts["Dial"] < 40


def test_one_address_that_leads_to_somebody_else_does_not_make_a_node_forgotten() -> None:
    world = World(9)
    a, _, away = world.add("a"), world.add("b"), world.add("away")
    world.cuts |= {("a", "away"), ("away", "a")}
    # As on Docker's bridge: one of its addresses is another node's here.
    a.engine.hint(away.id, ["tcp://b:1", "tcp://away:1"], world.clock)
    a.carry_out()
    world.run(3.0)
    assert a.peers == {"b"}
    world.cuts.clear()
    world.run(12.0)
    assert a.peers == {"b", "away"}


def test_a_node_at_whose_every_address_others_live_is_forgotten() -> None:
    world = World(9)
    a, b = world.add("a"), world.add("b")
    gone = world.add("gone")
    gone.kill()
    counts = counted(a, "Dial")
    a.engine.hint(gone.id, ["tcp://b:1"], world.clock)
    a.carry_out()
    world.run(30.0)
    assert a.peers == {"b"}
    assert counts["Dial"] == 1
    assert b.peers == {"a"}


def test_targets_that_never_answer_make_room_for_newcomers() -> None:
    world = World(5)
    a = world.add("a", Config.lan(limits=Limits(candidates=16)))
    liar, b = world.add("liar"), world.add("b")
    a.engine.hint(liar.id, ["tcp://liar:1"], world.clock)
    a.carry_out()
    world.run(1.0)
    nodes = []
    for n in range(32):
        addresses = (Address(f"tcp://q{n}:1", f"tcp://q{n}:2", f"tcp://q{n}:3"),)
        record = replace(liar.engine.record, link_key=world.random.randbytes(32), addresses=addresses)
        nodes.append([liar.engine._introducer.certificate, sign_record(liar.member, record)])
    liar._SendDirect(SendDirect(a.id, GossipMessage(nodes)))
    world.run(10.0)
    a.engine.hint(b.id, ["tcp://b:1"], world.clock)
    a.carry_out()
    world.run(2.0)
    assert "b" in a.peers


def test_the_refusals_that_are_remembered_are_bounded() -> None:
    world = World(3)
    a = world.add("a")
    introductions = a.engine.introductions
    for n in range(400):
        introductions._note_refusal(f"tcp://h{n}:1", "refused")
    assert len(introductions.refused_by) == 256
    assert "tcp://h399:1" in introductions.refused_by


def test_a_newcomer_does_not_wait_behind_many_that_never_answer() -> None:
    world = World(6)
    a, b = world.add("a"), world.add("b")
    for n in range(200):
        a.engine.hint(None, [f"tcp://nobody{n}:1"], world.clock)
    a.carry_out()
    world.run(120.0)
    a.engine.hint(b.id, ["tcp://b:1"], world.clock)
    a.carry_out()
    world.run(a.engine.config.dial_timeout + 1.0)
    assert a.peers == {"b"}


def move(world: World, node: VirtualNode, name: str) -> None:
    """The node's machine gets another address; what it had connected falls silent."""
    world.nodes[name] = world.nodes.pop(node.name)
    for other in world.nodes.values():
        other.tags.pop(node.name, None)
    node.name = name
    node.links.clear()
    node.upstream.clear()
    node.addresses = (Address(f"tcp://{name}:1", f"tcp://{name}:2", f"tcp://{name}:3"),)
    node.engine.set_addresses(node.addresses, world.clock)
    node.carry_out()


def test_a_peer_that_moves_is_back_at_once_and_nobody_noticed() -> None:
    for seed in range(4):  # either may have the lower id
        world = World(seed)
        a, b = world.add("a"), world.add("b")
        a.subscribe("from/b")
        b.subscribe("from/a")
        world.meet()
        events = len(a.events), len(b.events)
        move(world, b, "b2")
        world.run(0.5)
        assert a.publish("from/a", b"one")
        assert b.publish("from/b", b"two")
        world.run(0.1)
        assert b.received("from/a") == [b"one"]
        assert a.received("from/b") == [b"two"]
        assert (len(a.events), len(b.events)) == events
        assert a.links[b.id] == "tcp://b2:2"


def test_losing_one_of_two_addresses_does_not_disturb_the_links_that_live() -> None:
    world = World(2)
    a, b = world.add("a"), world.add("b")
    b.engine.set_addresses((*b.addresses, Address("tcp://wifi:1", "tcp://wifi:2", "tcp://wifi:3")), 0.0)
    world.meet()
    counts = counted(a, "OpenLink", "Dial") + counted(b, "OpenLink", "Dial")
    b.engine.set_addresses(b.addresses, world.clock)
    b.carry_out()
    world.run(5.0)
    assert a.peers == {"b"}
    assert not counts


def test_a_new_address_ends_every_backoff() -> None:
    world = World(3)
    a, _ = world.add("a"), world.add("b")
    world.cuts |= {("a", "b"), ("b", "a")}
    world.meet()
    world.run(60.0)
    world.cuts.clear()
    a.engine.set_addresses(
        (*a.addresses, Address("tcp://wifi:1", "tcp://wifi:2", "tcp://wifi:3")), world.clock
    )
    a.carry_out()
    world.run(0.5)
    assert a.peers == {"b"}


def test_a_node_that_restarts_at_its_address_buries_the_earlier_one() -> None:
    world = World(4)
    a, b = world.add("a"), world.add("b")
    world.meet()
    b.kill()
    world.run(0.5)  # nobody has noticed
    again = VirtualNode(world, "b", b.engine.config, member=b.member)
    world.nodes["b"] = again
    a.engine.hint(again.id, ["tcp://b:1"], world.clock)
    a.carry_out()
    world.run(0.5)
    assert [what for what, _ in a.events] == ["joined", "left", "joined"]
    assert list(a.engine.links.sessions) == [again.id]
