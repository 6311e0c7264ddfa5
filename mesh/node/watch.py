"""Events for programs that watch: a bounded queue for each of them.

``Watches.feed`` → every ``Watch`` that is still held → its program's ``async for``.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterable
from typing import Final, Generic, Self, TypeVar

import trio
from trio.lowlevel import ParkingLot

__all__ = ["Watch", "Watches"]

_KEPT: Final = 4096
"""Events kept for a watcher that does not read: a mesh of 200 restarting a few times."""

Event = TypeVar("Event")


class Watch(Generic[Event]):
    """An async iterator of events.

    A watcher that does not read loses the oldest events; ``dropped`` counts them. It ends
    when the node closes.
    """

    def __init__(self, present: Iterable[Event] = ()) -> None:
        self._events: deque[Event] = deque(present, maxlen=_KEPT)
        self._waiting = ParkingLot()
        self._ended = False
        self.dropped = 0

    def feed(self, event: Event) -> None:
        if len(self._events) == _KEPT:
            self.dropped += 1
        self._events.append(event)
        self._waiting.unpark_all()

    def end(self) -> None:
        self._ended = True
        self._waiting.unpark_all()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        await trio.lowlevel.checkpoint()
        while not self._events:
            if self._ended:
                raise StopAsyncIteration
            await self._waiting.park()
        return self._events.popleft()


class Watches(Generic[Event]):
    """Everybody who watches one kind of event. Who lets go of a watch need not say so."""

    def __init__(self) -> None:
        self._watches: weakref.WeakSet[Watch[Event]] = weakref.WeakSet()

    def add(self, watch: Watch[Event]) -> None:
        self._watches.add(watch)

    def feed(self, event: Event) -> None:
        for watch in list(self._watches):
            watch.feed(event)

    def end(self) -> None:
        for watch in list(self._watches):
            watch.end()
