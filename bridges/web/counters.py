"""What the gateway counts. ``metrics`` shows it to Prometheus, ``/api/v1/statistics`` to everybody."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

__all__ = ["Counters", "Histogram"]

ROUND_TRIPS: Final = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
)
"""Upper bounds in seconds: from the loopback to a bad Wi-Fi."""


class Histogram:
    """Observations in buckets; ``counts`` has one more for what is above all bounds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


@dataclass(slots=True)
class Counters:
    """Of one gateway, since it started."""

    connections: int = 0
    """Sockets that are open now."""
    sent: int = 0
    """Messages handed to clients' sockets."""
    dropped: int = 0
    """Messages that a client was too slow for."""
    published: int = 0
    requested: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """What was turned away, by reason."""
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    """HTTP answers by (route, status)."""
    round_trips: Histogram = field(default_factory=lambda: Histogram(ROUND_TRIPS))
