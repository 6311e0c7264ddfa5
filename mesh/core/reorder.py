"""One kept stream of one publisher, put in order on arrival: nothing twice, no hole passed over in silence.

A batch (from the broadcast plane, or repaired over the direct plane) → ``take`` → what can be delivered
now.  What comes behind a hole is held, bounded in bytes a publisher; ``hole`` is the range to ask for.  When the publisher
has it no longer (``gone_below``) or has left (``give_up``) the hole is passed over, and named.

The rules of time, and who is asked, are in ``accounts``.
"""

from __future__ import annotations

from bisect import insort
from typing import Final, NamedTuple, TypeAlias

from mesh.core.messages import Batch

__all__ = ["HELD_BYTES", "Fresh", "Hole", "Reorder", "Room", "Step"]

HELD_BYTES: Final = 8 << 20
"""Bytes of one publisher that are held behind holes. What does not fit is asked for again later."""


class Room:
    """What is held of all streams of one publisher."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 0


class Fresh(NamedTuple):
    """A batch whose turn it is; its first ``skip`` messages were delivered before."""

    batch: Batch
    skip: int


class Hole(NamedTuple):
    """Messages that will never come: numbers from ``first`` up to, not including, ``end``."""

    first: int
    end: int


Step: TypeAlias = Fresh | Hole


def _end(batch: Batch) -> int:
    return batch.sequence + len(batch.values)


def _number(batch: Batch) -> int:
    return batch.sequence


class Reorder:
    """``next`` is the number to be delivered next, None until it is known where the stream begins for us;
    ``end`` the number behind the last one known to exist."""

    __slots__ = ("_held", "_room", "begun", "due", "end", "next", "refused", "tries")

    def __init__(self, begin: int | None, room: Room) -> None:
        self._room = room
        self.next = begin
        self.end = 0 if begin is None else begin
        self._held: list[Batch] = []  # behind the hole, by number
        self.begun = begin is not None  # it has been asked for as one whose beginning is known
        self.refused = 0  # messages that there was no room to hold
        self.due = float("inf")  # when the hole is to be asked for (again)
        self.tries = 0  # without an answer

    @property
    def held(self) -> int:
        """Messages that wait behind a hole."""
        return sum(len(batch.values) for batch in self._held)

    @property
    def hole(self) -> Hole | None:
        """The first range that is missing, as far as is known."""
        if self.next is None or self.next >= self.end:
            return None
        return Hole(self.next, self._held[0].sequence if self._held else self.end)

    def take(self, batch: Batch) -> list[Step]:
        """A batch arrived."""
        end = _end(batch)
        self.end = max(self.end, end)
        if self.next is None or batch.sequence > self.next:
            self._hold(batch)
            return []
        if end <= self.next:
            return []
        steps: list[Step] = [Fresh(batch, self.next - batch.sequence)]
        self.next = end
        return steps + self._follow()

    def announced(self, next_number: int) -> None:
        """The publisher has sent everything below ``next_number``."""
        self.end = max(self.end, next_number)

    def begins(self, number: int) -> int:
        """Where ``begin(number)`` will have it begun, unless it has."""
        if self.next is not None:
            return self.next
        return min(number, self._held[0].sequence) if self._held else number

    def begin(self, number: int) -> list[Step]:
        """Everything from ``number`` on is meant for us (and what came before it and is held, too)."""
        if self.next is not None:
            return []
        self.next = self.begins(number)
        self.end = max(self.end, self.next)
        return self._follow()

    def begin_with_held(self) -> list[Step]:
        """Nobody says where it begins: with what is here."""
        return self.begin(self._held[0].sequence if self._held else self.end)

    def gone_below(self, number: int) -> list[Step]:
        """The publisher keeps nothing below ``number`` any more: pass over what is missing there."""
        self.announced(number)
        steps: list[Step] = []
        while self.next is not None and self.next < number:
            steps += self._pass_over(number)
        return steps

    def drop(self) -> None:
        """Nobody wants it any more."""
        self._room.held -= sum(len(value) for batch in self._held for value in batch.values)
        self._held.clear()

    def give_up(self) -> list[Step]:
        """Nothing more will come: pass over every hole."""
        steps = self.begin_with_held() if self.next is None else []
        return steps + self.gone_below(self.end)

    def _pass_over(self, below: int) -> list[Step]:
        assert self.next is not None
        end = min(below, self._held[0].sequence if self._held else below)
        hole = Hole(self.next, end)
        self.next = end
        return [hole, *self._follow()]

    def _hold(self, batch: Batch) -> None:
        size = sum(map(len, batch.values))
        for held in self._held:
            if held.sequence <= batch.sequence and _end(held) >= _end(batch):
                return  # here already
        if self._room.held + size > HELD_BYTES:
            self.refused += len(batch.values)
            return
        insort(self._held, batch, key=_number)
        self._room.held += size

    def _follow(self) -> list[Step]:
        """What was held and whose turn it is now."""
        assert self.next is not None
        steps: list[Step] = []
        taken = 0
        for batch in self._held:
            if batch.sequence > self.next:
                break
            taken += 1
            self._room.held -= sum(map(len, batch.values))
            if _end(batch) > self.next:
                steps.append(Fresh(batch, self.next - batch.sequence))
                self.next = _end(batch)
        del self._held[:taken]
        return steps
