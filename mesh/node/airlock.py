"""Sealed frames on their way to the broadcast socket, in order.

``send`` → straight to the transport while every subscriber's pipe takes it → else a queue, drained by ``run``.
While the queue is over a bound publishers wait.  A pipe that stays full for a bounded patience loses
frames, which its subscriber sees as a gap, and nobody else does.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Final

import trio

from mesh.config import Config
from mesh.transport.base import Transport

__all__ = ["Airlock"]

_ROOM: Final = 4 << 20
"""Bytes that may wait here before publishers wait too."""


class Airlock:
    """What waits for the broadcast socket of one node."""

    def __init__(self, transport: Transport, config: Config) -> None:
        self._transport = transport
        self._config = config
        self.queue: deque[tuple[bytes, bytes, str, int]] = deque()  # tag, frame, topic, messages
        self._bytes = 0
        self._filled = trio.Event()
        self._emptied = trio.lowlevel.ParkingLot()
        self.passed_over: Callable[[bytes], None] = lambda tag: None  # told when that happens to a frame
        self.passed: Counter[str] = Counter()  # messages in such frames, by topic
        self.lossy = 0  # frames sent while some subscriber's pipe was full: that one lost them
        self.full = False
        self.leaving = False  # nothing more is published, and ``give_up`` ends the patience

    def send(self, tag: bytes, frame: bytes, topic: str = "", messages: int = 0) -> None:
        """Send, or queue behind what already waits. It holds so many messages on this topic."""
        if not self.queue and self._transport.publish(tag, frame):
            return
        self.queue.append((tag, frame, topic, messages))
        self._bytes += len(frame)
        self.full = self._bytes > _ROOM
        self._filled.set()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Drain: wait for a full pipe for a bounded patience, then go on without it."""
        patience = self._config.congestion_patience
        while True:
            await self._filled.wait()
            give_up = trio.current_time() + patience
            while self.queue:
                tag, frame, topic, messages = self.queue[0]
                if self._transport.publish(tag, frame):
                    give_up = max(give_up, trio.current_time() + patience / 10)
                elif not self.leaving and trio.current_time() >= give_up:
                    self._transport.publish_lossy(tag, frame)
                    self.lossy += 1
                    self.passed[topic] += messages
                    self.passed_over(tag)
                else:
                    with trio.move_on_at(trio.current_time() + patience / 10 if self.leaving else give_up):
                        await self._transport.wait_publishable()
                    continue
                self.queue.popleft()
                self._bytes -= len(frame)
                self.full = self._bytes > _ROOM
                if not self.full:
                    self._emptied.unpark_all()
                if self.queue and not len(self.queue) % 16:  # when it is empty, patience begins anew
                    await trio.lowlevel.checkpoint()
            self._filled = trio.Event()
            self._emptied.unpark_all()

    def give_up(self) -> None:
        """Send what waits past whoever is full, and what may still come.

        All of it counts: a pipe that was passed over gets nothing more until it is half empty, and nobody says so.
        """
        self.send = self._send_past  # type: ignore[method-assign]
        while self.queue:
            self._send_past(*self.queue.popleft())
        self._bytes = 0
        self.full = False
        self._emptied.unpark_all()

    def _send_past(self, tag: bytes, frame: bytes, topic: str = "", messages: int = 0) -> None:
        self._transport.publish_lossy(tag, frame)
        self.lossy += 1
        self.passed[topic] += messages

    async def wait_room(self) -> None:
        """Return when publishers may go on."""
        while self.full:
            await self._emptied.park()

    async def flush(self) -> None:
        """Return when nothing waits any more."""
        while self.queue:
            await self._emptied.park()

    def close(self) -> None:
        """Nothing goes out any more: drop what waits, and tell who waits."""
        self.queue.clear()
        self._bytes = 0
        self.full = False
        self._emptied.unpark_all()
