"""Server-sent events: a subscription as an HTTP answer that does not end.

event: message          data: {"topic", "value", "sender", "sequence", "timestamp"}
event: dropped          data: {"count"}: the reader was too slow for so many
: alive                 a comment now and then, so that proxies keep the connection
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from fastapi import Response
from starlette.types import Receive, Scope, Send

from bridges.web.bounds import Bounds
from bridges.web.counters import Counters
from bridges.web.encoding import EVENTS
from bridges.web.hub import Hub
from bridges.web.outbox import Feed, Outbox

__all__ = ["EventResponse", "EventStream"]


class EventStream:
    """One reader: ``begin``, then ``run``, which ``leave`` undoes."""

    def __init__(self, hub: Hub, bounds: Bounds, counters: Counters, pattern: str) -> None:
        self.outbox = Outbox(EVENTS, bounds.queue_bytes)
        self._hub = hub
        self._bounds = bounds
        self._counters = counters
        self._feed = Feed(0, pattern)
        self._wake = trio.Event()

    def offer(self, data: bytes, messages: int) -> bool:
        return False  # what goes out waits for hypercorn to ask for it

    def kick(self) -> None:
        self._wake.set()

    async def begin(self) -> None:
        """Return once the subscription is live. Raises what subscribing raises."""
        await self._hub.join(self._feed, self, lambda: None)

    async def run(self, send: Callable[[bytes], Awaitable[None]], still: Callable[[], bool]) -> None:
        """Send events until cancelled, or ``still`` says that they may be read no longer."""
        said = trio.current_time()
        try:
            await send(b": live\n\n")
            while still():
                with trio.move_on_after(1.0) as waited:
                    await self._wake.wait()
                if not waited.cancelled_caught:
                    self._wake = trio.Event()
                    while data := self.outbox.take():
                        await send(data)
                elif trio.current_time() - said > self._bounds.ping_every:
                    await send(b": alive\n\n")
                else:
                    continue
                said = trio.current_time()
        finally:
            self.leave()

    def leave(self) -> None:
        """No more events: what was sent and dropped is counted."""
        self._hub.leave(self._feed)
        self._counters.sent += self.outbox.taken
        self._counters.dropped += self.outbox.dropped
        self.outbox.taken = self.outbox.dropped = 0


class EventResponse(Response):
    """The answer that does not end, but with the reader or its right to read. (Starlette's own for streams leaves an
    iterator that is not finished to the garbage collector: the subscription would live on until then.)"""

    media_type = "text/event-stream"

    def __init__(self, stream: EventStream, still: Callable[[], bool]) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._stream = stream
        self._still = still

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def part(data: bytes, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await self._stream.run(part, self._still)
        await part(b"", more=False)
