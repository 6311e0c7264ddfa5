"""Server-sent events: a subscription as an HTTP answer that does not end.

event: message          data: {"topic", "value", "sender", "sequence", "timestamp"}
event: dropped          data: {"count"}: the reader was too slow for so many
: alive                 a comment now and then, so that proxies keep the connection
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import trio

from bridges.web.bounds import Bounds
from bridges.web.counters import Counters
from bridges.web.encoding import EVENTS
from bridges.web.hub import Hub
from bridges.web.outbox import Feed, Outbox

__all__ = ["EventStream"]


class EventStream:
    """One reader. ``events`` are the bytes of its answer."""

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

    async def events(self, still: Callable[[], bool]) -> AsyncIterator[bytes]:
        """What to send, until the reader goes or ``still`` says that it may read no longer."""
        try:
            yield b": live\n\n"
            while still():
                with trio.move_on_after(1.0) as waited:
                    await self._wake.wait()
                if waited.cancelled_caught:
                    if trio.current_time() - self._said > self._bounds.ping_every:
                        yield self._alive()
                    continue
                self._wake = trio.Event()
                while data := self.outbox.take():
                    yield data
                self._said = trio.current_time()
        finally:
            self._hub.leave(self._feed)
            self._counters.sent += self.outbox.taken
            self._counters.dropped += self.outbox.dropped

    _said = 0.0

    def _alive(self) -> bytes:
        self._said = trio.current_time()
        return b": alive\n\n"
