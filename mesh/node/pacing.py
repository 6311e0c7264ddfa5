"""Publishers that wait for subscribers that ask for it.

``before`` a message is taken in: while the reserve of a window is used up → the message is sent, to everybody → ``after``:
while some window is shut.  So nobody gets a message later because somebody else is slow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import trio

from mesh.core.messages import Batch
from mesh.core.outgoing import Line
from mesh.core.router import Route
from mesh.core.windows import Window, Windows

__all__ = ["Pacing"]


class Paced(Protocol):
    """What is published on one topic, and who is waited for."""

    line: Line
    windows: tuple[Window, ...]


class Pacing:
    """Of one node. ``apply`` carries out what the engine wants done; ``over`` tells that nothing is published any more."""

    def __init__(self, windows: Windows, apply: Callable[[], None], over: Callable[[], bool]) -> None:
        self._windows = windows
        self._apply = apply
        self._over = over
        self._waiting = trio.lowlevel.ParkingLot()

    def of(self, route: Route) -> tuple[Window, ...]:
        """Those who get a topic and are to be waited for."""
        return self._windows.of(route)

    def add(self, paced: Paced, size: int) -> bool:
        """One message more, of so many bytes, is in a batch. Whether that is to go out now."""
        return self._windows.add(paced.windows, paced.line, size)

    def filled(self, paced: Paced, values: list[bytes]) -> None:
        """That batch goes out."""
        self._windows.filled(paced.windows, len(values), sum(map(len, values)))

    def sent(self, paced: Paced, batch: Batch) -> None:
        """A batch goes out now."""
        first, values = batch.sequence, batch.values
        size = sum(map(len, values))
        self._windows.sent(paced.windows, batch.topic, first, first + len(values), size)

    def shut(self, paced: Paced) -> bool:
        """Whether a publisher would have to wait."""
        return bool(paced.windows) and self._shut(paced) is not None

    def _shut(self, paced: Paced) -> Window | None:
        return self._windows.shut(paced.windows, paced.line)

    async def before(self, paced: Paced) -> None:
        """Return when a message may be sent."""
        if paced.windows:
            await self._wait(lambda: self._windows.overfull(paced.windows))

    async def after(self, paced: Paced) -> None:
        """Return when the next one may be published."""
        if paced.windows:
            await self._wait(lambda: self._shut(paced))

    async def _wait(self, find: Callable[[], Window | None]) -> None:
        while not self._over():
            window = find()
            if window is None:
                return
            self._windows.wait(window, trio.current_time())
            try:
                self._apply()
                await self._waiting.park()
            finally:
                self._windows.done(window, trio.current_time())

    def reopened(self) -> None:
        """Some window is open again, or is not waited for any more."""
        self._waiting.unpark_all()
