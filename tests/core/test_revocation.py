"""A member is revoked: cut off wherever the list comes, and nothing that it holds works any more."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.codec import encode_direct
from mesh.core.identity import SigningKey, issue_revocations, verify_revocations
from mesh.core.messages import RevocationsMessage
from mesh.core.tags import subscription_body
from mesh.core.types import CredentialRejected
from tests.core.virtual import VirtualNode, World


def mesh_of(*names: str, seed: int = 1, loss: float = 0.0) -> tuple[World, list[VirtualNode]]:
    world = World(seed, loss=loss)
    nodes = [world.add(name) for name in names]
    world.meet()
    return world, nodes


def adopt(node: VirtualNode, given: tuple[bytes, bytes]) -> bool:
    adopted = node.engine.standing.adopt(*given, node.world.clock)
    node.carry_out()
    return adopted


def version(node: VirtualNode) -> int:
    return node.engine.standing.version


def test_everybody_cuts_the_member_off_and_the_others_go_on() -> None:
    world, (a, b, c, mallory) = mesh_of("a", "b", "c", "mallory")
    for node in (b, c, mallory):
        node.subscribe("news/**")
    b.subscribe("**")
    world.run(1.0)
    assert a.publish("news/1", "before")
    world.run(0.5)
    assert len(mallory.deliveries) == 1
    adopt(a, world.revoke(2, "mallory"))
    world.run(3.0)
    for node in (a, b, c):
        assert version(node) == 2
        assert node.peers == {"a", "b", "c"} - {node.name}
        assert node.adopted == [world.revoke(2, "mallory")]
        assert ("left", "mallory") in node.events
        assert not node.tags.get("mallory")
        assert mallory.id not in node.allowed
    assert version(mallory) == 0
    assert mallory.adopted == []  # nobody gave it the new secret
    for sender, topic in ((a, "news/2"), (b, "news/3"), (c, "news/4")):
        assert sender.publish(topic, "after")
    world.run(0.5)
    assert [len(b.received(topic)) for topic in ("news/2", "news/4")] == [1, 1]
    assert [len(c.received(topic)) for topic in ("news/2", "news/3")] == [1, 1]
    assert len(mallory.deliveries) == 1
    assert mallory.engine.rejected["unknown_key"] == 0  # not even a frame that it cannot open


def test_it_is_not_let_in_again_and_hears_why() -> None:
    world, (a, mallory) = mesh_of("a", "mallory")
    adopt(a, world.revoke(2, "mallory"))
    world.run(30.0)
    assert a.peers == mallory.peers == set()
    assert any("revoked" in incident.detail for incident in mallory.incidents)
    assert a.engine.rejected["revoked"] > 0
    again = world.add("again", member=mallory.member)  # another process of the same member
    again.engine.hint(a.id, [a.addresses[0].intro], world.clock)
    again.carry_out()
    world.run(10.0)
    assert again.peers == a.peers == set()


def test_what_the_member_knows_opens_nothing() -> None:
    """It may still be on the wire, have an old connection, or know what peers told it before."""
    world, (a, b, mallory) = mesh_of("a", "b", "mallory")
    b.subscribe("secret/**")
    mallory.subscribe("secret/**")
    world.run(1.0)
    session = mallory.engine.links.sessions[b.id]
    assert session.token is not None
    epoch, stolen = session.token
    frames: list[tuple[bytes, bytes]] = []
    adopt(a, world.revoke(2, "mallory"))
    world.run(2.0)
    before = a.engine.rejected["bad_subscription"]
    tag = mallory.engine.broadcast.tag("secret/1")
    forged = subscription_body(b.id, epoch, stolen, tag)  # in b's name, with the token that b had given it
    assert a.engine.subscription_received(b"\1" + forged).tag is None
    own = subscription_body(mallory.id, 1, mallory.engine.broadcast.token, tag)
    assert a.engine.subscription_received(b"\1" + own).tag is None
    assert a.engine.rejected["bad_subscription"] == before + 2
    a.broadcast = lambda tag, frame: frames.append((tag, frame))  # type: ignore[method-assign]
    assert a.publish("secret/1", "plans")
    ((sent_tag, frame),) = frames
    assert sent_tag != tag
    assert mallory.engine.broadcast_received(sent_tag, frame, world.clock) is None
    assert b.engine.broadcast_received(sent_tag, frame, world.clock) is not None
    # The other way: what it seals with the key that they knew is nobody's any more.
    sealed = mallory.engine.broadcast.seal(tag, b"lies", world.clock)
    assert a.engine.broadcast_received(tag, sealed, world.clock) is None
    # … and over its old link: nothing of it is let through.
    mallory_says = encode_direct(RevocationsMessage(*_list_of(world, 3, "a")))
    a.engine.direct_received(mallory.id, mallory_says, world.clock)
    assert version(a) == 2


def _list_of(world: World, number: int, *names: str) -> tuple[bytes, int, bytes]:
    encoded, secret = world.revoke(number, *names)
    return encoded, number, secret


def test_who_could_not_be_reached_learns_it_at_first_contact() -> None:
    world, (a, b, _) = mesh_of("a", "b", "mallory")
    world.cuts |= {("a", "b"), ("b", "a")}
    adopt(a, world.revoke(2, "mallory"))
    world.run(60.0)
    assert b.peers == {"mallory"}  # the documented price of a partition
    world.cuts.clear()
    a.engine.hint(b.id, [b.addresses[0].intro], world.clock)
    a.carry_out()
    world.run(10.0)
    assert version(b) == 2
    assert b.peers == {"a"}
    assert a.peers == {"b"}


def test_a_token_that_others_know_is_gone_from_every_connection() -> None:
    """Mallory subscribed in b's name, with the token that b gave it. The token's end ends that connection."""
    world, (a, b, mallory) = mesh_of("a", "b", "mallory")
    session = mallory.engine.links.sessions[b.id]
    assert session.token is not None
    tag = a.engine.broadcast.tag("secret/1")
    body = subscription_body(b.id, *session.token, tag)
    a.heard_subscription("mallory", b"\1" + body)
    assert a.tags["mallory"][tag] == 1
    b.subscribe("news")
    adopt(a, world.revoke(2, "mallory"))
    world.run(3.0)
    assert "mallory" not in a.tags
    assert any(a.tags["b"].values())


def test_versions_never_go_back_and_who_is_behind_is_told() -> None:
    world, (a, b) = mesh_of("a", "b")
    two, five = world.revoke(2), world.revoke(5)
    assert adopt(a, five)
    assert not adopt(a, two)
    assert not adopt(a, five)
    world.run(1.0)
    assert version(b) == 5
    b.engine.direct_received(a.id, encode_direct(RevocationsMessage(two[0], 2, two[1])), world.clock)
    assert version(b) == 5
    assert b.engine.rejected.total() == 0
    late = world.add("late")
    late.engine.hint(b.id, [b.addresses[0].intro], world.clock)
    late.carry_out()
    world.run(2.0)
    assert version(late) == 5
    late.subscribe("x")
    world.run(1.0)
    assert b.publish("x", 1)
    world.run(0.5)
    assert late.received("x")


def test_only_the_cas_word_counts() -> None:
    world, (a, b) = mesh_of("a", "b")
    encoded, secret = world.revoke(2, "b")
    other = SigningKey.from_seed(bytes(32))
    listed = verify_revocations(encoded, world.ca.public)
    theirs = issue_revocations(other, listed.__class__(listed.mesh, 9, listed.members, 9, listed.secret_hash))
    for bad, key in ((encoded, bytes(32)), (theirs, secret), (encoded[:-1] + b"\0", secret), (b"", secret)):
        with pytest.raises(CredentialRejected):
            a.engine.standing.adopt(bad, key, world.clock)
        a.engine.direct_received(b.id, encode_direct(RevocationsMessage(bad, 2, key)), world.clock)
    assert version(a) == 0
    assert a.peers == {"b"}
    assert a.engine.rejected["bad_certificate"] + a.engine.rejected["wrong_mesh"] == 4


def test_nothing_published_after_the_change_has_settled_is_lost() -> None:
    world, (a, b, c, mallory) = mesh_of("a", "b", "c", "mallory")
    for node in (b, c):
        node.subscribe("n/*")
    world.run(1.0)
    adopt(c, world.revoke(2, "mallory"))
    world.run(2.0)
    for number in range(20):
        a.publish("n/1", number)
        world.run(0.01)
    world.run(0.5)
    assert len(b.received("n/1")) == len(c.received("n/1")) == 20
    assert mallory.peers == set()


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(2, 6)), min_size=1, max_size=6),
    st.integers(0, 1000),
)
def test_in_whatever_order_lists_come_everybody_ends_with_the_newest(
    steps: list[tuple[str, int]], seed: int
) -> None:
    world, nodes = mesh_of(*"abcd", seed=seed)
    for node in nodes:
        node.subscribe("**")
    for name, number in steps:
        adopt(world.nodes[name], world.revoke(number))
        world.run(world.random.random() * 0.01)
    world.run(5.0)
    newest = max(number for _, number in steps)
    assert {version(node) for node in nodes} == {newest}
    for node in nodes:
        assert node.publish(f"from/{node.name}", 1)
    world.run(0.5)
    for node in nodes:
        assert {d.batch.topic[-1] for d in node.deliveries} == set("abcd") - {node.name}
