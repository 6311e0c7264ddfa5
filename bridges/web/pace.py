"""How fast a client is read: a bucket of tokens that fills at the rate it may have.

One that comes too fast is not refused but read later, which TCP tells it in its own way.
"""

from __future__ import annotations

import trio

__all__ = ["Pace"]


class Pace:
    """``rate`` operations a second, ``burst`` at once after a pause."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._filled = trio.current_time()

    async def wait(self) -> None:
        """Return when it is the next operation's turn."""
        now = trio.current_time()
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate) - 1
        self._filled = now
        if self._tokens < 0:
            await trio.sleep(-self._tokens / self._rate)
