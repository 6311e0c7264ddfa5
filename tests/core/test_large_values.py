"""Values larger than a frame between engines: each once and whole, or counted as one lost message."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.config import Config, Limits
from mesh.core.chunks import STALLED
from mesh.core.codec import decode_batch, encode_batch, encode_chunk, encode_direct
from mesh.core.effects import LossCause
from mesh.core.envelope import CHUNK, KEPT_CHUNK
from mesh.core.messages import (
    Batch,
    CancelMessage,
    Chunk,
    DirectedMessage,
    ErrorMessage,
    PartMessage,
    PingMessage,
    ReplyMessage,
    RequestMessage,
)
from mesh.core.parts import TOO_LARGE, place_of
from tests.core.virtual import VirtualNode, World

SMALL = Config.lan(
    limits=replace(Limits(), frame_bytes=64 << 10, value_bytes=400 << 10), piece_bytes=16 << 10
)
LARGE = 200 << 10


def pair(
    *, seed: int = 1, reliable: bool = False, theirs: Config = SMALL, history: int = 0
) -> tuple[World, VirtualNode, VirtualNode]:
    world = World(seed)
    a, b = world.add("a", SMALL), world.add("b", theirs)
    world.meet()
    if reliable:
        a.keep("x", 4 << 20)
    b.subscribe("x", history=history)
    world.run(0.5)
    return world, a, b


def value(number: int, size: int = LARGE) -> bytes:
    return number.to_bytes(4, "big") + bytes([number]) * (size - 4)


def numbers(node: VirtualNode) -> list[int]:
    for each in node.received("x"):
        assert each[4:] == each[:4][3:] * (len(each) - 4)
    return [int.from_bytes(each[:4], "big") for each in node.received("x")]


def ranges(node: VirtualNode) -> list[tuple[int, int, LossCause]]:
    return [(each.first, each.end, each.cause) for each in node.losses]


def lose_piece(a: VirtualNode, which: int) -> None:
    """Of the frames of the next value, that one does not arrive."""
    send, count = a.broadcast, iter(range(1000))

    def broadcast(tag: bytes, frame: bytes) -> None:
        if next(count) != which:
            send(tag, frame)

    a.broadcast = broadcast  # type: ignore[method-assign]


@pytest.mark.parametrize("reliable", [False, True])
def test_in_order_with_small_ones(reliable: bool) -> None:
    world, a, b = pair(reliable=reliable)
    for number, size in enumerate((10, LARGE, 10, 60 << 10, 400 << 10, 10)):
        a.publish("x", value(number, size))
    world.run(1.0)
    assert numbers(b) == list(range(6))
    assert (b.lost, b.engine.rejected, b.repaired) == (0, {}, 0)


@pytest.mark.parametrize("which", [0, 3, 12])
def test_a_value_that_is_lost_in_part_is_one_lost_message(which: int) -> None:
    world, a, b = pair()
    a.publish("x", value(0, 10))
    world.run(0.1)
    lose_piece(a, which)
    a.publish("x", value(1))
    world.run(0.1)
    del a.broadcast
    a.publish("x", value(2, 10))
    world.run(1.0)
    assert numbers(b) == [0, 2]
    assert b.lost == 1
    assert set(b.engine.rejected) == {"incomplete"}
    assert b.engine.accounts.chunks.held(a.id) == 0


def test_a_loss_of_the_last_value_in_part_is_known_with_the_tail() -> None:
    world, a, b = pair()
    lose_piece(a, 12)
    a.publish("x", value(0))
    del a.broadcast
    world.run(1.0)
    assert ranges(b) == [(0, 1, LossCause.NETWORK)]


def test_what_is_kept_is_repaired_as_a_whole() -> None:
    world, a, b = pair(reliable=True)
    a.publish("x", value(0, 10))
    lose_piece(a, 5)
    a.publish("x", value(1))
    del a.broadcast
    a.publish("x", value(2, 10))
    a.publish("x", value(3))
    world.run(1.0)
    assert numbers(b) == [0, 1, 2, 3]
    assert b.lost == 0
    assert b.repaired >= 1


def test_who_comes_later_gets_what_is_kept() -> None:
    world = World(1)
    a, b = world.add("a", SMALL), world.add("b", SMALL)
    world.meet()
    a.keep("x", 1 << 20, history=2)
    for number in range(3):
        a.publish("x", value(number))
    entry = b.subscribe("x", history=2)
    world.run(1.0)
    assert b.given[entry.number] == [("x", 1), ("x", 2)]
    assert b.lost == 0


@settings(max_examples=15)
@given(st.integers(0, 1 << 16), st.booleans(), st.floats(0.0, 0.2))
def test_everything_that_was_published_is_delivered_or_counted(
    seed: int, reliable: bool, loss: float
) -> None:
    world, a, b = pair(seed=seed, reliable=reliable)
    world.loss = loss
    for number in range(12):
        a.publish("x", value(number, (10, LARGE, 90 << 10)[(number + seed) % 3]))
        world.run(0.02)
    world.loss = 0.0
    world.run(30.0)  # until the last question was repeated
    received = numbers(b)
    assert received == sorted(set(received))
    assert len(received) + b.lost == 12
    if reliable:
        assert b.lost == 0
    assert b.engine.accounts.chunks.held(a.id) == 0


def test_a_value_over_the_receivers_limit_is_lost_and_named() -> None:
    world, a, b = pair(theirs=replace(SMALL, limits=replace(SMALL.limits, value_bytes=100 << 10)))
    for number, size in enumerate((10, LARGE, 90 << 10)):
        a.publish("x", value(number, size))
    world.run(1.0)
    assert numbers(b) == [0, 2]
    assert ranges(b) == [(1, 2, LossCause.TOO_LARGE)]
    assert set(b.engine.rejected) == {"too_large"}


def test_a_kept_value_over_the_receivers_limit_holds_nothing_up() -> None:
    theirs = replace(SMALL, limits=replace(SMALL.limits, value_bytes=100 << 10))
    world, a, b = pair(reliable=True, theirs=theirs)
    for number, size in enumerate((10, LARGE, 90 << 10, 10)):
        a.publish("x", value(number, size))
    world.run(2.0)
    assert numbers(b) == [0, 2, 3]
    assert ranges(b) == [(1, 2, LossCause.NOT_KEPT)]
    world.loss = 1.0  # also if nothing of it was seen
    a.publish("x", value(4))
    world.loss = 0.0
    a.publish("x", value(5, 10))
    world.run(3.0)
    assert numbers(b) == [0, 2, 3, 5]


def test_a_subscription_in_the_middle_of_a_value_counts_no_loss() -> None:
    world, a, b = pair()
    whole = encode_batch(Batch("x", 0, 0, 0, [value(0)], None))
    frames = a.frames_of("x", 0, whole, kept=False)
    line = a.engine.outgoing.line("x")
    line.next, line.busy = 1, True
    tag = a.engine.broadcast.tag("x")

    def send(part: slice) -> None:
        for plaintext, kind in frames[part]:
            a.broadcast(tag, a.engine.broadcast.seal(tag, plaintext, world.clock, kind))

    send(slice(0, 6))
    late = world.add("late", SMALL)
    late.engine.hint(a.id, ["tcp://a:1"], world.clock)
    late.subscribe("x")
    b.subscribe("x")  # its echo passes the pieces that are still to come
    world.run(2.0)
    send(slice(6, None))
    line.busy = False
    world.run(1.0)
    assert numbers(b) == [0]
    assert b.losses == []
    assert late.received("x") == []
    assert late.losses == []
    a.publish("x", value(1))
    world.run(1.0)
    assert (numbers(b), numbers(late)) == ([0, 1], [1])


@pytest.mark.parametrize("kind", [CHUNK, KEPT_CHUNK])
def test_pieces_that_a_member_forges_are_counted_and_cost_it_the_link(kind: int) -> None:
    world, a, b = pair()
    tag = a.engine.broadcast.tag("x")
    other = encode_batch(Batch("x", 9, 0, 0, [value(0, 70 << 10)], None))
    two = encode_batch(Batch("x", 0, 0, 0, [value(0, 60 << 10), value(1, 60 << 10)], None))

    def forge(plaintext: bytes) -> None:
        a.broadcast(tag, a.engine.broadcast.seal(tag, plaintext, world.clock, kind))

    forge(b"")
    forge(b"\xff" * 100)
    for whole in (other, two, bytes(80 << 10)):
        forge(encode_chunk(Chunk("x", 0, len(whole), 0), whole[: 40 << 10]))
        forge(encode_chunk(Chunk("x", 0, len(whole), 40 << 10), whole[40 << 10 :]))
    forge(encode_chunk(Chunk("x", 0, 1 << 40, 0), bytes(16 << 10)))
    forge(encode_chunk(Chunk("x", 0, 100 << 10, 0), bytes(10)))
    world.run(0.01)
    assert b.engine.rejected == {"bad_message": 6, "too_large": 1}
    assert b.received("x") == []
    for _ in range(4):
        forge(b"")
    world.run(1.0)
    assert "a" not in b.peers  # ten of them end the link


def test_a_value_that_stalls_is_given_up() -> None:
    world, a, b = pair()
    tag = a.engine.broadcast.tag("x")
    piece = encode_chunk(Chunk("x", 0, LARGE, 0), bytes(16 << 10))
    a.broadcast(tag, a.engine.broadcast.seal(tag, piece, world.clock, CHUNK))
    world.run(STALLED - 1)
    assert b.engine.accounts.chunks.held(a.id) == 16 << 10
    assert b.losses == []
    world.run(2.0)
    assert b.engine.accounts.chunks.held(a.id) == 0
    assert ranges(b) == [(0, 1, LossCause.NETWORK)]


def test_who_leaves_in_the_middle_leaves_nothing_behind() -> None:
    world, a, b = pair()
    lose_piece(a, 12)
    a.publish("x", value(0))
    world.run(0.01)
    a.stop()
    world.run(5.0)
    assert ranges(b) == [(0, 1, LossCause.NETWORK)]
    assert b.engine.accounts.chunks.held(a.id) == 0


# -- the direct plane ----------------------------------------------------------------


MESSAGES = [
    DirectedMessage("", encode_batch(Batch("a/b", 0, 0, 0, [bytes(LARGE)], None))),
    RequestMessage(7, "jobs", 0, bytes(LARGE), None, 1000, 1, False),
    ReplyMessage(8, 0, bytes(LARGE), {"a": "b"}, False, 1),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_messages_in_parts(message: DirectedMessage | RequestMessage | ReplyMessage) -> None:
    _, a, b = pair()
    for frame in a._parts_of(message, encode_direct(message)):
        assert len(frame) < SMALL.limits.frame_bytes
        b.direct(a, frame)
    assert b.messages == [("a", message)]
    assert b.engine.rejected == {}


def test_parts_of_several_messages_at_once() -> None:
    _, a, b = pair()
    lines = [iter(a._parts_of(message, encode_direct(message))) for message in MESSAGES]
    while frames := [frame for frame in (next(line, None) for line in lines) if frame is not None]:
        for frame in frames:
            b.direct(a, frame)
    assert [message for _, message in b.messages] == MESSAGES


def test_what_does_not_come_in_parts() -> None:
    _, a, b = pair()
    ping = encode_direct(PingMessage(1, 0, bytes(16)))
    nested = encode_direct(PartMessage(2, 33, 7, 10, 0, bytes(10)))
    wrong = encode_direct(MESSAGES[1])
    for number, (code, about, whole) in enumerate(
        [(18, 0, ping), (43, 0, nested), (33, 8, wrong[: 10 << 10]), (34, 7, encode_direct(CancelMessage(7)))]
    ):
        b.direct(a, encode_direct(PartMessage(number, code, about, len(whole), 0, whole)))
    assert b.messages == []
    assert b.engine.rejected == {"bad_message": 4}


def test_a_request_over_the_limit_is_answered_and_a_reply_over_it_ends_the_call() -> None:
    world, a, b = pair()
    b.direct(a, encode_direct(PartMessage(1, 33, 7, 1 << 30, 0, bytes(16 << 10))))
    b.direct(a, encode_direct(PartMessage(1, 33, 7, 1 << 30, 16 << 10, bytes(16 << 10))))
    b.carry_out()
    world.run(0.1)
    ((_, error),) = a.messages
    assert isinstance(error, ErrorMessage)
    assert (error.number, error.type_name) == (7, TOO_LARGE)
    b.direct(a, encode_direct(PartMessage(2, 34, 9, 1 << 30, 0, bytes(16 << 10))))
    b.carry_out()
    ((_, error),) = b.messages
    assert (error.number, error.type_name) == (9, TOO_LARGE)
    world.run(0.1)
    assert a.messages[1:] == [("b", CancelMessage(9))]
    assert b.engine.rejected == {"too_large": 3}


def test_places() -> None:
    for topic in ("a", "a/" + "b" * 30, "ü" * 100, "x" * 256):
        batch = encode_batch(Batch(topic, 5, 1, 0, [b"value"], None))
        assert decode_batch(batch).topic == topic
        place = place_of(DirectedMessage("g", batch))
        assert place is not None
        assert place.key == topic.encode()
    assert place_of(CancelMessage(7)) == place_of(MESSAGES[1])
    assert place_of(PingMessage(1, 0, bytes(16))) is None
