"""The anti-replay window (RFC 6479): each counter of a (key, epoch) is accepted once.

    counter → check → (the frame's tag is verified) → mark

``check`` changes nothing, so that a forged frame cannot move the window; only what
authenticated is marked.  Counters may arrive out of order by up to the window's size.

RFC 6479 keeps a ring of words so as never to shift.  Here one integer holds the counters of the
window that are *missing*: on a link that loses and reorders nothing it stays zero, and
marking the next counter is an addition.
"""

from __future__ import annotations

from typing import Final

from mesh.core.types import Reason

__all__ = ["WINDOW", "ReplayWindow"]

WINDOW: Final = 1024
"""Frames. What a publisher may have in flight on several paths at once, with room to spare."""


class ReplayWindow:
    """Which of the last ``size`` counters have been seen. Takes size / 8 bytes at most."""

    __slots__ = ("_floor", "_mask", "_missing", "_next", "size")

    def __init__(self, size: int = WINDOW) -> None:
        if size < 1:
            raise ValueError("a replay window has at least one place")
        self.size = size
        self._mask = (1 << size) - 1
        self._floor = 0  # nothing below it is ever accepted
        self._next = 0  # one above the highest counter marked
        self._missing = 0  # bit i: the counter ``_next - 1 - i`` was not marked

    @classmethod
    def starting_at(cls, counter: int, *, size: int = WINDOW) -> ReplayWindow:
        """A window whose first acceptable counter is ``counter``; all before it are TOO_OLD."""
        window = cls(size)
        window._floor = window._next = counter
        return window

    @property
    def next(self) -> int:
        """One above the highest counter that was marked."""
        return self._next

    def check(self, counter: int) -> Reason | None:
        """None if ``counter`` may still come; else DUPLICATE or TOO_OLD. Changes nothing."""
        age = self._next - 1 - counter
        if age < 0:
            return None
        if age >= self.size or counter < self._floor:
            return Reason.TOO_OLD
        return None if self._missing >> age & 1 else Reason.DUPLICATE

    def mark(self, counter: int) -> None:
        """The frame with this counter authenticated. What ``check`` refuses changes nothing here."""
        ahead = counter - self._next
        if ahead == 0:
            self._next = counter + 1
            if self._missing:
                self._missing = self._missing << 1 & self._mask
        elif ahead > 0:
            self._next = counter + 1
            if ahead >= self.size:
                self._missing = self._mask ^ 1
            else:
                skipped = (1 << ahead) - 1
                self._missing = (self._missing << ahead | skipped) << 1 & self._mask
        elif -ahead <= self.size:
            self._missing &= ~(1 << (-ahead - 1))
