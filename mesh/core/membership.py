"""Is a peer alive: one small state machine for each peer, told the time.

    ALIVE --silence--> PROBED --no answer--> SUSPECT --nobody hears it--> GONE
      ^------------------ anything heard ----------'

Any traffic is a keepalive, so that only a silent peer costs a question.  The machine
does nothing itself: ``poll`` says what the engine should do, ``due`` when to ask
again.  (The split of timing from timers is memberlist's ``suspicion.go``.)

A suspect is asked for through others, several times (SWIM: Das, Gupta, Motivala, 2002): ``vouched`` says that one of
them hears it, so that it is our way to it that is broken, and gives it more time, within a bound.

Silence that this node could not have heard accuses nobody: ``excuse`` if it was asleep, ``shift`` if it was
kept from running for a moment.  ``LocalHealth`` remembers that, and gives answers more time while
we ourselves are unwell (Lifeguard: Dadgar, Phillips, Currey, 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

__all__ = ["Action", "Liveness", "LivenessState", "LocalHealth", "Timing"]

ROUNDS: Final = 4
"""Others are asked about a suspect so many times in the time that it has: one lost question decides nothing."""

VOUCHED: Final = 3
"""A suspect that others hear has at most so many times the patience of one that nobody hears: whom we cannot reach for
that long is not of our mesh, whatever is said of it, and who says so may lie."""


class LivenessState(Enum):
    ALIVE = auto()
    PROBED = auto()
    SUSPECT = auto()
    GONE = auto()


class Action(Enum):
    """What ``poll`` asks for."""

    PROBE = auto()  # ask the peer
    ACCUSE = auto()  # it has become suspect; ask again, and ask others
    ASK = auto()  # it still is; ask it and others once more
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

    __slots__ = ("_end", "_last", "_patience", "_timing", "due", "heard_at", "state")

    def __init__(self, timing: Timing, clock: float) -> None:
        self._timing = timing
        self._patience = timing.probe_after  # how long the present state lasts
        self.due = clock + self._patience
        """When ``poll`` is worth a call; infinity once gone. (Read for all peers at every step: no call.)"""
        self.heard_at = clock
        self.state = LivenessState.ALIVE
        self._end = self._last = float("inf")  # of a suspect's time, as it stands, and at the most

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
        if self.state is LivenessState.SUSPECT:
            self._judge_by(clock)

    def shift(self, seconds: float) -> None:
        """We ourselves did not run for so long: it has that much more time to answer."""
        self.due += seconds
        self._end += seconds
        self._last += seconds

    def challenge(self, clock: float, patience: float) -> None:
        """There is reason to think that it is gone: it has been asked, and has so long to answer."""
        if self.state is LivenessState.ALIVE:
            self.state = LivenessState.PROBED
            self._patience = patience
            self.due = clock + patience

    def vouched(self, clock: float) -> None:
        """Somebody else has heard it just now."""
        if self.state is LivenessState.SUSPECT:
            self._end = max(self._end, min(clock + self._timing.gone_after, self._last))

    def poll(self, clock: float, early: float = 0.0, stretch: float = 1.0) -> Action | None:
        """The action that is due, having changed the state accordingly; None if nothing is.

        A probe may come up to ``early`` seconds before its time, together with others; its answer may take ``stretch``
        times as long as it may when this node is well.
        """
        if clock < (self.due - early if self.state is LivenessState.ALIVE else self.due):
            return None
        if self.state is LivenessState.SUSPECT and clock < self._end:
            self.due = min(clock + self._patience, self._end)
            return Action.ASK
        self.state, action, lasting = _NEXT[self.state]
        self._patience = getattr(self._timing, lasting) if lasting else float("inf")
        if action is Action.PROBE:
            self._patience *= stretch
        elif action is Action.ACCUSE:
            self._judge_by(clock)
        self.due = clock + self._patience
        return action

    def _judge_by(self, clock: float) -> None:
        """A suspect's time begins."""
        self._patience = self._timing.gone_after / ROUNDS
        self.due = clock + self._patience
        self._end = clock + self._timing.gone_after
        self._last = clock + self._timing.gone_after * VOUCHED


class LocalHealth:
    """How well this node itself runs: the time by which it was late, of late, halved every ``_CALM`` seconds.

    It is measured in ``unit`` s, the time that a probe's answer has.
    """

    _WORST: Final = 4.0  # who is starved for good still notices the dead, five times later
    _CALM: Final = 5.0  # seconds: load comes in bursts of that order

    def __init__(self, unit: float) -> None:
        self._unit = unit
        self._late = 0.0
        self._at = 0.0

    def late(self, seconds: float, clock: float) -> None:
        """It ran that much later than it should have."""
        self._late = min(self._now(clock) + seconds / self._unit, self._WORST)
        self._at = clock

    def _now(self, clock: float) -> float:
        return self._late * 0.5 ** ((clock - self._at) / self._CALM) if self._late else 0.0

    def stretch(self, clock: float) -> float:
        """How many times as long as usual an answer may take: 1 when all is well."""
        return 1.0 + self._now(clock)
