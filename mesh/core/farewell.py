"""When a peer that said goodbye has really left.

Its goodbye goes over the direct plane and may overtake what it published last, which goes another way. Behind
that comes a frame of its own kind, the last: then it has left, at once. To a node that subscribed to nothing it
sends none, and one may get lost on a pipe that is full or in a connection that breaks. So without one
the peer is kept until nothing of it has come for a moment, for a bounded time:

    goodbye → waiting ──(something arrives: the moment begins anew)──┐
                 │  a moment of silence                              │
                 ▼                                                   │
            a last look, in case that it was this node that ─────────┘
            was too busy to look  │  silence
                                  ▼
                                 over
"""

from __future__ import annotations

from typing import Final

__all__ = ["AWAITED", "MOMENT", "Farewell"]

MOMENT: Final = 0.25
"""Seconds without a publication after which the last one has arrived, where no last frame is to come."""

AWAITED: Final = 2.0
"""The same where one is: so long what it published may still take to go out (``drain_timeout``)."""

_MOST: Final = 5.0
"""Seconds that they may take in all: by then the peer itself has given up, too (``drain_timeout``)."""

_LAST_LOOK: Final = 0.05
"""Seconds that the last look takes."""


class Farewell:
    """The leave of one peer. ``clock`` is monotonic seconds; ``due`` is when to ask whether it is ``over``."""

    __slots__ = ("_by", "_looking", "_moment", "due")

    def __init__(self, clock: float, *, awaited: bool = False) -> None:
        self._moment = AWAITED if awaited else MOMENT
        self._by = clock + _MOST
        self.heard(clock)

    def heard(self, clock: float) -> None:
        """Something of it still arrived."""
        self._looking = False
        self.due = min(clock + self._moment, self._by)

    def over(self, clock: float) -> bool:
        """Whether it has left, asked when that is due; if not, it is due again."""
        if self._looking or clock >= self._by:
            return True
        self._looking = True
        self.due = clock + _LAST_LOOK
        return False
