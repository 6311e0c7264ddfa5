"""Rules: who may do what, and who holds which key."""

from __future__ import annotations

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.config import Config, Rule
from mesh.core.codec import encode_direct
from mesh.core.identity import Certificate
from mesh.core.messages import KeyWantedMessage
from mesh.core.rules import Rules, overlap
from mesh.core.tags import scoped_tag, subscription_body
from mesh.core.topic import matches
from mesh.core.types import MeshId
from tests.core.virtual import VirtualNode, World

PAYROLL = Rule(("publish", "subscribe"), ("payroll/**",), roles=("hr",), name="allow[1]")


def member(name: str, *roles: str) -> Certificate:
    return Certificate(MeshId(bytes(16)), name.encode().ljust(32), name, roles, 0, 1, 1)


def test_the_first_pattern_that_takes_the_topic_decides() -> None:
    ann, bob, hr = member("ann"), member("bob"), member("carla", "hr")
    rules = Rules(
        [
            Rule(("publish",), ("home/door",), members=("ann", bob.member.hex()), name="allow[1]"),
            Rule(("publish",), ("home/**",), roles=("hr",), name="allow[2]"),
            Rule(("publish",), ("home/door",), roles=("hr",), name="allow[3]"),
            Rule(("publish", "request"), ("lobby",), name="allow[4]"),
        ]
    )
    table = {
        "home/door": (True, True, True),
        "home/window": (False, False, True),
        "lobby": (True, True, True),
        "elsewhere": (True, True, True),
    }
    for topic, expected in table.items():
        assert tuple(rules.denial("publish", topic, who) is None for who in (ann, bob, hr)) == expected
    assert rules.denial("subscribe", "home/door", bob) is None  # there is no rule for that
    assert rules.denial("publish", "home/window", ann) == "allow[2]: 'home/**' is for role hr"
    assert rules.denial_of_pattern("publish", "home/**", ann) is not None
    assert rules.denial_of_pattern("publish", "**", ann) is None  # it takes more than what is closed
    assert rules.denial_of_pattern("publish", "*/window", ann) is None


LEVELS = ["a", "b"]
patterns = st.lists(st.sampled_from([*LEVELS, "*", "**"]), min_size=1, max_size=4).map("/".join)
TOPICS = ["/".join(levels) for n in range(1, 7) for levels in product(LEVELS, repeat=n)]


@settings(max_examples=200, deadline=None)
@given(patterns, patterns)
def test_overlap_against_all_topics(one: str, other: str) -> None:
    assert overlap(one, other) == any(matches(one, topic) and matches(other, topic) for topic in TOPICS)
    assert overlap(one, other) == overlap(other, one)


def world_of(*rules: Rule) -> tuple[World, VirtualNode, VirtualNode, VirtualNode]:
    """A publisher that goes by the rules, one of hr, and one who is not."""
    world = World(5)
    config = Config.lan(rules=rules)
    a = world.add("a", config, roles=("hr",))
    hr = world.add("carla", roles=("hr",))
    bob = world.add("bob")
    world.meet()
    return world, a, hr, bob


def test_who_may_not_read_gets_no_frame_and_no_key() -> None:
    world, a, hr, bob = world_of(PAYROLL)
    for node in (hr, bob):
        node.subscribe("**")
        node.subscribe("payroll/*")
    world.run(2.0)
    assert a.publish("payroll/june", "much")
    assert a.publish("lobby", "hello")
    world.run(1.0)
    assert [d.batch.topic for d in hr.deliveries] == ["payroll/june", "lobby"]
    assert [d.batch.topic for d in bob.deliveries] == ["lobby"]
    assert bob.engine.rejected.total() == 0  # not even a frame that it cannot open
    assert [scope for _, scope in hr.engine.broadcast.keyring.scoped()] == ["payroll/**"]
    assert bob.engine.broadcast.keyring.scoped() == []
    assert ("bob", "subscribe", "payroll/*") in a.engine.access.denials
    assert any(incident.kind == "not authorized" for incident in a.incidents)
    # A member that has heard the key's id, and asks for the frames or for the key, gets neither.
    [(key_id, _)] = hr.engine.broadcast.keyring.scoped()
    for tag in (scoped_tag(key_id), scoped_tag(key_id) + b"more", b"S"):
        body = subscription_body(bob.id, 1, bob.engine.broadcast.token, tag)
        assert a.engine.subscription_received(b"\1" + body).tag is None
        body = subscription_body(hr.id, 1, hr.engine.broadcast.token, tag)
        assert a.engine.subscription_received(b"\1" + body).tag == tag
    a.engine.take_effects()
    a.engine.direct_received(bob.id, encode_direct(KeyWantedMessage(key_id)), world.clock)
    assert a.engine.take_effects() == []


def test_what_a_rule_forbids_to_publish_arrives_nowhere() -> None:
    world, a, hr, bob = world_of(PAYROLL)
    a.subscribe("payroll/**")
    world.run(1.0)
    assert hr.publish("payroll/june", "right")
    assert bob.publish("payroll/june", "wrong")  # it does not know the rule
    world.run(1.0)
    assert len(a.deliveries) == 1
    assert a.engine.rejected["not_authorized"] == 1
    assert "bob" in a.peers  # it is told, and not cut off: rules are each node's own


def test_routes_leave_out_who_may_not() -> None:
    serve = Rule(("serve",), ("time",), members=("carla",), name="allow[2]")
    world, a, hr, bob = world_of(PAYROLL, serve)
    hr.subscribe("payroll/x", group="g")
    bob.subscribe("payroll/x", group="g")
    for node in (hr, bob):
        node.engine.add_interest("r", "time", world.clock)
        node.carry_out()
    world.run(1.0)
    assert [m.peer for m in a.engine.router.route("payroll/x").groups["g"]] == [hr.id]
    assert [m.peer for m in a.engine.router.responders("time")] == [hr.id]


def test_a_late_reader_and_a_new_key_after_a_removal() -> None:
    world, a, hr, bob = world_of(PAYROLL)
    hr.subscribe("payroll/**")
    late = world.add("late", roles=("hr",))
    late.subscribe("payroll/**")
    late.engine.hint(a.id, [a.addresses[0].intro], world.clock)
    late.carry_out()
    world.run(2.0)
    assert a.publish("payroll/1", 1)
    world.run(0.5)
    before = hr.engine.broadcast.keyring.scoped()
    a.engine.standing.adopt(*world.revoke(2, "bob"), world.clock)
    a.carry_out()
    world.run(3.0)
    assert a.publish("payroll/1", 2)
    world.run(0.5)
    for node in (hr, late):
        assert len(node.received("payroll/1")) == 2
    assert set(hr.engine.broadcast.keyring.scoped()) > set(before)
    assert bob.peers == set()
