"""Is a peer alive: one small state machine for each peer, told the time.

    ALIVE --silence--> PROBED --no answer--> SUSPECT --no answer--> GONE
      ^------------------ anything heard ----------'

Any traffic is a keepalive, so that only a silent peer costs a question.  The machine
does nothing itself: ``poll`` says what the engine should do, ``due`` when to ask
again.  (The split of timing from timers is memberlist's ``suspicion.go``.)

``excuse`` is for a node that was itself asleep or stalled: silence that it could
not have heard accuses nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

__all__ = ["Action", "Liveness", "LivenessState", "Timing"]


class LivenessState(Enum):
    ALIVE = auto()
    PROBED = auto()
    SUSPECT = auto()
    GONE = auto()


class Action(Enum):
    """What ``poll`` asks for."""

    PROBE = auto()  # ask the peer
    ACCUSE = auto()  # it has become suspect; ask again
    BURY = auto()  # it is gone


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: silence before a probe, patience for the answer, patience with a suspect."""

    probe_after: float
    probe_timeout: float
    gone_after: float


# state → (the state that follows, what to do then, how long that state lasts)
_NEXT: Final[dict[LivenessState, tuple[LivenessState, Action, str]]] = {
    LivenessState.ALIVE: (LivenessState.PROBED, Action.PROBE, "probe_timeout"),
    LivenessState.PROBED: (LivenessState.SUSPECT, Action.ACCUSE, "gone_after"),
    LivenessState.SUSPECT: (LivenessState.GONE, Action.BURY, ""),
}


class Liveness:
    """The state of one peer. ``clock`` values are monotonic seconds."""

    __slots__ = ("_patience", "_timing", "due", "heard_at", "state")

    def __init__(self, timing: Timing, clock: float) -> None:
        self._timing = timing
        self._patience = timing.probe_after  # how long the present state lasts
        self.due = clock + self._patience
        """When ``poll`` is worth a call; infinity once gone. (Read for all peers at every step: no call.)"""
        self.heard_at = clock
        self.state = LivenessState.ALIVE

    def heard(self, clock: float) -> bool:
        """Something authentic arrived. True if the peer was suspect until now."""
        self.heard_at = clock
        state = self.state
        if state is LivenessState.GONE:
            return False
        if state is not LivenessState.ALIVE:
            self.state = LivenessState.ALIVE
            self._patience = self._timing.probe_after
        self.due = clock + self._patience
        return state is LivenessState.SUSPECT

    def excuse(self, clock: float) -> None:
        """We ourselves were away: begin the current wait anew."""
        self.due = clock + self._patience
        self.heard_at = max(self.heard_at, clock)

    def poll(self, clock: float, early: float = 0.0) -> Action | None:
        """The action that is due, having changed the state accordingly; None if nothing is.

        A probe may come up to ``early`` seconds before its time, together with others.
        """
        if clock < (self.due - early if self.state is LivenessState.ALIVE else self.due):
            return None
        self.state, action, lasting = _NEXT[self.state]
        self._patience = getattr(self._timing, lasting) if lasting else float("inf")
        self.due = clock + self._patience
        return action
