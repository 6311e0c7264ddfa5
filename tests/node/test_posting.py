"""Posts: order, backpressure, the end."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from mesh.core.codec import Encoded
from mesh.errors import MessageTooLarge, NodeClosed
from mesh.node.posting import Post, Posting
from mesh.node.queues import Queues


class Publishing:
    """As much of ``mesh.node.publisher.Publishing`` as posts need: one stream, whose pipe can be full."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.streams: dict[str, Any] = {}
        self.refusal: Exception | None = None
        self.airlock = SimpleNamespace(full=False, wait_room=self._wait_room)
        self.queues = Queues(self.airlock, SimpleNamespace(full=False))  # type: ignore[arg-type]
        self.pacing = SimpleNamespace(shut=lambda stream: False)
        self.room = trio.Event()

    async def _wait_room(self) -> None:
        await self.room.wait()
        self.airlock.full = False

    def stream(self, topic: str) -> Any:
        return self.streams.setdefault(topic, SimpleNamespace(add=self._add, line=None))

    def _add(self, value: Any, headers: Any) -> None:
        if value == b"large":
            raise MessageTooLarge(5, 4)
        self.sent.append(value)

    def post(self, value: bytes, size: int = 1) -> Post:
        return Post(self, "a", value, None, size)  # type: ignore[arg-type]


def inline(posting: list[Posting]) -> Any:
    def soon(function: Any) -> bool:
        posting.append(function)
        return True

    return soon


async def test_posts_are_carried_out_in_order_with_one_wake_up() -> None:
    wakes: list[Any] = []
    posting, publishing = Posting(inline(wakes)), Publishing()
    for number in range(10):
        posting.append(publishing.post(bytes([number])))
    assert len(wakes) == 1
    wakes.pop()()
    assert publishing.sent == [bytes([number]) for number in range(10)]
    posting.append(publishing.post(b"again"))
    assert len(wakes) == 1


async def test_posts_wait_for_a_full_pipe_and_callers_for_posts(autojump_clock: Any) -> None:
    posting, publishing = Posting(lambda function: True), Publishing()
    publishing.airlock.full = True
    count = 0
    while not posting.full:
        post = publishing.post(b"%d" % count, size=1 << 10)
        assert post.congested
        posting.append(post)
        count += 1
    posting.drain()
    assert publishing.sent == []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(posting.run)
        for wait in (posting.wait_room, posting.drained):
            with trio.move_on_after(1) as scope:
                await wait()
            assert scope.cancelled_caught
        publishing.room.set()
        with trio.fail_after(1):
            await posting.wait_room()
            await posting.drained()
        nursery.cancel_scope.cancel()
    assert publishing.sent == [b"%d" % number for number in range(count)]
    assert not posting.full


async def test_many_bytes_are_too_much_too() -> None:
    posting, publishing = Posting(lambda function: True), Publishing()
    posting.append(publishing.post(b"", size=8 << 20))
    assert posting.full
    posting.drain()
    assert not posting.full


async def test_what_cannot_be_sent_is_said(caplog: pytest.LogCaptureFixture) -> None:
    posting, publishing = Posting(lambda function: True), Publishing()
    posting.append(publishing.post(b"large"))
    posting.append(publishing.post(b"small"))
    with caplog.at_level(logging.WARNING):
        posting.drain()
        publishing.refusal = NodeClosed()
        posting.append(publishing.post(b"late"))
        posting.drain()
    assert publishing.sent == [b"small"]
    assert [record.message for record in caplog.records] == [
        "a message on 'a' was not published: message of 5 bytes is over the limit of 4 bytes",
        "the node closed before it sent 1 published messages",
    ]
    gone = Posting(lambda function: False)
    with pytest.raises(NodeClosed):
        gone.append(publishing.post(b""))


def test_an_encoded_value_is_not_encoded_again() -> None:
    from mesh.core.codec import encode_value

    assert encode_value(Encoded(1, b"\x01")) == (1, b"\x01")
