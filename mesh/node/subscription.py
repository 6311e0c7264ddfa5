"""A subscription: batches in at one end, an ``async for`` over messages at the other.

``feed`` (called by the pump, never blocks) → a deque of chunks, bounded in messages →
``async for`` takes a whole chunk in hand and yields its messages one by one, without a
reschedule for each, yet yielding to the scheduler often enough that nothing starves.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from itertools import count, repeat
from operator import length_hint
from types import TracebackType
from typing import Final, Literal, NamedTuple, Self, cast, get_args

import trio
from trio.lowlevel import ParkingLot

from mesh.core.effects import LossCause
from mesh.core.messages import Batch, InterestEntry
from mesh.errors import ConfigError, NodeClosed, Overflowed
from mesh.node.message import Message, Origin

__all__ = ["MOST_HISTORY", "Chunk", "Overflow", "Subscription", "check_subscription"]

Overflow = Literal["drop_oldest", "drop_newest", "backpressure", "raise"]

MOST_HISTORY: Final = 65536
"""Messages that a subscription may ask for at its beginning: what its buffer holds, by default."""

_FAIR: Final = 256
"""Messages handed out between two yields to the scheduler: about 100 µs of a program's time."""


def check_subscription(overflow: str, buffer: int, history: int, group: str | None) -> Overflow:
    """Judge what a caller asked for. Raises ``ConfigError`` that names the setting."""
    if type(history) is not int or not 0 <= history <= MOST_HISTORY:
        raise ConfigError(f"{history!r} is not a number of messages from 0 to {MOST_HISTORY}", key="history")
    if history and group is not None:
        raise ConfigError(
            "members of a group share what is published from now on: leave one out", key="history"
        )
    if group is not None and (type(group) is not str or not 0 < len(group) <= 64 or not group.isprintable()):
        raise ConfigError(f"{group!r} is not a name of 1 to 64 printable characters", key="group")
    if overflow not in get_args(Overflow):
        raise ConfigError(f"{overflow!r} is not one of {', '.join(get_args(Overflow))}", key="overflow")
    if overflow == "backpressure" and group is not None:
        raise ConfigError("'backpressure' is for subscriptions without a group", key="overflow")
    if type(buffer) is not int or buffer < 1:
        raise ConfigError(f"{buffer!r} is not a number of messages above 0", key="buffer")
    return overflow  # type: ignore[return-value]


class Chunk(NamedTuple):
    """Consecutive messages of a batch, from index ``start`` on; ``size`` is in bytes. ``gap`` stands for some that are missing."""

    origin: Origin | None
    values: list[bytes]
    start: int
    size: int
    gap: object | None = None


def _head(values: list[bytes], most: int, most_bytes: int) -> list[bytes]:
    """As many of the first values as fit."""
    count = 0
    for value in values[: max(0, most)]:
        most_bytes -= len(value)
        if most_bytes < 0:
            break
        count += 1
    return values[:count]


def _tail(values: list[bytes], most: int, most_bytes: int) -> list[bytes]:
    """As many of the last values as fit."""
    return _head(values[::-1], most, most_bytes)[::-1]


class _Loop:
    """One ``async for`` over a generator, at the generator's pace: its ``__anext__`` is the generator's own.

    A program may break out of the loop. The generator is closed then, at once and in silence; by itself it
    would wait for the garbage collector and warn.
    """

    __slots__ = ("__anext__", "_messages")

    def __init__(self, messages: AsyncGenerator[Message, None]) -> None:
        self._messages = messages
        self.__anext__ = messages.__anext__

    def __aiter__(self) -> Self:
        return self

    def __del__(self) -> None:
        try:
            self._messages.aclose().send(None)
        except (StopIteration, RuntimeError):
            pass  # closed, which needs no waiting; or running, in a program that is itself being torn down


class Subscription:
    """Made by ``node.subscribe``; an async context manager and async iterator of ``Message``.

    ``received`` counts what arrived for it, ``delivered`` what the program took,
    ``dropped`` what its overflow policy threw away, ``queued`` what waits: at any time
    received = delivered + dropped + queued.
    """

    def __init__(
        self,
        pattern: str,
        *,
        buffer: int,
        overflow: Overflow,
        group: str,
        history: int = 0,
        most_bytes: int,
        enter: Callable[[Subscription], object],
        leave: Callable[[Subscription], object],
    ) -> None:
        self.pattern = pattern
        self.group = group
        self.history = history
        self.buffer = buffer
        self.overflow = overflow
        self.received = 0
        self.dropped = 0
        self.lost = 0
        self.lost_by_cause: Counter[LossCause] = Counter()
        self.entry: InterestEntry | None = None
        self._enter = enter
        self._leave = leave
        self._chunks: deque[Chunk] = deque()
        self._queued = 0
        self._bytes = 0  # of the values that are queued
        self._most_bytes = most_bytes
        self._hand: Iterator[Message] = iter(())
        self._rest: Iterator[bytes] = iter(())  # what of the chunk in hand is not yet taken
        self._since_yield = 0
        self._waiting = ParkingLot()
        self._closed: BaseException | None = None
        self._overflowed = False

    # -- the node's side -------------------------------------------------------

    @property
    def window(self) -> int:
        """Messages by which a publisher may be ahead of it at first; 0 if none is to wait for it."""
        return 0

    def feed(self, origin: Origin, batch: Batch, skip: int = 0) -> None:
        """Append a batch (its first ``skip`` messages are not for us). Never blocks."""
        values = batch.values[skip:] if skip else batch.values
        self.received += len(values)
        size = sum(map(len, values))
        if self._queued + len(values) > self.buffer or self._bytes + size > self._most_bytes:
            values, skip = self._fit(values, skip)
            if not values:
                return
            size = sum(map(len, values))
        self._chunks.append(Chunk(origin, values, skip, size))
        self._queued += len(values)
        self._bytes += size
        if self._waiting:
            self._waiting.unpark_all()

    def refuse(self, messages: int) -> None:
        """So many arrived for which there was no room even to wait for what comes before them."""
        self.received += messages
        self.dropped += messages

    def _fit(self, values: list[bytes], skip: int) -> tuple[list[bytes], int]:
        """Carry out the overflow policy: what of ``values`` is to be queued, and its first one's index."""
        if self.overflow == "drop_oldest":
            kept = _tail(values, self.buffer, self._most_bytes)
            if len(kept) < len(values):
                self._make_room(self.buffer, self._most_bytes)  # all that waits is older still
            else:
                self._make_room(len(kept), sum(map(len, kept)))
        else:
            kept = _head(values, self.buffer - self._queued, self._most_bytes - self._bytes)
            if self.overflow == "raise":
                self._overflowed = True
                self._waiting.unpark_all()
        self.dropped += len(values) - len(kept)
        return kept, skip + len(values) - len(kept) if self.overflow == "drop_oldest" else skip

    def _make_room(self, messages: int, size: int) -> None:
        """Drop the oldest that wait until so many messages of so many bytes fit."""
        while self._chunks:
            over = self._queued + messages - self.buffer
            heavy = self._bytes + size - self._most_bytes
            if over <= 0 and heavy <= 0:
                return
            origin, values, start, total, _ = self._chunks[0]
            gone = freed = 0
            while gone < len(values) and (gone < over or freed < heavy):
                freed += len(values[gone])
                gone += 1
            if gone == len(values):
                self._chunks.popleft()
            else:
                self._chunks[0] = Chunk(origin, values[gone:], start + gone, total - freed)
            self._queued -= gone
            self._bytes -= freed
            self.dropped += gone

    def close(self, reason: BaseException) -> None:
        """The node closes: who waits is told ``reason``."""
        if self._closed is None:
            self._closed = reason
            self._waiting.unpark_all()

    # -- the program's side ------------------------------------------------------

    @property
    def queued(self) -> int:
        """Messages that wait to be taken."""
        return self._queued + length_hint(self._rest)

    @property
    def delivered(self) -> int:
        """Messages that the program has taken."""
        return self.received - self.dropped - self.queued

    async def __aenter__(self) -> Self:
        await self._enter(self)  # type: ignore[misc]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(self)
        self.close(NodeClosed("the subscription is closed"))
        self.dropped += self.queued
        self._chunks.clear()
        self._queued = self._bytes = 0
        self._hand = iter(())
        self._rest = iter(())
        await trio.lowlevel.checkpoint()

    def _pick_up(self) -> int:
        """Take the oldest chunk in hand; its size."""
        chunk = self._chunks.popleft()
        size = len(chunk.values)
        self._queued -= size
        self._bytes -= chunk.size
        assert chunk.origin is not None  # gaps are for those that publishers wait for
        self._rest = iter(chunk.values)
        self._hand = map(Message, repeat(chunk.origin), self._rest, count(chunk.start))
        return size

    async def _next_chunk(self) -> None:
        """Take the next chunk in hand, waiting for one if there is none."""
        if self._since_yield >= _FAIR:
            self._since_yield = 0
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        while not self._chunks:
            if self._overflowed:
                self._overflowed = False
                raise Overflowed(self.pattern, self.dropped)
            if self._closed is not None:
                raise self._closed.with_traceback(None)
            self._since_yield = 0
            await self._waiting.park()
        self._since_yield += self._pick_up()

    def __aiter__(self) -> AsyncIterator[Message]:
        if self.entry is None and self._closed is None:
            raise RuntimeError("enter the subscription first: async with node.subscribe(...) as it")
        return cast("AsyncIterator[Message]", _Loop(self._iterate()))

    async def _iterate(self) -> AsyncGenerator[Message, None]:
        while True:
            for message in self._hand:
                yield message
            await self._next_chunk()

    async def __anext__(self) -> Message:
        while True:
            for message in self._hand:
                return message
            await self._next_chunk()

    def receive_nowait(self) -> Message:
        """The next message that is already here. Raises ``trio.WouldBlock`` if none is."""
        while True:
            for message in self._hand:
                return message
            if not self._chunks:
                raise trio.WouldBlock
            self._pick_up()
