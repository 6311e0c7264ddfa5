"""Deadlines of many things that nearly always end earlier: a heap and one task.

``add`` → the heap → ``run`` sleeps until the earliest → ``expired(what)`` for each that is due.

A cancel scope with a deadline costs a request more than its encoding and decoding together, and hardly any
request lives to see its deadline.  Whoever adds need not take back: what has ended is
skipped when its time comes, and swept out when most of the heap is over.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from heapq import heapify, heappop, heappush
from typing import Final

import trio

__all__ = ["Expiry"]

_SWEEP: Final = 1024
"""Entries below which nothing is swept: they take less memory than a page of a program's code."""


class Expiry:
    """Tells of numbers whose time is up while they stand in ``alive``. Deadlines are in Trio's seconds."""

    def __init__(self, alive: Container[int], expired: Callable[[int], None]) -> None:
        self._alive = alive
        self._expired = expired
        self._heap: list[tuple[float, int]] = []
        self._sweep_at = _SWEEP
        self._wakes_at = float("inf")
        self._wake = trio.Event()

    def __len__(self) -> int:
        """How many entries there are, those of ended things among them."""
        return len(self._heap)

    def add(self, deadline: float, number: int) -> None:
        """``number`` is to be told of at ``deadline``."""
        heap = self._heap
        heappush(heap, (deadline, number))
        if len(heap) > self._sweep_at:
            heap[:] = [entry for entry in heap if entry[1] in self._alive]
            heapify(heap)
            self._sweep_at = 2 * len(heap) + _SWEEP
        if deadline < self._wakes_at:
            self._wakes_at = deadline
            self._wake.set()

    async def run(self) -> None:
        """Tell of what is due, until cancelled."""
        heap = self._heap
        while True:
            self._wake = trio.Event()
            now = trio.current_time()
            while heap and heap[0][0] <= now:
                _, number = heappop(heap)
                if number in self._alive:
                    self._expired(number)
            self._wakes_at = heap[0][0] if heap else float("inf")
            with trio.move_on_at(self._wakes_at):
                await self._wake.wait()
