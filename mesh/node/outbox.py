"""What waits to go out on the direct links: bounded in bytes, a peer and in all.

``send`` → straight to the transport while its pipe takes it → else a queue for that peer,
drained by a task of its own in the order in which frames came, so that a blocked peer
blocks nobody else.  A message that does not fit a frame goes in parts, whenever nothing else waits, and what
belongs behind it (``place_of``) waits for it.  Beyond the bounds the answer is False and the caller decides:
control messages are counted as dropped (their protocols repeat), a program's wait or raise.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Any, Final

import trio

from mesh.config import Config
from mesh.core.chunks import Cutting, Cuttings
from mesh.core.codec import encode_direct
from mesh.core.messages import PartMessage, RepairedMessage
from mesh.core.parts import Place, place_of
from mesh.core.types import NodeId
from mesh.transport.base import Transport

__all__ = ["Outbox"]

_IN_A_ROW: Final = 256 << 10
"""Bytes after which other tasks run."""


class _Queue:
    """What waits for one peer: frames, and, after those, what goes in parts."""

    __slots__ = ("cuttings", "frames", "number")

    def __init__(self) -> None:
        self.frames: deque[bytes] = deque()
        self.cuttings: Cuttings[Place, int] = Cuttings()

    def __len__(self) -> int:
        return len(self.frames) + len(self.cuttings)


class Outbox:
    """All queues of one node. Before ``run`` and after it nothing is queued."""

    def __init__(self, transport: Transport, config: Config) -> None:
        self._transport = transport
        self._limits = config.limits
        self._whole = config.limits.whole_bytes
        self._piece = min(config.piece_bytes, self._whole)
        self._nursery: trio.Nursery | None = None
        self._queues: dict[NodeId, _Queue] = {}
        self._bytes: Counter[NodeId] = Counter()
        self._total = 0
        self._parted = 0  # messages that went in parts
        self._room = trio.lowlevel.ParkingLot()
        self.dropped: Counter[NodeId] = Counter()

    @trio.lowlevel.enable_ki_protection
    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Drain the queues until cancelled."""
        async with trio.open_nursery() as self._nursery:
            try:
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def send_message(self, peer: NodeId, message: Any) -> bool:
        """Send or queue one message, in parts if it must be; False if the peer's queue (or all together) is full."""
        frame = encode_direct(message)
        queue = self._queues.get(peer)
        large = len(frame) > self._whole
        if not large and (queue is None or not queue.cuttings):
            return self.send(peer, frame)
        place = place_of(message)
        waits = queue is not None and place is not None and place in queue.cuttings
        if place is None or not (large or waits):
            return self.send(peer, frame)
        if waits and type(message) is RepairedMessage:
            return True  # asked again while the answer is on its way
        return self._add(peer, place, frame, self._piece if large else None)

    def send(self, peer: NodeId, frame: bytes) -> bool:
        """Send or queue one frame; False if the peer's queue (or all together) is full."""
        queue = self._queues.get(peer)
        if (queue is None or not queue.frames) and self._transport.send_direct(peer, frame):
            return True
        size = len(frame)
        full = self._bytes[peer] + size > self._limits.outbox_peer_bytes
        queue = self._make_room(peer, size, full=full)
        if queue is None:
            return False
        queue.frames.append(frame)
        return True

    def _add(self, peer: NodeId, place: Place, frame: bytes, piece: int | None) -> bool:
        size = len(frame)
        queue = self._queues.get(peer)
        # One always fits, however large: else it would never go.
        full = queue is not None and queue.cuttings.bytes + size > self._limits.outbox_peer_bytes
        queue = self._make_room(peer, size, full=full and queue is not None and len(queue.cuttings) > 0)
        if queue is None:
            return False
        self._parted += 1
        queue.cuttings.add(place, Cutting(self._parted, frame, piece))
        return True

    def _make_room(self, peer: NodeId, size: int, *, full: bool) -> _Queue | None:
        """The peer's queue, with so many bytes counted in; None if they are too many."""
        if self._nursery is None or full or self._total + size > self._limits.outbox_total_bytes:
            self.dropped[peer] += 1
            return None
        queue = self._queues.get(peer)
        if queue is None:
            queue = self._queues[peer] = _Queue()
            self._nursery.start_soon(self._drain, peer, queue, name=f"outbox {peer.hex()[:8]}")
        self._bytes[peer] += size
        self._total += size
        return queue

    @trio.lowlevel.enable_ki_protection
    async def _drain(self, peer: NodeId, queue: _Queue) -> None:
        since_yield = 0
        while queue and self._queues.get(peer) is queue:
            if not queue.frames:
                self._cut(peer, queue)
            if not self._transport.send_direct(peer, queue.frames[0]):
                await self._transport.wait_direct_writable(peer)
                continue
            size = len(queue.frames.popleft())
            self._account(peer, size)
            since_yield += size
            if since_yield >= _IN_A_ROW:
                since_yield = 0
                await trio.lowlevel.checkpoint()
        if self._queues.get(peer) is queue:
            del self._queues[peer]

    def _cut(self, peer: NodeId, queue: _Queue) -> None:
        """It is the turn of the next part."""
        taken = queue.cuttings.next()
        assert taken is not None  # there is one under way, or the first can begin
        place, cutting, (total, offset, data) = taken
        if cutting.size is None:
            frame = cutting.whole
        else:
            part = PartMessage(cutting.what, place.code, place.about, total, offset, bytes(data))
            frame = encode_direct(part)
        queue.frames.append(frame)
        self._account(peer, len(data) - len(frame))

    def _account(self, peer: NodeId, size: int) -> None:
        self._bytes[peer] -= size
        self._total -= size
        self._room.unpark_all()

    def discard(self, peer: NodeId) -> None:
        """The link is closed: what waited for it is dropped, and counted."""
        queue = self._queues.pop(peer, None)
        if queue:
            self.dropped[peer] += len(queue)
            self._account(peer, self._bytes[peer])
        self._bytes.pop(peer, None)

    def forget(self, peer: NodeId) -> None:
        """The peer left: its count goes with it."""
        self.dropped.pop(peer, None)

    def queued(self) -> list[tuple[NodeId, list[bytes]]]:
        """What waits now, by peer: frames, and whole messages that go in parts."""
        return [
            (peer, [*queue.frames, *(cutting.whole for _, cutting in queue.cuttings.items())])
            for peer, queue in self._queues.items()
        ]

    def waiting(self, peer: NodeId) -> int:
        """Bytes that wait for this peer."""
        return self._bytes[peer]

    async def wait_room(self) -> None:
        """Return when something of any queue has gone out, or was dropped."""
        if any(self._queues.values()):
            await self._room.park()
        else:
            await trio.lowlevel.checkpoint()

    async def flush(self) -> None:
        """Return when every queue is empty."""
        while any(self._queues.values()):
            await self._room.park()

    def close(self) -> None:
        """Nothing goes out any more: drop what waits, and tell who waits."""
        for peer in list(self._queues):
            self.discard(peer)
        self._room.unpark_all()
