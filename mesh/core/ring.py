"""What a publisher keeps of one topic, to send it again: its latest batches, bounded in bytes.

flush → ``append`` the encoded batch → the oldest fall out → ``cut`` answers who asks for a range of
numbers, with as many whole batches as a budget allows.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final, NamedTuple

__all__ = ["LEAST", "Kept", "Ring"]

LEAST: Final = 64 << 10
"""Bytes of the smallest ring: one full batch."""


class Kept(NamedTuple):
    """One batch, encoded, with its numbers."""

    first: int
    end: int  # the number behind its last message
    batch: bytes


class Ring:
    """The latest batches of a topic: ``limit`` bytes of them, and, unless ``most`` is None, no more than those with
    the last ``most`` messages. ``first`` is the oldest number that is still here."""

    __slots__ = ("_batches", "_bytes", "first", "limit", "most", "next")

    def __init__(self, limit: int, first: int, most: int | None = None) -> None:
        self.limit = limit
        self.most = most
        self.first = self.next = first
        self._batches: deque[Kept] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return self._bytes

    def append(self, count: int, batch: bytes) -> None:
        """The next ``count`` messages, as one encoded batch. The newest batch always fits."""
        self._batches.append(Kept(self.next, self.next + count, batch))
        self.next += count
        self._bytes += len(batch)
        while len(self._batches) > 1 and (
            self._bytes > self.limit
            or (self.most is not None and self.next - self._batches[1].first >= self.most)
        ):
            self._bytes -= len(self._batches.popleft().batch)
        self.first = self._batches[0].first

    def cut(self, first: int, end: int, budget: int) -> list[Kept]:
        """Whole batches that cover what is here of the numbers from ``first`` up to ``end``, in order,
        of at most ``budget`` bytes (but one at the least, if there is any)."""
        batches = self._batches
        if not batches or first >= self.next or end <= self.first:
            return []
        low, high = 0, len(batches)  # the first batch that ends behind ``first``: a deque has no bisect
        while low < high:
            middle = (low + high) // 2
            if batches[middle].end <= first:
                low = middle + 1
            else:
                high = middle
        found: list[Kept] = []
        for kept in islice(batches, low, None):
            budget -= len(kept.batch)
            if kept.first >= end or (found and budget < 0):
                break
            found.append(kept)
        return found
