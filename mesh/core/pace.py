"""So many a second and no more."""

from __future__ import annotations

__all__ = ["TokenBucket"]


class TokenBucket:
    """At most ``rate`` a second on average, and as many at once. ``clock`` is monotonic seconds."""

    def __init__(self, rate: float, clock: float) -> None:
        self._rate = rate
        self._tokens = rate
        self._filled = clock

    def take(self, clock: float) -> bool:
        """Whether one more is within the rate; if so it is counted."""
        self._tokens = min(self._rate, self._tokens + (clock - self._filled) * self._rate)
        self._filled = clock
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
