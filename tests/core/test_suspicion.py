"""Who is silent, and whose fault it is: asked through others, replaced by a later process, or we were away ourselves."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.core.effects import SendDirect
from mesh.core.membership import VOUCHED, LivenessState
from mesh.core.messages import PingMessage, PingRequestMessage, VouchMessage
from mesh.core.types import Address
from tests.core.virtual import START, VirtualNode, World


def three(seed: int = 1) -> tuple[World, VirtualNode, VirtualNode, VirtualNode]:
    world = World(seed)
    nodes = world.add("a"), world.add("b"), world.add("c")
    world.meet()
    assert all(len(node.peers) == 2 for node in nodes)
    for node in nodes:
        node.events.clear()
    return (world, *nodes)


def state(node: VirtualNode, of: VirtualNode) -> LivenessState:
    return node.engine.links.sessions[of.id].liveness.state


def cut(world: World, one: VirtualNode, other: VirtualNode) -> None:
    world.cuts |= {(one.name, other.name), (other.name, one.name)}


def sent(node: VirtualNode, kind: type[Any]) -> list[Any]:
    """What it sends of this kind from now on."""
    seen: list[Any] = []
    carry_out = node._SendDirect

    def note(effect: SendDirect) -> None:
        if isinstance(effect.message, kind):
            seen.append(effect.message)
        carry_out(effect)

    node._SendDirect = note  # type: ignore[method-assign]
    return seen


def test_the_dead_are_suspected_and_gone_in_time_though_others_are_asked() -> None:
    world, a, b, c = three()
    asked = sent(a, PingRequestMessage)
    c.kill()
    world.run(3.0)
    assert a.events == b.events == [("suspected", "c")]
    world.run(9.0)
    assert a.events == b.events == [("suspected", "c"), ("left", "c")]
    assert {each.node for each in asked} == {c.id}


def test_who_is_cut_off_from_us_alone_stays_until_the_way_is_mended() -> None:
    world, a, b, c = three()
    cut(world, a, c)
    world.run(20.0)
    assert a.events == [("suspected", "c")]
    assert c.events == [("suspected", "a")]
    assert b.events == []
    world.cuts.clear()
    world.run(6.0)
    assert a.events == [("suspected", "c"), ("recovered", "c")]
    assert c.events == [("suspected", "a"), ("recovered", "a")]


def test_but_not_for_ever() -> None:
    world, a, b, c = three()
    cut(world, a, c)
    world.run(2.5 + VOUCHED * 8.0 + 1.0)
    assert a.events == [("suspected", "c"), ("left", "c")]
    assert a.peers == {"b"}
    world.cuts.clear()
    world.run(8.0)
    assert a.peers == {"b", "c"}
    assert b.events == []


def test_a_vouch_that_answers_no_question_of_ours_is_worth_nothing() -> None:
    world, a, b, c = three()
    b._SendDirect, send = (lambda effect: None), b._SendDirect  # type: ignore[method-assign]
    c.kill()
    world.run(2.9)
    assert state(a, c) is LivenessState.SUSPECT
    session = a.engine.links.sessions[c.id]
    for token in (0, session.inquiry + 1, session.inquiry - 1):
        send(SendDirect(a.id, VouchMessage(token, c.id)))
    send(SendDirect(a.id, VouchMessage(session.inquiry, bytes(16))))
    world.run(9.0)
    assert ("left", "c") in a.events


def test_whatever_is_asked_of_a_helper_the_suspect_is_pinged_ten_times_a_second() -> None:
    world, a, b, c = three()
    pings = sent(b, PingMessage)
    vouched = sent(b, VouchMessage)
    for number in range(300):
        a._SendDirect(SendDirect(b.id, PingRequestMessage(number + 1, c.id)))
        world.run(0.003)
    world.run(0.5)
    assert len(pings) <= 12
    assert vouched and vouched[-1] == VouchMessage(300, c.id)
    assert len(b.engine.links.sessions[c.id].askers) == 0


def test_nobody_is_asked_about_strangers_or_about_himself() -> None:
    world, a, b, _ = three()
    pings = sent(b, PingMessage)
    for node in (bytes(16), a.id, b.id):
        a._SendDirect(SendDirect(b.id, PingRequestMessage(1, node)))
    world.run(0.1)
    assert pings == []
    assert not b.engine.rejected


# -- a later process in its place ---------------------------------------------------------


def at_other_ports(world: World, old: VirtualNode) -> VirtualNode:
    """A later process of the same member and name on the same host."""
    world.run(0.01)
    new = VirtualNode(world, old.name, old.engine.config, member=old.member)
    new.addresses = (Address(*(f"tcp://{old.name}:{port}" for port in (11, 12, 13))),)
    for each in new.addresses[0]:
        world.places[each] = new
    world.nodes[f"{old.name} again"] = new
    new.engine.set_addresses(new.addresses, world.clock)
    for other in list(world.nodes.values()):
        if other is not new and other.running:
            other.engine.hint(new.id, [new.addresses[0].intro], world.clock)
            other.carry_out()
    return new


def test_a_process_that_was_replaced_is_gone_soon() -> None:
    world, a, _, c = three()
    c.kill()
    again = at_other_ports(world, c)
    world.run(3.0)
    assert again.id in a.engine.links.sessions
    assert c.id not in a.engine.links.sessions
    assert ("left", "c") in a.events
    world.run(20.0)
    assert again.id in a.engine.links.sessions


def test_two_processes_of_one_name_on_one_host_may_both_live() -> None:
    world, a, _, c = three()
    twin = at_other_ports(world, c)
    world.run(15.0)
    assert {c.id, twin.id} <= set(a.engine.links.sessions)
    assert not [event for event, _ in a.events if event == "left"]


# -- when it was us -----------------------------------------------------------------------


def test_a_node_that_was_starved_does_not_accuse() -> None:
    """Its timers come late again and again, and so do the answers that it could not read."""
    world, a, b, _ = three()
    world.delay = 1.2  # what is said then is later than a probe has time when all is well
    for _ in range(3):
        a.engine.links.health.late(0.5, world.clock)
    world.run(4.0)
    assert a.events == []
    assert ("suspected", "a") in b.events


@pytest.mark.parametrize("away", [5.0, 60.0])
def test_who_was_away_is_back_at_once(away: float) -> None:
    world, a, b, c = three()
    a.pause()
    world.run(away)
    a.resume()
    world.run(1.5)
    assert a.peers == {"b", "c"} and state(a, b) is LivenessState.ALIVE
    assert "a" in b.peers and "a" in c.peers
    assert not [event for event in a.events if event[0] in ("suspected", "left")]


def test_a_machine_that_was_suspended_asks_everybody() -> None:
    """The monotonic clock stood still meanwhile; the wall clock did not."""
    world, a, b, c = three()
    pings = sent(a, PingMessage)
    a.engine.handle_timer(world.clock, START + world.clock + 2.0)
    a.carry_out()
    assert pings == []
    a.engine.handle_timer(world.clock, START + world.clock + 3600.0)
    a.carry_out()
    assert len(pings) >= 2
    assert all(a.engine.links.sessions[node.id].doubted for node in (b, c))
    world.run(0.1)
    assert not any(a.engine.links.sessions[node.id].doubted for node in (b, c))
