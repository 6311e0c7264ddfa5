"""What waits to go out on the direct links: bounded in bytes, a peer and in all.

``send`` → straight to the transport while its pipe takes it → else a queue for that peer,
drained by a task of its own in the order in which frames came, so that a blocked peer
blocks nobody else.  Beyond the bounds ``send`` answers False and the caller decides: control
messages are counted as dropped (their protocols repeat), a program's wait or raise.
"""

from __future__ import annotations

from collections import Counter, deque

import trio

from mesh.config import Limits
from mesh.core.types import NodeId
from mesh.transport.base import Transport

__all__ = ["Outbox"]


class Outbox:
    """All queues of one node. Before ``run`` and after it nothing is queued."""

    def __init__(self, transport: Transport, limits: Limits) -> None:
        self._transport = transport
        self._limits = limits
        self._nursery: trio.Nursery | None = None
        self._queues: dict[NodeId, deque[bytes]] = {}
        self._bytes: Counter[NodeId] = Counter()
        self._total = 0
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

    def send(self, peer: NodeId, frame: bytes) -> bool:
        """Send or queue one frame; False if the peer's queue (or all together) is full."""
        queue = self._queues.get(peer)
        if queue is None and self._transport.send_direct(peer, frame):
            return True
        size = len(frame)
        if (
            self._nursery is None
            or self._bytes[peer] + size > self._limits.outbox_peer_bytes
            or self._total + size > self._limits.outbox_total_bytes
        ):
            self.dropped[peer] += 1
            return False
        if queue is None:
            queue = self._queues[peer] = deque()
            self._nursery.start_soon(self._drain, peer, queue, name=f"outbox {peer.hex()[:8]}")
        queue.append(frame)
        self._bytes[peer] += size
        self._total += size
        return True

    @trio.lowlevel.enable_ki_protection
    async def _drain(self, peer: NodeId, queue: deque[bytes]) -> None:
        while queue and self._queues.get(peer) is queue:
            if self._transport.send_direct(peer, queue[0]):
                self._account(peer, len(queue.popleft()))
            else:
                await self._transport.wait_direct_writable(peer)
        if self._queues.get(peer) is queue:
            del self._queues[peer]

    def _account(self, peer: NodeId, size: int) -> None:
        self._bytes[peer] -= size
        self._total -= size
        self._room.unpark_all()

    def discard(self, peer: NodeId) -> None:
        """The link is closed: what waited for it is dropped, and counted."""
        queue = self._queues.pop(peer, None)
        if queue:
            self.dropped[peer] += len(queue)
            self._account(peer, sum(map(len, queue)))
        self._bytes.pop(peer, None)

    def forget(self, peer: NodeId) -> None:
        """The peer left: its count goes with it."""
        self.dropped.pop(peer, None)

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
