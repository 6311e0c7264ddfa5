"""Engines against each other on a virtual network: meeting, talking, losing, leaving."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mesh.config import Config
from mesh.core.codec import encode_batch, encode_intro
from mesh.core.identity import SigningKey
from mesh.core.messages import Batch, HelloMessage, RequestMessage
from mesh.core.router import RESPONDER, Member
from mesh.core.strikes import BACKOFF
from tests.core.virtual import START, World


def two(**options: float) -> World:
    world = World(1, **options)  # type: ignore[arg-type]
    world.add("a")
    world.add("b")
    world.meet()
    return world


def test_two_nodes_meet_and_a_message_passes() -> None:
    world = two()
    a, b = world.nodes.values()
    assert a.peers == {"b"}
    assert b.peers == {"a"}
    assert a.events == [("joined", "b")]
    b.subscribe("home/*/temperature")
    world.run(0.1)
    assert not a.engine.subscriber.unconfirmed(0)
    assert a.publish("home/kitchen/temperature", b"21")
    assert a.publish("home/kitchen/temperature", b"22", b"23")
    world.run(0.1)
    assert b.received("home/kitchen/temperature") == [b"21", b"22", b"23"]
    assert not a.incidents and not b.incidents
    assert not a.engine.rejected and not b.engine.rejected


def test_nobody_interested_nothing_sent() -> None:
    world = two()
    a, b = world.nodes.values()
    assert not a.publish("x", b"1")
    entry = b.subscribe("x")
    world.run(0.1)
    assert a.publish("x", b"2")
    world.run(0.1)
    b.engine.remove_interest(entry)
    b.carry_out()
    world.run(0.1)
    assert not a.publish("x", b"3")
    assert b.received("x") == [b"2"]


def test_a_subscription_is_proven_live_on_every_peer() -> None:
    world = World(2)
    for name in "abcde":
        world.add(name)
    world.meet()
    a = world.nodes["a"]
    entry = a.subscribe("x/**")
    version = a.engine.subscriber.version
    assert len(a.engine.subscriber.unconfirmed(version)) == 4
    world.run(0.05)
    assert a.engine.subscriber.unconfirmed(version) == set()
    for other in "bcde":
        node = world.nodes[other]
        assert node.engine.audience.is_live(Member(a.id, entry.number))
        assert node.publish("x/1", other.encode())
    world.run(0.05)
    assert sorted(a.received("x/1")) == [b"b", b"c", b"d", b"e"]


def test_one_seed_is_enough_for_a_full_mesh() -> None:
    world = World(3)
    for n in range(8):
        world.add(f"n{n}")
    hub = world.nodes["n0"]
    for node in world.nodes.values():
        if node is not hub:
            node.engine.hint(None, ["tcp://n0:1"], world.clock, permanent=True)
            node.carry_out()
    world.run(3.0)
    for name, node in world.nodes.items():
        assert node.peers == set(world.nodes) - {name}


def test_a_node_that_dials_itself_is_not_its_own_peer() -> None:
    world = World(4)
    a = world.add("a")
    a.engine.hint(None, ["tcp://a:1"], 0.0, permanent=True)
    a.carry_out()
    world.run(5.0)
    assert a.peers == set()


@pytest.mark.parametrize("seed", range(8))
def test_a_lossy_network_only_delays_the_meeting(seed: int) -> None:
    world = World(seed, loss=0.3)
    for name in "abc":
        world.add(name)
    world.meet()
    world.run(60.0)
    world.loss = 0.0
    world.run(20.0)
    assert world.nodes["a"].peers == {"b", "c"}
    world.nodes["a"].subscribe("x")
    world.run(2.0)
    world.nodes["b"].publish("x", b"1")
    world.run(0.1)
    assert world.nodes["a"].received("x") == [b"1"]


def test_a_gap_is_counted_and_a_repetition_is_not_delivered_again() -> None:
    world = two()
    a, b = world.nodes.values()
    b.subscribe("x")
    world.run(0.1)
    a.publish("x", b"0")
    world.run(0.1)
    world.cuts.add(("a", "b"))
    a.publish("x", b"1", b"2", b"3")
    world.run(0.1)
    world.cuts.clear()
    a.publish("x", b"4")
    world.run(0.1)
    assert b.received("x") == [b"0", b"4"]
    assert b.lost == 3


def test_what_the_broadcast_plane_brings_for_a_group_is_not_taken_for_a_delivery() -> None:
    world = two()
    a, b = world.nodes.values()
    b.subscribe("jobs/x", group="workers")
    b.subscribe("jobs/*/y")  # whose prefix lets jobs/x through
    world.run(0.1)
    tag = a.engine.broadcast.tag("jobs/x")
    batch = encode_batch(Batch("jobs/x", 0, 0, 0, [b"1"], None))
    a.broadcast(tag, a.engine.broadcast.seal(tag, batch, world.clock))
    world.run(0.1)
    assert not b.deliveries  # it comes to one of the group, over the direct plane


def test_a_replayed_frame_is_rejected_and_counted() -> None:
    world = two()
    a, b = world.nodes.values()
    b.subscribe("x")
    world.run(0.1)
    frames: list[tuple[bytes, bytes]] = []
    hear = b.heard_broadcast
    b.heard_broadcast = lambda tag, frame: (frames.append((tag, frame)), hear(tag, frame))[1]  # type: ignore[method-assign]
    a.publish("x", b"1")
    world.run(0.1)
    for tag, frame in frames:
        hear(tag, frame)
    assert b.engine.rejected["duplicate"] == 1
    assert b.received("x") == [b"1"]


def test_silence_is_suspected_within_3_s_and_gone_within_12() -> None:
    world = two()
    a, b = world.nodes.values()
    world.run(5.0)
    began = world.clock
    b.kill()
    world.run(3.0)
    assert a.events[-1] == ("suspected", "b")
    world.run(9.0)
    assert a.events[-1] == ("left", "b")
    assert world.clock - began <= 12.01
    assert a.peers == set()


def test_goodbye_is_final_once_the_last_publications_had_time_to_arrive() -> None:
    world = two()
    a, b = world.nodes.values()
    b.stop()
    world.run(0.1)
    assert a.events[-1] == ("joined", "b")
    assert b.id in a.engine.links.sessions
    world.run(0.3)
    assert a.events[-1] == ("left", "b")
    a.engine.hint(b.id, ["tcp://b:1"], world.clock)
    assert b.id in a.engine.links.departed


def test_who_subscribed_knows_when_all_has_arrived() -> None:
    """The goodbye may come first, or the last frame; when both are there the peer has left, without a wait."""
    for slow in ("direct", "broadcast"):
        world = two()
        a, b = world.nodes.values()
        a.subscribe("x/**")
        world.run(1.0)
        world.delays[slow] = 1.5
        b.publish("x/y", b"last words")
        b.stop()
        world.run(1.4)
        assert a.events[-1] == ("joined", "b")
        world.run(0.2)
        assert a.received("x/y") == [b"last words"]
        assert a.events[-1] == ("left", "b")
        assert not a.engine.rejected


def test_a_last_frame_that_never_comes_delays_nobody_for_long() -> None:
    world = two()
    a, b = world.nodes.values()
    a.subscribe("x/**")
    world.run(1.0)
    world.delays["broadcast"] = 1e9
    b.stop()
    world.run(1.9)
    assert a.events[-1] == ("joined", "b")
    world.run(0.3)
    assert a.events[-1] == ("left", "b")


def test_a_pause_of_5_s_is_suspected_and_recovers() -> None:
    world = two()
    a, b = world.nodes.values()
    b.subscribe("x")
    world.run(0.5)
    b.pause()
    world.run(5.0)
    assert a.events[-1] == ("suspected", "b")
    b.resume()
    world.run(2.0)
    assert a.events[-1] == ("recovered", "b")
    assert "left" not in [change for change, _ in a.events + b.events]
    a.publish("x", b"after")
    world.run(0.1)
    assert b.received("x") == [b"after"]


def test_a_pause_longer_than_patience_ends_in_a_new_meeting_by_itself() -> None:
    world = two()
    a, b = world.nodes.values()
    b.subscribe("x")
    a.subscribe("y")
    world.run(0.5)
    b.pause()
    world.run(30.0)
    assert a.peers == set()
    b.resume()
    world.run(20.0)
    assert a.peers == {"b"}
    assert b.peers == {"a"}
    a.publish("x", b"1")
    b.publish("y", b"2")
    world.run(0.1)
    assert b.received("x") == [b"1"]
    assert a.received("y") == [b"2"]


def test_a_partition_heals_by_itself_and_loss_is_known() -> None:
    world = two()
    a, b = world.nodes.values()
    b.subscribe("x")
    world.run(0.5)
    a.publish("x", b"0")
    world.run(0.1)
    world.cuts |= {("a", "b"), ("b", "a")}
    a.publish("x", b"1", b"2")
    world.run(30.0)
    assert a.peers == set() and b.peers == set()
    a.publish("x", b"3")
    world.cuts.clear()
    world.run(20.0)
    assert a.peers == {"b"} and b.peers == {"a"}
    a.publish("x", b"4")
    world.run(0.1)
    assert b.received("x") == [b"0", b"4"]
    assert b.lost == 3


@pytest.mark.parametrize("direction", [("a", "b"), ("b", "a")])
def test_one_way_cut_heals_by_itself(direction: tuple[str, str]) -> None:
    world = two()
    world.cuts.add(direction)
    world.run(30.0)
    world.cuts.clear()
    world.run(20.0)
    assert world.nodes["a"].peers == {"b"}
    assert world.nodes["b"].peers == {"a"}


def test_a_restarted_process_is_a_new_peer_of_the_same_member() -> None:
    world = two()
    a, b = world.nodes.values()
    b.kill()
    del world.nodes["b"]
    again = world.add("b")
    again.engine.hint(a.id, ["tcp://a:1"], world.clock)
    again.carry_out()
    world.run(1.0)
    assert again.peers == {"a"}
    world.run(15.0)
    assert a.peers == {"b"}
    assert [s.node for s in a.engine.links.sessions.values()] == [again.id]


def test_a_changed_address_is_told_and_dialled() -> None:
    world = two()
    a, b = world.nodes.values()
    record = b.engine.record
    b.engine.set_addresses(
        (*b.addresses, type(b.addresses[0])("tcp://b2:1", "tcp://b2:2", "tcp://b2:3")), world.clock
    )
    b.carry_out()
    world.run(0.1)
    known = a.engine.links.sessions[b.id].introduced.record
    assert known.version > record.version
    assert len(known.addresses) == 2


def test_an_interest_lost_on_the_way_is_found_by_its_digest() -> None:
    world = two()
    a, b = world.nodes.values()
    world.cuts.add(("b", "a"))
    b.subscribe("x")
    world.run(0.01)
    world.cuts.clear()
    assert not a.engine.router.route("x").broadcast
    world.run(5.0)
    assert [m.peer for m in a.engine.router.route("x").broadcast] == [b.id]
    a.publish("x", b"1")
    world.run(0.1)
    assert b.received("x") == [b"1"]


def test_requests_pass_up_and_responders_are_known() -> None:
    world = two()
    a, b = world.nodes.values()
    b.engine.add_interest(RESPONDER, "time", world.clock)
    b.carry_out()
    world.run(0.1)
    assert [m.peer for m in a.engine.router.responders("time")] == [b.id]
    message = RequestMessage(1, "time", 0, b"", None, 1000, 1, False)
    from mesh.core.effects import SendDirect

    a._SendDirect(SendDirect(b.id, message))
    world.run(0.1)
    assert b.messages == [("a", message)]


# -- hostile ------------------------------------------------------------------


def test_a_stranger_of_another_mesh_is_refused_in_words() -> None:
    world = World(5)
    a = world.add("a")
    outsider = world.add("x", ca=SigningKey.from_seed(b"\7" * 32))
    outsider.engine.hint(None, ["tcp://a:1"], 0.0)
    outsider.carry_out()
    world.run(2.0)
    assert a.peers == set() and outsider.peers == set()
    assert a.engine.rejected["wrong_mesh"] > 0
    assert "mesh" in outsider.engine.introductions.refused_by["tcp://a:1"]


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ({"not_before": int(START) - 5000, "expires": int(START) - 1000}, "expired"),
        ({"not_before": int(START) + 5000}, "not_yet_valid"),
    ],
)
def test_a_certificate_out_of_its_time_is_refused(times: dict[str, int], reason: str) -> None:
    world = World(6)
    a = world.add("a")
    late = world.add("late", **times)
    late.engine.hint(None, ["tcp://a:1"], 0.0)
    late.carry_out()
    world.run(2.0)
    assert a.peers == set()
    assert a.engine.rejected[reason] > 0


def test_versions_apart_are_refused_in_words() -> None:
    world = World(7)
    a = world.add("a")
    b = world.add("b")
    hello = HelloMessage([7, 9], *b.engine._introducer.hello()[1:])
    a.engine.stranger_received(1, encode_intro(hello), "b", 0.0)
    send, _ = [e for e in a.engine.take_effects() if type(e).__name__ in ("SendIntro", "CloseIntro")]
    assert b"version" in send.frame  # type: ignore[union-attr]
    assert a.engine.rejected["version_mismatch"] == 1


def test_garbage_over_the_link_of_a_peer_ends_it_after_ten_and_keeps_it_out() -> None:
    world = two()
    a, b = world.nodes.values()
    for n in range(9):
        a.engine.direct_received(b.id, bytes([n]) * 50, world.clock)
    assert a.peers == {"b"}
    a.engine.direct_received(b.id, b"", world.clock)
    a.carry_out()
    assert a.peers == set()
    assert a.engine.rejected["bad_message"] == 10
    world.run(BACKOFF / 2)
    assert a.peers == set()
    world.run(BACKOFF)
    assert a.peers == {"b"}


def test_bad_tags_are_an_alert_and_accuse_nobody() -> None:
    """They name a key, which anybody can: another member, or whoever sits between."""
    world = two()
    a, b = world.nodes.values()
    a.subscribe("x")
    world.run(0.1)
    tag = b.engine.broadcast.tag("x")
    frame = b.engine.broadcast.seal(tag, b"anything", world.clock)
    for n in range(8):
        assert not a.incidents
        broken = frame[:-1] + bytes([frame[-1] ^ (n + 1)])
        a.engine.broadcast_received(tag, broken, world.clock)
        a.carry_out()
    assert a.engine.rejected["bad_tag"] == 8
    assert [incident.kind for incident in a.incidents] == ["forged frames"]
    for _ in range(30):
        a.engine.broadcast_received(tag, b"garbage" * 10, world.clock)
    assert a.peers == {"b"}
    assert not a.engine.links.sessions[b.id].strikes.counts


def test_the_subscription_of_a_stranger_or_a_forger_is_refused() -> None:
    world = two()
    a, b = world.nodes.values()
    b.subscribe("x")
    body = b.bodies[0]
    assert a.engine.subscription_received(b"\1" + body).tag is not None
    for n in range(len(body)):
        forged = body[:n] + bytes([body[n] ^ 1]) + body[n + 1 :]
        assert a.engine.subscription_received(b"\1" + forged).tag is None
    assert a.engine.subscription_received(b"\1").tag is None
    assert a.engine.subscription_received(b"").tag is None
    assert a.engine.rejected["bad_subscription"] == len(body) + 2


def test_the_number_of_peers_is_bounded() -> None:
    config = Config.lan(limits=replace(Config.lan().limits, peers=3))
    world = World(8)
    world.add("a", config)
    for n in range(6):
        world.add(f"n{n}")
    world.meet()
    world.run(5.0)  # those who were left out dial in their turn
    assert len(world.nodes["a"].peers) == 3
    assert world.nodes["a"].engine.rejected["too_many"] > 0


def test_the_same_seed_gives_the_same_events() -> None:
    def history() -> list[list[tuple[str, str]]]:
        world = World(9, loss=0.2)
        for name in "abcd":
            world.add(name)
        world.meet()
        world.run(30.0)
        return [node.events for node in world.nodes.values()]

    assert history() == history()
