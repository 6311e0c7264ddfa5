"""Certificates on live links: renewed by who holds the CA key, and ended when they end."""

from __future__ import annotations

import pytest

from mesh.core.codec import encode_direct
from mesh.core.identity import CLOCK_TOLERANCE, Certificate, issue_certificate, read_certificate
from mesh.core.messages import CertificateMessage, CertificateWantedMessage
from mesh.core.types import CredentialRejected
from tests.core.virtual import START, VirtualNode, World

MINUTE, HOUR = 60, 3600


def certificate_of(world: World, node: VirtualNode, serial: int, *, days: float = 365) -> bytes:
    now = int(START + world.clock)
    return issue_certificate(
        world.ca,
        public_key=node.member.public,
        name=node.name,
        not_before=now - 10,
        expires=now + int(days * 86400),
        serial=serial,
    )


def authority(world: World) -> list[str]:
    """The node "ca" certifies whoever asks. The names of those who did."""
    asked: list[str] = []

    def certify(old: Certificate) -> bytes:
        asked.append(old.name)
        return certificate_of(world, world.nodes[old.name], old.serial + 1)

    world.nodes["ca"].engine.standing.renewal.certifier = certify
    return asked


def test_a_certificate_is_renewed_while_everything_runs() -> None:
    world = World(1)
    world.add("ca")
    world.add("b")
    world.add("short", expires=int(START) + 20 * MINUTE)
    asked = authority(world)
    world.meet()
    world.run(10 * MINUTE)
    assert asked == []  # it is not in its last third yet
    world.run(10 * MINUTE)
    assert asked == ["short"]
    [renewed] = world.nodes["short"].renewed
    assert read_certificate(renewed, world.ca.public).serial == 2
    world.run(20 * MINUTE)
    for node in world.nodes.values():
        assert node.peers == {"ca", "b", "short"} - {node.name}
        assert ("left", "short") not in node.events
    # … and who meets it later sees the new one alone.
    late = world.add("late")
    short = world.nodes["short"]
    late.engine.hint(short.id, [short.addresses[0].intro], world.clock)
    late.carry_out()
    world.run(2.0)
    assert "short" in late.peers


def test_a_link_does_not_outlive_the_certificate() -> None:
    world = World(1)
    a, b = world.add("a"), world.add("short", expires=int(START) + HOUR)
    world.meet()
    b.subscribe("x")
    world.run(HOUR)
    assert a.peers == {"short"}  # the clocks may differ
    world.run(CLOCK_TOLERANCE + 30)
    assert a.peers == set()
    assert b.id not in a.allowed
    assert any(incident.detail == "short: its certificate has expired" for incident in a.incidents)
    assert any(incident.kind == "certificate expired" for incident in b.incidents)
    assert not a.publish("x", 1)
    world.run(60)
    assert a.peers == b.peers == set()
    assert a.engine.rejected["expired"] > 0


def test_a_wall_clock_that_is_set_counts() -> None:
    world = World(1)
    a, b = world.add("a"), world.add("b")
    world.meet()
    assert a.peers == {"b"}
    a.engine.handle_timer(world.clock + 10, START + 400 * 86400)
    a.carry_out()
    assert a.peers == set()
    assert b.id not in a.allowed


def test_only_the_holder_of_the_ca_key_answers_and_not_often() -> None:
    world = World(1)
    a, b = world.add("ca"), world.add("b", expires=int(START) + HOUR)
    world.meet()
    world.run(0.9 * HOUR)  # b has asked several times
    wanted = encode_direct(CertificateWantedMessage(1))
    asked = authority(world)
    for _ in range(10):
        a.engine.direct_received(b.id, wanted, world.clock)
    assert asked == ["b"]
    b.engine.direct_received(a.id, wanted, world.clock)
    assert not b.engine.rejected


@pytest.mark.parametrize("whose", ["third", "other mesh", "revoked", "garbage"])
def test_a_certificate_of_somebody_else_is_none(whose: str) -> None:
    world = World(1)
    a, b, third = world.add("a"), world.add("b"), world.add("third")
    world.meet()
    other = World(2)
    encoded = {
        "third": certificate_of(world, third, 9),
        "other mesh": certificate_of(other, b, 9),
        "revoked": certificate_of(world, b, 9),
        "garbage": b"x",
    }[whose]
    if whose == "revoked":
        a.engine._introducer.revocations = _listing(world, "b")
    before = a.engine.links.sessions[b.id].encoded
    a.engine.direct_received(b.id, encode_direct(CertificateMessage(encoded)), world.clock)
    assert a.engine.links.sessions[b.id].encoded == before
    assert a.engine.rejected.total() == 1


def _listing(world: World, name: str) -> object:
    from mesh.core.identity import verify_revocations

    return verify_revocations(world.revoke(2, name)[0], world.ca.public)


def test_an_older_certificate_changes_nothing() -> None:
    world = World(1)
    a = world.add("a")
    assert a.engine.standing.renewal.adopt(certificate_of(world, a, 5), START)
    assert not a.engine.standing.renewal.adopt(certificate_of(world, a, 4), START)
    with pytest.raises(CredentialRejected):
        a.engine.standing.renewal.adopt(b"", START)
