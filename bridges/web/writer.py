"""The way out of one WebSocket client: its outbox, and the socket that takes what is in it.

hub ── ``offer`` ───────────────────┐ where nothing waits
answers, hub ──> outbox ── ``kick`` ┴─> socket, at once while it takes everything
                   └─────── ``run`` ──> socket, where it is full, or is TLS
"""

from __future__ import annotations

import trio

from bridges.web.outbox import Outbox
from bridges.web.stream import SharedStream

__all__ = ["Writer"]


class Writer:
    """What a client is sent, but for what hypercorn says. ``outbox`` is what waits."""

    def __init__(self, outbox: Outbox, stream: SharedStream) -> None:
        self.outbox = outbox
        self._stream = stream
        self._wake = trio.Event()
        self._taken = trio.Event()
        self._is_over = False

    def offer(self, data: bytes, messages: int) -> bool:
        """Send these messages, in front of which nothing waits; False if something does."""
        if self.outbox or not self._stream.ready:
            return False
        self.outbox.taken += messages
        self._stream.send_nowait(data)
        if self._stream.has_tail:
            self._wake.set()
        return True

    def kick(self) -> None:
        """Something is in the outbox: send it now if the socket takes it, else wake ``run``."""
        stream = self._stream
        while self.outbox:
            if not stream.ready:
                self._wake.set()
                return
            stream.send_nowait(self._next())
        if stream.has_tail:
            self._wake.set()

    async def run(self) -> None:
        """Send what the socket did not take at once, until cancelled or the client is gone."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            try:
                await self.flush()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._is_over = True
                self._taken.set()
                return  # the reader notices, and ends

    async def flush(self) -> None:
        """Send all that waits. Raises trio's ``BrokenResourceError``; ``ClosedResourceError`` after the close frame too."""
        await self._stream.drain()
        while self.outbox:
            await self._stream.send_frame(self._next())

    async def wait_for_answers(self, most: int) -> None:
        """Return when at most so many bytes of answers wait, or nobody will get them any more."""
        while self.outbox.urgent > most and not self._is_over:
            self._taken = trio.Event()
            await self._taken.wait()

    def _next(self) -> bytes:
        self._taken.set()
        return self.outbox.take()
