"""What is measured: the one definition that every adapter follows.

*One way*: the publisher sends ``warmup`` and then ``count`` messages of ``size`` bytes as fast as its
public API takes them; the subscriber takes them one by one.  The rate is the subscriber's, from the
end of the warm-up to the last message it got.

*Round trip*: the client sends ``size`` bytes and waits for the same bytes, ``warmup`` + ``count`` times,
one after the other.  Every single time is kept.

*In flight*: the same with 64 requests under way at any time; the rate is of the replies after the warm-up.

*Paced*: the same, one every five milliseconds by a schedule that does not wait.  A time begins when its request was due, so
that a stall counts for every request that it held up (no coordinated omission).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self, get_args

__all__ = [
    "ASKED",
    "FIRST",
    "IN_FLIGHT",
    "KINDS",
    "PACE",
    "SECOND",
    "SINK",
    "SOURCE",
    "Asker",
    "Failed",
    "Kind",
    "Meter",
    "Role",
    "Unsupported",
    "Workload",
]

Kind = Literal["oneway", "roundtrip", "inflight", "paced"]
KINDS: tuple[Kind, ...] = get_args(Kind)
ASKED: tuple[Kind, ...] = ("roundtrip", "inflight", "paced")
"""Kinds with a client and a server."""

IN_FLIGHT = 64
PACE = 5_000_000
"""Nanoseconds from one request to the next of *paced*."""

Role = Literal["publisher", "subscriber", "server", "client"]

FIRST: dict[Kind, Role] = {"oneway": "publisher"} | dict.fromkeys(ASKED, "server")
"""Who binds, and tells the other where."""
SECOND: dict[Kind, Role] = {"oneway": "subscriber"} | dict.fromkeys(ASKED, "client")
SOURCE: dict[Kind, Role] = {"oneway": "publisher"} | dict.fromkeys(ASKED, "client")
"""Who starts when told to."""
SINK: dict[Kind, Role] = {"oneway": "subscriber"} | dict.fromkeys(ASKED, "server")

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
        what, unit = {
            "oneway": ("one way", "messages"),
            "roundtrip": ("round trip", "in sequence"),
            "inflight": (f"{IN_FLIGHT} requests in flight", "replies"),
            "paced": ("round trip by a schedule", "200 a second"),
        }[self.kind]
        return f"{what}, {self.size} B, {self.count:,} {unit}"

    def scaled(self, share: float) -> Self:
        """The same work with fewer messages one way; requests stay as many as they are."""
        if self.kind != "oneway" or share == 1:
            return self
        return replace(self, count=max(1, int(self.count * share)), warmup=max(1, int(self.warmup * share)))

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


Ask = Callable[[bytes], Awaitable[Any]]


class Asker:
    """The client's work of every kind with requests, around one request of a system; in Trio, asyncio or threads."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.data = workload.payload()
        self.times: list[int] = []

    def numbers(self) -> dict[str, Any]:
        """What the client is to tell."""
        return {"times": self.times[self.workload.warmup :]}

    def took(self, began: int, reply: Any) -> None:
        """A request that began then has its reply."""
        self.times.append(time.perf_counter_ns() - began)
        if reply != self.data:
            raise AssertionError("the reply is not what was sent")

    @staticmethod
    def now() -> int:
        """The clock of ``took``, in nanoseconds."""
        return time.perf_counter_ns()

    async def one_by_one(self, ask: Ask, sleep: Callable[[float], Awaitable[Any]]) -> None:
        """*Round trip* and *paced*, in an event loop."""
        due = time.perf_counter_ns()
        for _ in range(self.workload.total):
            if self.workload.kind == "paced":
                due += PACE
                left = due - time.perf_counter_ns()
                if left > 0:
                    await sleep(left / 1e9)
            else:
                due = time.perf_counter_ns()
            self.took(due, await ask(self.data))

    def one_by_one_blocking(self, ask: Callable[[bytes], Any]) -> None:
        """The same in a thread."""
        due = time.perf_counter_ns()
        for _ in range(self.workload.total):
            if self.workload.kind == "paced":
                due += PACE
                left = due - time.perf_counter_ns()
                if left > 0:
                    time.sleep(left / 1e9)
            else:
                due = time.perf_counter_ns()
            self.took(due, ask(self.data))

    async def many(self, ask: Ask) -> None:
        """*In flight*: the work of one of ``IN_FLIGHT`` tasks."""
        for _ in range(self.workload.total // IN_FLIGHT):
            began = time.perf_counter_ns()
            self.took(began, await ask(self.data))
