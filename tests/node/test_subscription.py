"""A subscription by itself: its buffer against a naive one, its iterators, its end."""

from __future__ import annotations

import gc
import warnings
from collections import deque
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

import mesh
from mesh.core.messages import CBOR, RAW, Batch, InterestEntry
from mesh.errors import NodeClosed, Overflowed
from mesh.node.message import Origin, Peer
from mesh.node.subscription import Overflow, Subscription

SENDER = Peer("00" * 16, "sender", "member", (), "alive", None)


class Feeder:
    """A subscription, entered, and batches for it with running numbers."""

    def __init__(
        self, *, buffer: int = 1000, overflow: Overflow = "drop_oldest", most_bytes: int = 1 << 20
    ) -> None:
        self.left = 0
        self.sequence = 0

        async def enter(subscription: Subscription) -> None:
            subscription.entry = InterestEntry(1, "s", "t", "", 0, 0)
            await trio.lowlevel.checkpoint()

        def leave(subscription: Subscription) -> None:
            self.left += 1

        self.subscription = Subscription(
            "t", buffer=buffer, overflow=overflow, group="", most_bytes=most_bytes, enter=enter, leave=leave
        )

    def feed(self, *values: bytes, skip: int = 0, **fields: Any) -> None:
        batch = Batch("t", self.sequence, 0, RAW, list(values), None)._replace(**fields)
        self.sequence += len(values)
        self.subscription.feed(Origin(batch, SENDER), batch, skip)

    def drain(self) -> list[mesh.Message]:
        taken = []
        try:
            while True:
                taken.append(self.subscription.receive_nowait())
        except trio.WouldBlock:
            return taken


class Naive:
    """What a buffer does, said with a list and one message after the other."""

    def __init__(self, buffer: int, overflow: str, most_bytes: int) -> None:
        self.buffer, self.overflow, self.most_bytes = buffer, overflow, most_bytes
        self.waiting: deque[tuple[int, bytes]] = deque()
        self.dropped = 0

    def fits(self, extra: bytes = b"", more: int = 0) -> bool:
        size = sum(len(value) for _, value in self.waiting) + len(extra)
        return len(self.waiting) + more <= self.buffer and size <= self.most_bytes

    def feed(self, messages: list[tuple[int, bytes]]) -> None:
        for index, (number, value) in enumerate(messages):
            if self.overflow == "drop_oldest":
                self.waiting.append((number, value))
                while not self.fits():
                    self.waiting.popleft()
                    self.dropped += 1
            elif self.fits(value, 1):
                self.waiting.append((number, value))
            else:
                self.dropped += len(messages) - index
                return


steps = st.lists(
    st.one_of(
        st.lists(st.binary(max_size=12), min_size=1, max_size=12),  # feed
        st.integers(1, 8),  # take
    ),
    max_size=30,
)


@given(
    steps, st.integers(1, 20), st.integers(12, 60), st.sampled_from(["drop_oldest", "drop_newest", "raise"])
)
def test_the_buffer_does_what_a_naive_one_does(
    steps: list[Any], buffer: int, most_bytes: int, overflow: Overflow
) -> None:
    feeder = Feeder(buffer=buffer, overflow=overflow, most_bytes=most_bytes)
    it, naive = feeder.subscription, Naive(buffer, overflow, most_bytes)
    taken = 0
    in_hand: deque[tuple[int, bytes]] = deque()  # a chunk that was picked up is out of the buffer's reach
    for step in steps:
        if isinstance(step, list):
            first = feeder.sequence
            feeder.feed(*step)
            naive.feed(list(enumerate(step, first)))
        else:
            for _ in range(step):
                try:
                    message = it.receive_nowait()
                except trio.WouldBlock:
                    assert not naive.waiting and not in_hand
                    break
                if not in_hand:
                    chunk = 1 + int(it.queued - it._queued)
                    in_hand.extend(naive.waiting.popleft() for _ in range(chunk))
                assert (message.sequence, message.data) == in_hand.popleft()
                taken += 1
        assert it.dropped == naive.dropped
        assert it.queued == len(naive.waiting) + len(in_hand)
        assert it.received == feeder.sequence == it.delivered + it.dropped + it.queued
        assert it.delivered == taken
        assert it._bytes == sum(len(value) for _, value in naive.waiting)


def test_messages_that_are_old_are_skipped() -> None:
    feeder = Feeder()
    feeder.feed(b"0", b"1", b"2", skip=2)
    (message,) = feeder.drain()
    assert (message.data, message.sequence) == (b"2", 2)
    assert feeder.subscription.received == 1


def test_each_message_finds_its_own_kind_and_headers_after_drops() -> None:
    feeder = Feeder(buffer=2)
    feeder.feed(b"0", b"\x01", b"2", b"\x03", kinds=b"\0\1\0\1", headers={1: {"n": "1"}, 3: {"n": "3"}})
    two, three = feeder.drain()
    assert (two.value, two.kind, two.headers, two.sequence) == (b"2", RAW, {}, 2)
    assert (three.value, three.kind, three.headers, three.sequence) == (3, CBOR, {"n": "3"}, 3)


def test_a_value_that_nobody_of_ours_sent() -> None:
    feeder = Feeder()
    feeder.feed(b"\xff", kinds=CBOR)
    (message,) = feeder.drain()
    with pytest.raises(mesh.ValueEncodingError):
        _ = message.value
    assert message.data == b"\xff"


async def test_waiting_and_waking() -> None:
    feeder = Feeder()
    got: list[bytes] = []
    async with feeder.subscription as messages, trio.open_nursery() as nursery:

        async def read() -> None:
            got.append((await anext(messages)).data)

        nursery.start_soon(read)
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        feeder.feed(b"0")
        await trio.testing.wait_all_tasks_blocked()
        assert got == [b"0"]
        feeder.feed(b"1")
    assert got == [b"0", b"1"]
    assert feeder.left == 1


async def test_a_cancelled_wait_loses_nothing() -> None:
    feeder = Feeder()
    async with feeder.subscription as messages:
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(messages)
        feeder.feed(b"0")
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(messages)  # what is here is checked for a cancel first
        assert scope.cancelled_caught
        assert (await anext(messages)).data == b"0"


async def test_overflowed_comes_after_what_fitted_and_once() -> None:
    feeder = Feeder(buffer=2, overflow="raise")
    async with feeder.subscription as messages:
        feeder.feed(b"0", b"1", b"2")
        feeder.feed(b"3")
        assert [(await anext(messages)).data for _ in range(2)] == [b"0", b"1"]
        with pytest.raises(Overflowed) as caught:
            await anext(messages)
        assert caught.value.dropped == 2
        feeder.feed(b"4")
        assert (await anext(messages)).data == b"4"


async def test_the_node_closes_what_is_here_is_still_read() -> None:
    feeder = Feeder()
    async with feeder.subscription as messages:
        feeder.feed(b"0")
        messages.close(NodeClosed())
        messages.close(RuntimeError("only the first reason counts"))
        assert (await anext(messages)).data == b"0"
        for _ in range(2):
            with pytest.raises(NodeClosed, match="the node is closed"):
                await anext(messages)


async def test_after_leaving_nothing_is_read() -> None:
    feeder = Feeder()
    async with feeder.subscription as messages:
        feeder.feed(b"0", b"1", b"2")
        await anext(messages)
    with pytest.raises(trio.WouldBlock):
        messages.receive_nowait()
    with pytest.raises(NodeClosed, match="subscription"):
        await anext(messages)
    assert (messages.received, messages.delivered, messages.dropped, messages.queued) == (3, 1, 2, 0)


async def test_breaking_off_is_silent() -> None:
    feeder = Feeder()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with feeder.subscription as messages:
            for _ in range(3):
                feeder.feed(b"0", b"1")
                async for message in messages:
                    if message.data == b"1":
                        break
                del message
                gc.collect()
            with pytest.raises(ZeroDivisionError):
                feeder.feed(b"2")
                async for _message in messages:
                    raise ZeroDivisionError
            gc.collect()
            with trio.CancelScope() as scope:
                scope.cancel()
                async for _message in messages:
                    pass
            gc.collect()
            await trio.testing.wait_all_tasks_blocked()


async def test_iterating_yields_to_others() -> None:
    feeder = Feeder(buffer=10_000)
    async with feeder.subscription as messages:
        for _ in range(100):
            feeder.feed(*[b""] * 64)
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(others)
            for _ in range(6400):
                await anext(messages)
            nursery.cancel_scope.cancel()
        assert turns >= 6400 / 512
