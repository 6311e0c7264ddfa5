"""The table of bad frames (wire.md, section 9): each row counted by its reason, and what it costs its sender.

What libzmq cuts by itself (garbage, frames beyond a socket's size) is in ``tests/transport/test_zmq_hostile.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from mesh.config import Config, Limits
from mesh.core.codec import encode_direct, encode_intro
from mesh.core.messages import (
    GoodbyeMessage,
    HelloMessage,
    KeyMessage,
    PingMessage,
    RecordMessage,
    RefuseMessage,
)
from mesh.core.tags import subscription_body
from tests.core.virtual import VirtualNode, World


class Scene(NamedTuple):
    """``b`` sends; ``a`` judges. ``last`` is a frame of ``b`` that was taken."""

    world: World
    a: VirtualNode
    b: VirtualNode
    tag: bytes
    last: bytes

    def direct(self, frame: bytes) -> None:
        self.a.direct(self.b, frame)
        self.a.carry_out()

    def broadcast(self, frame: bytes, tag: bytes | None = None) -> None:
        self.a.engine.broadcast_received(self.tag if tag is None else tag, frame, self.world.clock)
        self.a.carry_out()

    def sealed(self, plaintext: bytes) -> bytes:
        return self.b.engine.broadcast.seal(self.tag, plaintext, self.world.clock)


@pytest.fixture
def scene() -> Scene:
    world = World(31)
    config = Config.lan(limits=Limits(subscriptions_per_peer=8))
    a, b = world.add("a", config), world.add("b", config)
    world.meet()
    a.subscribe("x")
    world.run(1.0)
    frames: list[tuple[bytes, bytes]] = []
    taken = a.engine.broadcast_received

    def noted(tag: bytes, frame: bytes, clock: float) -> object:
        frames.append((tag, frame))
        return taken(tag, frame, clock)

    a.engine.broadcast_received = noted  # type: ignore[method-assign,assignment]
    b.publish("x", 1)
    world.run(0.1)
    a.engine.broadcast_received = taken  # type: ignore[method-assign]
    assert a.received("x")
    tag, frame = frames[0]
    a.incidents.clear()
    return Scene(world, a, b, tag, frame)


def header(frame: bytes, at: int, value: bytes) -> bytes:
    return frame[:at] + value + frame[at + len(value) :]


def far_ahead(scene: Scene) -> None:
    scene.broadcast(header(scene.last, 14, (1000).to_bytes(4, "big")))


def long_ago(scene: Scene) -> None:
    """A key whose announced epoch is 5: what claims to be of epoch 0 cannot be opened any more."""
    scene.direct(encode_direct(KeyMessage([b"another!", "", 1, 5, bytes(32), 0])))
    scene.broadcast(header(header(scene.last, 6, b"another!"), 14, bytes(4)))


def unknown(scene: Scene) -> None:
    scene.broadcast(header(scene.last, 6, b"nobody's"))
    scene.world.run(1.5)  # it is held for a moment, and the key is asked for


def not_first(scene: Scene) -> None:
    """A counter below what the window still holds."""
    for number in range(1100):
        scene.b.publish("x", number)
    scene.world.run(0.5)
    scene.broadcast(scene.last)


def forged(scene: Scene) -> None:
    frame = scene.sealed(b"")
    scene.broadcast(frame[:-1] + bytes([frame[-1] ^ 1]))


def foreign_record(scene: Scene) -> None:
    other = scene.world.add("other")
    scene.direct(encode_direct(RecordMessage(other.engine._introducer.record)))


def subscribes(scene: Scene) -> None:
    body = subscription_body(scene.b.id, 1, bytes(32), b"D")
    scene.a.engine.subscription_received(b"\1" + body)


def subscribes_without_end(scene: Scene) -> None:
    broadcast = scene.b.engine.broadcast
    for number in range(100):
        scene.a.engine.subscription_received(b"\1" + broadcast.body(b"D" + bytes([number] * 8)))


def intro(message: Callable[[Scene], HelloMessage]) -> Callable[[Scene], None]:
    def act(scene: Scene) -> None:
        scene.a.engine.stranger_received(9, encode_intro(message(scene)), "10.0.0.9", scene.world.clock)

    return act


def of(**papers: object) -> Callable[[Scene], HelloMessage]:
    """The Hello of somebody with such papers."""
    return lambda scene: scene.world.add("stranger", **papers).engine._introducer.hello()  # type: ignore[arg-type]


def revoked(scene: Scene) -> HelloMessage:
    stranger = scene.world.add("stranger")
    listed, secret = scene.world.revoke(2, "stranger")
    scene.a.engine.standing.adopt(listed, secret, scene.world.clock)
    return stranger.engine._introducer.hello()


ROWS: dict[str, tuple[Callable[[Scene], None], str]] = {
    "bad magic": (lambda s: s.broadcast(b"XX" + s.last[2:]), "bad_magic"),
    "bad version": (lambda s: s.broadcast(header(s.last, 2, b"\2")), "bad_version"),
    "too short": (lambda s: s.broadcast(s.last[:20]), "bad_length"),
    "a long control message": (
        lambda s: s.direct(encode_direct(GoodbyeMessage(False, "")) + bytes(70_000)),
        "bad_message",
    ),
    "a longer frame than any": (lambda s: s.direct(bytes((1 << 20) + 8192)), "bad_length"),
    "no CBOR": (lambda s: s.direct(b"\xff"), "bad_message"),
    "no such field": (lambda s: s.direct(encode_direct(PingMessage("x", 1, b""))), "bad_message"),  # type: ignore[arg-type]
    "CBOR that is none, sealed": (lambda s: s.broadcast(s.sealed(b"\xff")), "bad_message"),
    "unknown key": (unknown, "unknown_key"),
    "old epoch": (long_ago, "old_epoch"),
    "far ahead": (far_ahead, "future_epoch"),
    "duplicate": (lambda s: s.broadcast(s.last), "duplicate"),
    "below the window": (not_first, "too_old"),
    "tag fails": (forged, "bad_tag"),
    "another's record": (foreign_record, "bad_record"),
    "a subscription with a guessed MAC": (subscribes, "bad_subscription"),
    "subscriptions without end": (subscribes_without_end, "too_many"),
    "a stranger who is no dialler": (
        lambda s: s.a.engine.stranger_received(
            9, encode_intro(RefuseMessage("x", "y", [1, 1])), "h", s.world.clock
        ),
        "unexpected",
    ),
    "another version": (
        intro(lambda s: s.b.engine._introducer.hello()._replace(versions=[7, 9])),
        "version_mismatch",
    ),
    "expired": (intro(of(expires=1_800_000_000 - 5000, not_before=1_700_000_000)), "expired"),
    "not yet valid": (intro(of(not_before=1_800_000_000 + 5000)), "not_yet_valid"),
    "revoked": (intro(revoked), "revoked"),
}


@pytest.mark.parametrize("row", ROWS)
def test_it_is_counted_by_its_reason(scene: Scene, row: str) -> None:
    act, reason = ROWS[row]
    before = scene.a.engine.rejected[reason]
    act(scene)
    assert scene.a.engine.rejected[reason] > before, scene.a.engine.rejected
    assert (
        "b" in scene.a.peers or reason == "bad_record"
    )  # once is no reason to part, but for another's record


@pytest.mark.parametrize(
    ("row", "times", "kind"),
    [
        ("no CBOR", 10, "peer cut off"),
        ("CBOR that is none, sealed", 10, "peer cut off"),
        ("another's record", 1, "peer cut off"),
        ("tag fails", 8, "forged frames"),
        ("expired", 1, "stranger refused"),
        ("not yet valid", 1, "stranger refused"),
        ("another version", 1, "stranger refused"),
    ],
)
def test_often_enough_it_is_an_incident(scene: Scene, row: str, times: int, kind: str) -> None:
    for _ in range(times):
        assert kind not in {incident.kind for incident in scene.a.incidents}
        ROWS[row][0](scene)
        scene.a.carry_out() if row not in ("expired", "not yet valid", "another version") else effects(scene)
    assert kind in {incident.kind for incident in scene.a.incidents}
    assert ("b" in scene.a.peers) is (kind != "peer cut off")


def effects(scene: Scene) -> None:
    """Only the incidents: nobody is there to be answered."""
    scene.a.incidents += [each for each in scene.a.engine.take_effects() if type(each).__name__ == "Incident"]  # type: ignore[misc]


def test_a_peers_words_are_no_lines_of_the_log(scene: Scene) -> None:
    text = "bye\nWARNING mesh.node: all is well\x1b[2J"
    scene.direct(encode_direct(GoodbyeMessage(False, text)))
    [incident] = [each for each in scene.a.incidents if each.kind == "peer ended the link"]
    assert incident.detail.isprintable()
    assert "all is well" in incident.detail
    assert all(reason.isprintable() for _, reason in scene.a.events)
