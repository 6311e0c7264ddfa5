"""Which sightings are worth reporting, and no more of them than a bound. Pure.

The network repeats itself: the same beacon comes on each interface, again with each
question, and as often as somebody cares to replay it. A mechanism passes every verified
sighting through here; what comes out is new, changed, or due again.
"""

from __future__ import annotations

from math import inf
from typing import Final

from mesh.core.types import NodeId
from mesh.discovery.base import Candidate

__all__ = ["Sightings"]

REPEAT: Final = 2.0  # seconds: an unchanged candidate is reported no more often
CHANGES: Final = 4  # changed endpoints of one node within that time; more is a replay of old beacons
FORGET: Final = 120.0  # seconds after which a silent node's place may be given to another


class Sightings:
    """At most ``limit`` nodes, each with the candidate as last reported."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: dict[NodeId, tuple[float, int, Candidate]] = {}  # oldest report first

    def admit(self, candidate: Candidate, clock: float) -> str:
        """ "" if it is to be reported now, else why not: ``repeated``, ``churn`` or ``full``.

        ``clock`` is monotonic, in seconds.
        """
        node = candidate.node
        assert node is not None
        since, changes, last = self._seen.get(node, (-inf, 0, candidate))
        if clock - since >= REPEAT:
            since, changes = clock, 0
        elif set(candidate.intros) <= set(last.intros):
            return "repeated"  # or the part of it that concerns another interface
        elif changes >= CHANGES:
            return "churn"
        else:
            changes += 1
        if self._seen.pop(node, None) is None and len(self._seen) >= self._limit:
            oldest = next(iter(self._seen))
            if clock - self._seen[oldest][0] < FORGET:
                return "full"
            del self._seen[oldest]
        self._seen[node] = (since, changes, candidate)
        return ""

    def known(self) -> tuple[Candidate, ...]:
        """Every candidate as last reported."""
        return tuple(candidate for _, _, candidate in self._seen.values())

    def forget(self) -> None:
        """Report everything anew when it is next seen."""
        self._seen.clear()
