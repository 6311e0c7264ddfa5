"""What waits for one client: bounded in bytes, the oldest messages give way, and every one that did is told.

    hub ── ``message`` ──> messages ─┐
    answers ── ``answer`` ─> urgent ─┴─ ``take`` ──> the client's socket

Answers to a client's own operations stand apart: they are few (a client that does not read them is not read
either), they are never dropped, and they pass what waits.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from bridges.web.encoding import Format, Id, encode

__all__ = ["Feed", "Outbox"]


@dataclass(eq=False, slots=True)
class Feed:
    """One subscription of one client. ``missed`` are messages dropped that the client was not yet told of."""

    id: Id
    pattern: str
    missed: int = 0
    closed: bool = False


class Outbox:
    """The queue of one client. ``size`` and, of it, ``urgent`` are in bytes; ``dropped`` and ``taken`` are messages."""

    def __init__(self, form: Format, limit: int) -> None:
        self.form = form
        self.size = 0
        self.urgent = 0
        self.dropped = 0
        self.taken = 0
        self._limit = limit
        self._urgent: deque[bytes] = deque()
        self._messages: deque[tuple[bytes, Feed]] = deque()
        self._behind: dict[Feed, None] = {}

    def __bool__(self) -> bool:
        return bool(self._urgent or self._messages or self._behind)

    @property
    def is_pressed(self) -> bool:
        """Whether it is time to send, before messages have to give way."""
        return self.size > self._limit // 4

    def answer(self, data: bytes) -> None:
        """Something that the client waits for."""
        self._urgent.append(data)
        self.size += len(data)
        self.urgent += len(data)

    def message(self, data: bytes, feed: Feed) -> None:
        """A message of a subscription."""
        size = len(data)
        while self.size + size > self._limit and self._messages:
            old, its = self._messages.popleft()
            self.size -= len(old)
            self.miss(its, 1)
        if self.size + size > self._limit:
            self.miss(feed, 1)
            return
        self._messages.append((data, feed))
        self.size += size

    def miss(self, feed: Feed, count: int) -> None:
        """So many messages of this subscription will never come."""
        self.dropped += count
        if not feed.closed:
            feed.missed += count
            self._behind[feed] = None

    def take(self, most: int = 1 << 18) -> bytes:
        """What is to be sent next: about ``most`` bytes; empty if nothing waits."""
        parts = list(self._urgent)
        self._urgent.clear()
        self.size -= self.urgent
        self.urgent = 0
        for feed in self._behind:
            # In front of what came after the gap; it is said again when more is missed.
            if not feed.closed:
                parts.append(self._told(feed))
            feed.missed = 0
        self._behind.clear()
        messages = self._messages
        size = sum(map(len, parts))
        while messages and size < most:
            data, feed = messages.popleft()
            self.size -= len(data)
            if not feed.closed:
                parts.append(data)
                size += len(data)
                self.taken += 1
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _told(self, feed: Feed) -> bytes:
        if self.form == "events":
            return f'event: dropped\ndata: {{"count":{feed.missed}}}\n\n'.encode()
        return encode({"op": "dropped", "id": feed.id, "count": feed.missed}, self.form)
