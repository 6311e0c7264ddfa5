"""Publishing: values in, one sealed frame a batch out.

publish → append to the topic's ``Stream`` (kind and bytes, nothing else) → at the end of the
tick, at 64 KiB or at 512 messages: one flush → local subscriptions get the batch as it is →
if any peer wants it: one CBOR list, one AEAD seal, one send (a value that does not fit a frame: in pieces,
through ``lanes``) → groups and ``to=`` go over the direct plane.

The flush waits for nothing: a lone message leaves at the end of the tick in which it was
published.  When a pipe to some subscriber is full, frames wait in the ``Airlock`` (bounded in
bytes) and publishers with them, for a bounded patience; then the slow subscriber loses
frames (it sees the gap) and nobody else does.  Subscribers that ask to be waited for have ``windows``: while
one is shut publishers wait (``pacing``), after everybody was sent what there is.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Final, Protocol, Self

import trio

from mesh.config import Config
from mesh.core.codec import encode_batch, encode_value
from mesh.core.envelope import BATCH, KEPT
from mesh.core.messages import RAW, Batch
from mesh.core.outgoing import Line
from mesh.core.router import LOCAL, Member, Route
from mesh.core.types import NodeId
from mesh.core.windows import Window
from mesh.errors import MeshError, MessageTooLarge, NodeClosed
from mesh.node.airlock import Airlock
from mesh.node.headers import check_headers, header_bytes
from mesh.node.lanes import Lanes
from mesh.node.pacing import Pacing
from mesh.node.queues import Queues
from mesh.node.splitting import singles
from mesh.transport.base import Transport

__all__ = ["Publisher", "Publishing", "Stream"]

_PER_MESSAGE: Final = 16
"""Bytes counted for a message beside its value: CBOR framing and its share of the frame."""

_PER_HEADER: Final = 8
"""Likewise for a header beside its name and value."""


class Outlet(Protocol):
    """What publishing needs of the node."""

    config: Config

    def route(self, topic: str) -> Route: ...
    def route_generation(self) -> int: ...
    def deliver_local(self, numbers: tuple[int, ...], batch: Batch) -> None: ...
    def seal(self, topic: str, plaintext: bytes, kind: int) -> tuple[bytes, bytes]: ...
    def line(self, topic: str) -> Line: ...
    def stir(self, line: Line) -> None: ...
    def settle(self) -> None: ...
    def choose(self, group: str, members: tuple[Member, ...]) -> Member: ...
    def send_directed(self, peer: NodeId, group: str, batch: Batch) -> None: ...
    def check_open(self) -> None: ...
    def permit(self, topic: str) -> None: ...
    def live_subscribers(self, topic: str) -> int: ...
    async def subscribers_changed(self) -> None: ...


class Stream:
    """Everything this node publishes on one topic: its sequence, and the batch being filled."""

    def __init__(self, topic: str, publishing: Publishing) -> None:
        self.topic = topic
        self._publishing = publishing
        self._outlet = publishing.outlet
        config = publishing.outlet.config
        self._batch_bytes = config.batch_bytes
        self._last = config.batch_messages - 1
        # Counted for a message at least, so that a full batch is full in bytes and in messages at once.
        self.least = config.batch_bytes // config.batch_messages
        self.line = publishing.outlet.line(topic)
        self.sequence = 0  # of the first message of the batch being filled
        self._values: list[bytes] = []
        self._kinds: bytearray | None = None  # None while all are RAW
        self._headers: dict[int, Mapping[str, str]] | None = None
        self._size = 0
        self.room = 0  # bytes that ``append`` may still take of plain values; 0: everything takes ``add``
        self.append = self._values.append
        self._began = 0
        self._route = Route((), (), {})
        self._generation = -1
        self.windows: tuple[Window, ...] = ()  # of those who are to be waited for

    @property
    def count(self) -> int:
        """Messages published on this topic."""
        return self.sequence + len(self._values)

    # Ctrl-C waits for the end of these two: no half message, and no half-sent fan-out.

    @trio.lowlevel.enable_ki_protection
    def add(self, value: Any, headers: Mapping[str, str] | None) -> bool:
        """Append one message. True if the batch was flushed with it.

        Afterwards, a publisher may ``append`` values that are ``bytes`` and have no headers itself, as long as it takes
        what each counts from ``room`` and leaves some: nearly every message of a fast one, at half the cost.
        """
        if self.room:
            if type(value) is bytes and headers is None:
                room = self.room - max(len(value) + _PER_MESSAGE, self.least)
                if room > 0:
                    self.room = room
                    self._values.append(value)
                    return False
            self._size = self._batch_bytes - self.room
            self.room = 0
        kind, data = (RAW, value) if type(value) is bytes else encode_value(value)
        if len(data) > self._publishing.largest:
            raise MessageTooLarge(len(data), self._publishing.largest)
        ring = self.line.ring
        if ring is not None and len(data) > max(ring.limit, self._batch_bytes):
            raise MessageTooLarge(len(data), ring.limit)  # what is promised to be kept could not be
        size = max(len(data) + _PER_MESSAGE, self.least)
        if headers is not None:
            size += header_bytes(headers) + _PER_HEADER * len(headers)
        if self._values and self._size + size > self._batch_bytes:
            self.flush()  # a frame holds 64 KiB or one larger message, never two
        values = self._values
        if not values:
            if self._publishing.refusal is not None:
                raise self._publishing.refusal.with_traceback(None)
            self._began = time.time_ns() // 1000
            self._look()
            self._publishing.dirty(self)
        if self._kinds is not None:
            self._kinds.append(kind)
        elif kind != RAW:
            self._kinds = bytearray(len(values))
            self._kinds.append(kind)
        if headers is not None:
            self._headers = self._headers or {}
            self._headers[len(values)] = headers
        values.append(data)
        self._size += size
        full = self._size >= self._batch_bytes or len(values) > self._last
        if (self.windows and self._publishing.pacing.add(self, len(data))) or full:
            self.flush()
            return True
        if self._kinds is None and self._headers is None and not self.windows:
            self.room = self._batch_bytes - self._size
            self.append = values.append
        return False

    @trio.lowlevel.enable_ki_protection
    def flush(self) -> None:
        """Send the batch that is being filled."""
        values = self._values
        if not values:
            return
        kinds = self._kinds
        batch = Batch(
            self.topic,
            self.sequence,
            self._began,
            RAW if kinds is None else 1 if 0 not in kinds else bytes(kinds),
            values,
            self._headers,
        )
        count = len(values)
        self._values = []
        self._kinds = None
        self._headers = None
        self._size = self.room = 0
        self.sequence += count
        line = self.line
        line.next += count
        ring = line.ring
        plaintext = None
        if ring is not None:
            plaintext = encode_batch(batch)
            ring.append(count, plaintext)
        outlet = self._outlet
        if self.windows:
            self._publishing.pacing.filled(self, values)
        route = self._look()
        if self.windows:
            self._publishing.pacing.sent(self, batch)
        if route.local:
            outlet.deliver_local(route.local, batch)
        if route.broadcast:
            plaintext = encode_batch(batch) if plaintext is None else plaintext
            kind = KEPT if line.reliable else BATCH
            lanes = self._publishing.lanes
            if line.busy or len(plaintext) > lanes.whole:
                lanes.add(line, batch.sequence, count, plaintext, kind)
            else:
                tag, frame = outlet.seal(self.topic, plaintext, kind)
                self._publishing.airlock.send(tag, frame, self.topic, count)
            if not line.recent:
                outlet.stir(line)
        for group, members in route.groups.items():
            for part in [batch] if len(members) == 1 else singles(batch):
                self._publishing.to_member(outlet.choose(group, members), group, part)

    def _look(self) -> Route:
        """Where messages go now."""
        generation = self._outlet.route_generation()
        if generation != self._generation:
            self._generation = generation
            self._route = self._outlet.route(self.topic)
            self.windows = self._publishing.pacing.of(self._route)
        return self._route


class Publishing:
    """All streams of a node, and the flush at the end of the tick."""

    def __init__(self, outlet: Outlet, transport: Transport, config: Config, pacing: Pacing) -> None:
        self.outlet = outlet
        self.airlock = Airlock(transport, config)
        self.lanes = Lanes(self.airlock, outlet.seal, config)
        self.queues = Queues(self.airlock, self.lanes)
        self.pacing = pacing
        self.streams: dict[str, Stream] = {}
        self.largest = config.limits.value_bytes
        self._dirty: list[Stream] = []
        self._wake = trio.Event()
        self._directed: Counter[tuple[NodeId, str]] = Counter()
        self.directed_messages = 0
        self.refusal: MeshError | None = None  # why nothing can be published any more

    def stream(self, topic: str) -> Stream:
        stream = self.streams.get(topic)
        if stream is None:
            self.outlet.permit(topic)
            stream = self.streams[topic] = Stream(topic, self)
        return stream

    @property
    def tasks(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        """What has to run for things to go out."""
        return self.run, self.airlock.run, self.lanes.run

    def close(self) -> None:
        """Nothing goes out any more: tell who waits."""
        self.lanes.close()
        self.airlock.close()

    async def flush_all(self) -> None:
        """Return when everything published so far has been handed to the operating system's sockets."""
        await self.lanes.flush()
        await self.airlock.flush()

    def dirty(self, stream: Stream) -> None:
        self._dirty.append(stream)
        self._wake.set()

    def flush(self) -> None:
        """Send every batch that is being filled."""
        dirty, self._dirty = self._dirty, []
        for stream in dirty:
            stream.flush()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Flush at the end of each tick in which something was published."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            self.flush()
            self.outlet.settle()

    def forget(self, peer: NodeId) -> None:
        """The peer left: what is directed to it next begins anew."""
        for key in [key for key in self._directed if key[0] == peer]:
            del self._directed[key]

    def to_member(self, member: Member, group: str, batch: Batch) -> None:
        if member.peer == LOCAL:
            self.outlet.deliver_local((member.number,), batch)
        else:
            self.outlet.send_directed(member.peer, group, batch)

    def directed(self, peer: NodeId, topic: str, value: Any, headers: Mapping[str, str] | None) -> Batch:
        """One message of ``publish(to=)`` as a batch. Its numbers count per peer and topic."""
        kind, data = encode_value(value)
        if len(data) > self.largest:
            raise MessageTooLarge(len(data), self.largest)
        key = (peer, topic)
        number = self._directed[key]
        self._directed[key] = number + 1
        self.directed_messages += 1
        return Batch(topic, number, time.time_ns() // 1000, kind, [data], {0: headers} if headers else None)

    @property
    def published(self) -> int:
        """Messages published, those in batches that are being filled among them."""
        return self.directed_messages + sum(stream.count for stream in self.streams.values())


class _Shut:
    """What a closed publisher has in place of its stream: no room."""

    room = least = 0

    @staticmethod
    def append(value: bytes) -> None:
        raise NodeClosed


class Publisher:
    """Made by ``node.publisher``: the fast way to publish on one topic.

    An async context manager; leaving the block flushes.
    """

    def __init__(self, stream: Stream, publishing: Publishing) -> None:
        self.topic = stream.topic
        self._stream = stream
        self._open: Stream | type[_Shut] = stream
        self._publishing = publishing
        self._airlock = publishing.airlock
        self._lanes = publishing.lanes
        self._pacing = publishing.pacing
        self._closed = False

    async def publish(self, value: Any, headers: Mapping[str, str] | None = None) -> None:
        """Publish one value. Waits only while a subscriber's pipe is full, or one that is to be waited for has no room,
        each for a bounded time: once the value is sent, where it can be.

        Raises ``MessageTooLarge``, ``ValueEncodingError``, ``NodeClosed``.
        """
        if type(value) is bytes and headers is None:
            stream = self._open
            size = len(value) + _PER_MESSAGE
            if size < stream.least:
                size = stream.least
            if size < stream.room:
                stream.room -= size
                stream.append(value)
                return
        stream = self._stream
        if self._airlock.full or self._lanes.full:
            value = await self._publishing.queues.room(stream.line, value)
        if stream.windows:
            await self._pacing.before(stream)
        if self._closed:
            raise NodeClosed("the publisher is closed")
        if headers is not None:
            headers = check_headers(headers, self._publishing.outlet.config)
        if stream.add(value, headers):
            await trio.lowlevel.checkpoint()
            await self._pacing.after(stream)

    def publish_nowait(self, value: Any, headers: Mapping[str, str] | None = None) -> None:
        """Publish one value without waiting.

        Raises ``trio.WouldBlock`` when a subscriber's pipe and the bounded queue before it are
        full, or one that is to be waited for has no room (nothing is published then), and what ``publish`` raises.
        """
        if self._airlock.full or self._lanes.full:
            value = self._publishing.queues.try_room(self._stream.line, value)
        if self._pacing.shut(self._stream):
            raise trio.WouldBlock
        if self._closed:
            raise NodeClosed("the publisher is closed")
        if headers is not None:
            headers = check_headers(headers, self._publishing.outlet.config)
        self._stream.add(value, headers)

    async def flush(self) -> None:
        """Return when everything published so far has been handed to the operating system's sockets."""
        self._stream.flush()
        await self._publishing.flush_all()
        await trio.lowlevel.checkpoint()

    async def wait_for_subscribers(self, n: int = 1) -> None:
        """Return when at least ``n`` subscriptions (here or on peers) of this topic are live. Raises ``NodeClosed``."""
        outlet = self._publishing.outlet
        outlet.check_open()
        await trio.lowlevel.checkpoint()
        while outlet.live_subscribers(self.topic) < n:
            await outlet.subscribers_changed()
            outlet.check_open()

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        self._open = _Shut
        self._stream.flush()
        await trio.lowlevel.checkpoint()
