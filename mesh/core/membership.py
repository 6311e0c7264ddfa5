"""Is a peer alive: one small state machine for each peer, told the time.

    ALIVE --silence--> PROBED --no answer--> SUSPECT --no answer--> GONE
      ^------------------ anything heard ----------'

Any traffic is a keepalive, so that only a silent peer costs a question.  The machine
does nothing itself: ``poll`` says what the engine should do, ``deadline`` when to ask
again.  (The split of timing from timers is memberlist's ``suspicion.go``.)

``excuse`` is for a node that was itself asleep or stalled: silence that it could
not have heard accuses nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

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


# state → (the timing that ends it, the state that follows, what to do then)
_TABLE = {
    LivenessState.ALIVE: ("probe_after", LivenessState.PROBED, Action.PROBE),
    LivenessState.PROBED: ("probe_timeout", LivenessState.SUSPECT, Action.ACCUSE),
    LivenessState.SUSPECT: ("gone_after", LivenessState.GONE, Action.BURY),
}


class Liveness:
    """The state of one peer. ``clock`` values are monotonic seconds."""

    __slots__ = ("_since", "_timing", "heard_at", "state")

    def __init__(self, timing: Timing, clock: float) -> None:
        self._timing = timing
        self._since = clock
        self.heard_at = clock
        self.state = LivenessState.ALIVE

    def heard(self, clock: float) -> bool:
        """Something authentic arrived. True if the peer was suspect until now."""
        self.heard_at = clock
        state = self.state
        if state is LivenessState.ALIVE or state is LivenessState.GONE:
            return False
        self.state = LivenessState.ALIVE
        self._since = clock
        return state is LivenessState.SUSPECT

    def excuse(self, clock: float) -> None:
        """We ourselves were away: begin the current wait anew."""
        self._since = clock
        self.heard_at = max(self.heard_at, clock)

    def deadline(self) -> float:
        """When ``poll`` is worth a call; infinity once gone."""
        entry = _TABLE.get(self.state)
        if entry is None:
            return float("inf")
        patience: float = getattr(self._timing, entry[0])
        start = self.heard_at if self.state is LivenessState.ALIVE else self._since
        return start + patience

    def poll(self, clock: float) -> Action | None:
        """The action that is due, having changed the state accordingly; None if nothing is."""
        entry = _TABLE.get(self.state)
        if entry is None or clock < self.deadline():
            return None
        _, self.state, action = entry
        self._since = clock
        return action
