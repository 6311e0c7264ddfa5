"""What is measured: the one definition that every adapter follows.

*One way*: the publisher sends ``warmup`` and then ``count`` messages of ``size`` bytes as fast as its
public API takes them; the subscriber takes them one by one.  The rate is the subscriber's, from the
end of the warm-up to the last message it got.

*Round trip*: the client sends ``size`` bytes and waits for the same bytes, ``warmup`` + ``count`` times,
one after the other.  Every single time is kept.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

__all__ = ["FIRST", "SECOND", "SINK", "SOURCE", "Failed", "Kind", "Meter", "Role", "Unsupported", "Workload"]

Kind = Literal["oneway", "roundtrip"]
Role = Literal["publisher", "subscriber", "server", "client"]

FIRST: dict[Kind, Role] = {"oneway": "publisher", "roundtrip": "server"}
"""Who binds, and tells the other where."""
SECOND: dict[Kind, Role] = {"oneway": "subscriber", "roundtrip": "client"}
SOURCE: dict[Kind, Role] = {"oneway": "publisher", "roundtrip": "client"}
"""Who starts when told to."""
SINK: dict[Kind, Role] = {"oneway": "subscriber", "roundtrip": "server"}

_STAMPS = 100
"""Times that a subscriber takes in one run: enough to see a stall, too few to cost anything."""


class Failed(Exception):
    """A run that gave no numbers, and why."""


class Unsupported(Exception):
    """This system can't do this workload; the text says why."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One piece of work. ``size`` is in bytes, ``count`` and ``warmup`` in messages or round trips."""

    kind: Kind
    size: int
    count: int
    warmup: int

    @property
    def total(self) -> int:
        return self.warmup + self.count

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.size}"

    @property
    def title(self) -> str:
        what = {"oneway": "one way", "roundtrip": "round trip"}[self.kind]
        unit = {"oneway": "messages", "roundtrip": "in sequence"}[self.kind]
        return f"{what}, {self.size} B, {self.count:,} {unit}"

    def payload(self) -> bytes:
        """What every system carries: bytes that no compression and no text codec makes cheaper."""
        return bytes((index * 167 + 13) & 0xFF for index in range(self.size))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        return cls(**fields)


class Meter:
    """The subscriber's watch. A receive loop costs one comparison a message for it:

    seen, mark = 0, meter.first
    async for _ in messages:
        seen += 1
        if seen == mark:
            mark = meter.stamp(seen)
            if not mark:
                break
    """

    def __init__(self, workload: Workload) -> None:
        self.first = max(1, workload.warmup)
        self._total = workload.total
        self._step = max(1, workload.count // _STAMPS)
        self.stamps: list[tuple[int, int]] = []

    def stamp(self, seen: int) -> int:
        """Note the time; the next number to stop at, 0 when that was the last message."""
        self.stamps.append((seen, time.perf_counter_ns()))
        return min(seen + self._step, self._total) if seen < self._total else 0
