"""One subscription of the mesh for all clients of the same pattern.

    mesh.Subscription ─> ``Channel``: takes what is there → encodes each once, and joins a round's once
                          ├ ``offer``: to a client with nothing in the way, the same bytes as to all others
                          └ else into its outbox, and ``kick``: out as its socket takes it

To write to a socket takes the kernel some 10 µs, whatever Python does around it, so that a thousand clients cost
10 ms a round.  A round that took long is followed by a pause half as long: messages then leave in small batches, one
system call for each client and batch, and the rest of the program has a third of the time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

import trio

import mesh
from bridges.web.bounds import Bounds
from bridges.web.encoding import Encoded, Format, Id
from bridges.web.outbox import Feed, Outbox
from mesh.errors import MeshError

__all__ = ["Hub", "Reader", "TooManyPatterns"]

_ROUND: Final = 256
"""Messages taken at once: about 2 ms of encoding."""
_FAIR: Final = 64
"""Clients served between two yields to the scheduler: about 1 ms."""
_SHARED: Final = 64 << 10
"""Bytes of a round that are offered whole; more than a socket's buffer goes through the outbox and its bound."""
_LONGEST_PAUSE: Final = 0.015
"""Seconds. Below what a person notices, and many times less than a second of messages."""
_WORTH_A_PAUSE: Final = 0.002

_log = logging.getLogger("mesh.web")


class Reader(Protocol):
    """A client, as the hub sees it."""

    outbox: Outbox

    def offer(self, data: bytes, messages: int) -> bool:
        """Take these messages' bytes now, all of them, or none: then they come through the outbox. Never blocks."""

    def kick(self) -> None:
        """Something is in the outbox. Never blocks."""


class TooManyPatterns(MeshError):
    """The clients of this gateway subscribe to as many patterns as it can have."""


class Channel:
    """One pattern's subscription and who listens. ``ready`` is set once it is live or has failed."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.readers: dict[Feed, Reader] = {}
        self.users = 0
        self.ready = trio.Event()
        self.failed: MeshError | None = None
        self.scope = trio.CancelScope()

    async def run(self, node: mesh.Node) -> None:
        with self.scope:
            try:
                async with node.subscribe(self.pattern) as subscription:
                    self.ready.set()
                    await self._pass_on(subscription)
            except MeshError as error:  # NodeClosed, a rule that says no: those who wait are told
                self.failed = error
            finally:
                self.ready.set()

    async def _pass_on(self, subscription: mesh.Subscription) -> None:
        dropped = 0
        while True:
            batch = [Encoded(await subscription.__anext__())]
            try:
                while len(batch) < _ROUND:
                    batch.append(Encoded(subscription.receive_nowait()))
            except trio.WouldBlock:
                pass
            missed, dropped = subscription.dropped - dropped, subscription.dropped
            # This thread's own time: that other programs had the processor is no reason to wait longer still.
            began = time.thread_time()
            await self._spread(batch, missed)
            took = time.thread_time() - began
            if took > _WORTH_A_PAUSE:
                await trio.sleep(min(took / 2, _LONGEST_PAUSE))

    async def _spread(self, batch: list[Encoded], missed: int) -> None:
        rounds: dict[tuple[Format, Id], bytes] = {}
        for number, (feed, reader) in enumerate(list(self.readers.items()), 1):
            if feed.closed:
                continue  # since the list was made
            outbox = reader.outbox
            if missed:
                outbox.miss(feed, missed)
            kind = outbox.form, feed.id
            data = rounds.get(kind)
            if data is None:
                data = rounds[kind] = _joined(batch, *kind)
            if not (data and reader.offer(data, len(batch))):
                self._queue(batch, feed, reader)
            if number % _FAIR == 0:
                await trio.lowlevel.checkpoint()

    def _queue(self, batch: list[Encoded], feed: Feed, reader: Reader) -> None:
        outbox = reader.outbox
        for encoded in batch:
            if outbox.is_pressed:
                reader.kick()  # before anything has to give way
            outbox.message(encoded.frame(outbox.form, feed.id), feed)
        reader.kick()


def _joined(batch: list[Encoded], form: Format, identifier: Id) -> bytes:
    """The round as clients with this format and id get it; empty if it is too much to be offered whole."""
    frames = []
    size = 0
    for encoded in batch:
        frames.append(encoded.frame(form, identifier))
        size += len(frames[-1])
        if size > _SHARED:
            return b""
    return b"".join(frames)


class Hub:
    """All channels of one gateway."""

    def __init__(self, node: mesh.Node, bounds: Bounds) -> None:
        self._node = node
        self._bounds = bounds
        self._channels: dict[str, Channel] = {}
        self._nursery: trio.Nursery | None = None

    @property
    def patterns(self) -> int:
        return len(self._channels)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the channels until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    async def join(self, feed: Feed, reader: Reader, live: Callable[[], None]) -> None:
        """Return when ``reader`` gets the feed's messages, having called ``live`` just before.

        Raises what the subscription raises, and ``TooManyPatterns``. ``leave`` undoes it, however far it came.
        """
        channel = self._channels.get(feed.pattern)
        if channel is None:
            if self._nursery is None:
                raise mesh.NodeClosed("the gateway stops")
            if len(self._channels) >= self._bounds.patterns:
                raise TooManyPatterns(f"{len(self._channels)} patterns are subscribed to here already")
            channel = self._channels[feed.pattern] = Channel(feed.pattern)
            self._nursery.start_soon(channel.run, self._node)
        channel.users += 1
        try:
            await channel.ready.wait()
            if channel.failed is not None:
                raise channel.failed
        except BaseException:
            self._let_go(channel)
            raise
        if feed.closed:
            self._let_go(channel)
            return
        live()
        channel.readers[feed] = reader

    def leave(self, feed: Feed) -> None:
        """No more messages for this feed."""
        feed.closed = True
        channel = self._channels.get(feed.pattern)
        if channel is not None and channel.readers.pop(feed, None) is not None:
            self._let_go(channel)

    def _let_go(self, channel: Channel) -> None:
        channel.users -= 1
        if not channel.users:
            channel.scope.cancel()
            if self._channels.get(channel.pattern) is channel:
                del self._channels[channel.pattern]
