"""What is missing and worth asking for: one question at a time for each stream, repeated until it is answered.

A ``Reorder`` with a hole → ``watch`` → after a random moment ``Repair`` to the publisher → its answers (``accounts``
and ``catchup`` take them in) → ``watch`` again, until there is no hole.  One that is not told where it begins
is ``overdue`` after a while.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from mesh.core.effects import Effect, SendDirect
from mesh.core.links import Links
from mesh.core.messages import RepairMessage
from mesh.core.reorder import Reorder
from mesh.core.types import NodeId, RandomBytes

__all__ = ["Key", "Repairs"]

_SPREAD: Final = 0.02
"""Seconds within which a hole is first asked for: many may miss the same, and the publisher is one."""

_RETRY: Final = 0.25
"""Seconds after which an unanswered question is repeated, twice as long each time."""

_RETRY_MAX: Final = 2.0

_BEGINNING: Final = 5.0
"""Seconds for which a stream waits to be told where it begins for us. It comes with the echo of a barrier."""


class Key(NamedTuple):
    """A stream, or (``number`` above 0) what one subscription of ours still has to get of it."""

    node: NodeId
    topic: str
    number: int = 0


class Repairs:
    """Every stream that waits for something. ``clock`` is monotonic seconds."""

    def __init__(self, rng: RandomBytes, links: Links, effects: list[Effect], most: int) -> None:
        self._most = most  # bytes of the largest batch that we take
        self._rng = rng
        self._links = links
        self._effects = effects
        self.waiting: dict[Key, Reorder] = {}

    def watch(self, key: Key, reorder: Reorder, clock: float) -> None:
        """See to it that what is missing is asked for."""
        if reorder.next is None:
            if reorder.due == float("inf"):
                reorder.due = clock + _BEGINNING
        elif reorder.hole is None:
            self.forget(key)
            return
        elif key not in self.waiting or reorder.due > clock + _RETRY_MAX or not reorder.begun:
            reorder.begun = True
            reorder.due = clock + _SPREAD * self._rng(1)[0] / 256
        self.waiting[key] = reorder

    def forget(self, key: Key) -> None:
        """Nothing is missing there any more, or nobody wants it."""
        reorder = self.waiting.pop(key, None)
        if reorder is not None:
            reorder.due = float("inf")
            reorder.tries = 0

    def answered(self, key: Key, reorder: Reorder, before: int, clock: float, *, last: bool) -> None:
        """An answer, or a part of one, has been taken in; ``before`` it, ``next`` was that."""
        got_on = reorder.next is not None and reorder.next > before
        if got_on:
            reorder.tries = 0
        self.watch(key, reorder, clock)
        if last and got_on and key in self.waiting:
            self._ask(key, reorder, clock)  # the rest of it

    def _ask(self, key: Key, reorder: Reorder, clock: float) -> None:
        hole = reorder.hole
        session = self._links.sessions.get(key.node)
        if hole is None or session is None or not session.link_open:
            reorder.due = float("inf")  # it is looked at again when the publisher is back
            return
        question = RepairMessage(key.number, key.topic, hole.first, hole.end, self._most)
        self._effects.append(SendDirect(key.node, question))
        reorder.due = clock + min(_RETRY * 2**reorder.tries, _RETRY_MAX)
        reorder.tries = min(reorder.tries + 1, 8)

    def deadline(self) -> float:
        return min((reorder.due for reorder in self.waiting.values()), default=float("inf"))

    def timer(self, clock: float) -> list[Key]:
        """Ask for what is missing (again). Those of which nobody said where they begin are given back."""
        overdue = []
        for key, reorder in list(self.waiting.items()):
            if reorder.due > clock:
                continue
            if reorder.next is None:
                overdue.append(key)
            else:
                self._ask(key, reorder, clock)
        return overdue
