"""One client's connection, shared between hypercorn and the gateway's own fast way out.

    hypercorn (handshakes, HTTP, pings' answers, closing) ── send_all ──┐
    outbox of a WebSocket client ── send_nowait, send_all ──────────────┴─ one lock → socket

A message for a thousand clients is framed once (``encoding``); to take it through hypercorn's and wsproto's layers
for each of them costs ten times what the system call does.  So whole frames go straight to the socket, between
those of hypercorn, never inside one: what a full socket took only half of stays in front of everything else.

The stream also keeps what no layer above can: deadlines for a request's head, when the client was last heard, and
an end to writing into a socket that nobody empties.
"""

from __future__ import annotations

import math
import os
from contextlib import suppress
from typing import Final

import trio

from bridges.web.bounds import Bounds

__all__ = ["SharedStream"]

_PIECE: Final = 64 << 10
"""Bytes that ``send_within`` is for: a slow reader that goes on reading is not cut off."""


class SharedStream(trio.abc.Stream):
    """A TCP or TLS connection. ``heard`` is when bytes last came, ``unread`` what came since the last
    request or message."""

    def __init__(self, inner: trio.SocketStream | trio.SSLStream[trio.SocketStream], bounds: Bounds) -> None:
        self._inner = inner
        self._bounds = bounds
        plain = isinstance(inner, trio.SocketStream)
        self.socket = inner.socket if isinstance(inner, trio.SocketStream) else inner.transport_stream.socket
        self.tls = not plain
        self._fileno = self.socket.fileno() if plain else -1
        self._lock = trio.Lock()
        self._tail = memoryview(b"")
        self._closed = False
        self._said_goodbye = False
        self.heard = trio.current_time()
        self.unread = 0
        self.is_late = False
        """Whether the time for the head of a request ran out after some of it had come."""
        self._deadline = self.heard + bounds.head_within
        self._reading = trio.CancelScope()

    # -- in -----------------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """As the inner stream's; an empty result where the head of a request takes too long."""
        data: bytes | bytearray = b""
        with trio.CancelScope(deadline=self._deadline) as self._reading:
            data = await self._inner.receive_some(max_bytes)
        self.is_late = self._reading.cancelled_caught and self.unread > 0
        self.heard = trio.current_time()
        self.unread += len(data)
        return data

    async def read_past(self) -> None:
        """Take what the client is still sending, for a bounded time and size: a connection that is closed with
        something unread is reset, and the client would not hear the answer (RFC 9112 §9.6)."""
        size = 0
        with (
            trio.move_on_after(self._bounds.close_within),
            suppress(trio.BrokenResourceError, trio.ClosedResourceError),
        ):
            while size < self._bounds.discard_bytes and (data := await self._inner.receive_some()):
                size += len(data)

    @property
    def rests(self) -> bool:
        """Whether a request is waited for, and no client for an answer."""
        return self._deadline < math.inf

    def work(self) -> None:
        """A request is being answered, or a WebSocket is open: reading takes as long as it takes."""
        self._wait_until(math.inf)

    def rest(self) -> None:
        """A request was answered: the next may take its time."""
        self.unread = 0
        self._wait_until(trio.current_time() + self._bounds.idle_within)

    def _wait_until(self, deadline: float) -> None:
        self._deadline = self._reading.deadline = deadline

    # -- out ----------------------------------------------------------------------------

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        async with self._lock:
            tail, self._tail = self._tail, memoryview(b"")
            await self._send(tail)
            await self._send(data)

    def say_goodbye(self) -> None:
        """hypercorn's next bytes are the close frame: whoever sends frames of his own has sent the last of them
        (RFC 6455 §5.5.1)."""
        self._said_goodbye = True

    async def send_frame(self, data: bytes) -> None:
        """As ``send_all``, for a frame that must not come after the close frame: ``ClosedResourceError`` then."""
        async with self._lock:
            if self._said_goodbye:  # while this waited for its turn, perhaps
                raise trio.ClosedResourceError("the close frame was sent")
            tail, self._tail = self._tail, memoryview(b"")
            await self._send(tail)
            await self._send(data)

    async def _send(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        while view:
            # Shielded: half a frame would make nonsense of all that follows, the closing too.
            with trio.move_on_after(self._bounds.send_within, shield=True) as scope:
                await self._inner.send_all(view[:_PIECE])
            if scope.cancelled_caught:
                self.abort()
                raise trio.BrokenResourceError("nobody empties this socket")
            view = view[_PIECE:]

    @property
    def ready(self) -> bool:
        """Whether ``send_nowait`` may be called: nothing is in the way, as far as is known."""
        if self._closed or self._said_goodbye:
            return False
        return self._fileno >= 0 and not (self._tail or self._lock.locked())

    def send_nowait(self, data: bytes) -> None:
        """Send whole frames; what the socket does not take now is sent by the next ``drain`` or ``send_all``."""
        try:
            sent = os.write(self._fileno, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # broken: whoever reads from it notices
        if sent < len(data):
            self._tail = memoryview(data)[sent:]  # the bytes are everybody's: no copy for each who is slow

    @property
    def has_tail(self) -> bool:
        """Whether half of something waits for the socket."""
        return bool(self._tail)

    async def drain(self) -> None:
        """Return when what ``send_nowait`` left behind is sent."""
        if self._tail:
            await self.send_all(b"")

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        if isinstance(self._inner, trio.SocketStream):
            async with self._lock:
                await self._inner.send_eof()

    # -- the end --------------------------------------------------------------------------

    async def aclose(self) -> None:
        self._closed = True
        with trio.move_on_after(
            self._bounds.close_within
        ):  # TLS says goodbye, if the other side still listens
            await self._inner.aclose()

    def abort(self) -> None:
        """Close at once: whoever is sending or receiving is told."""
        self._closed = True
        self._fileno = -1
        self.socket.close()
