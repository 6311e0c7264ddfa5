"""What to do with a peer whose frames are bad: the table of ``security.md``, as a table.

Every bad frame is counted by its reason.  Some reasons, often enough, end the link: an
honest peer does not produce them, and one that does is either broken or hostile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple

from mesh.core.types import Reason

__all__ = ["BACKOFF", "POLICY", "Policy", "Strikes"]

BACKOFF: Final = 30.0
"""Seconds for which a peer that was cut off is not let in again."""


class Policy(NamedTuple):
    """``strikes`` bad frames within ``within`` seconds end the link; ``alert`` makes it an event."""

    strikes: int
    within: float
    alert: bool


_MALFORMED: Final = Policy(strikes=10, within=3600.0, alert=False)

POLICY: Final[Mapping[Reason, Policy]] = {
    Reason.BAD_MAGIC: _MALFORMED,
    Reason.BAD_LENGTH: _MALFORMED,
    Reason.BAD_VERSION: _MALFORMED,
    Reason.BAD_MESSAGE: _MALFORMED,
    Reason.TOO_MANY: _MALFORMED,
    Reason.UNEXPECTED: _MALFORMED,
    Reason.BAD_TAG: Policy(strikes=8, within=60.0, alert=True),
    Reason.BAD_RECORD: Policy(strikes=1, within=60.0, alert=True),
    Reason.WRONG_OWNER: Policy(strikes=1, within=60.0, alert=True),
}
"""Reasons that are not here (old epoch, duplicate, …) are counted and nothing more. So is what a rule denies: rules are
each node's own, and a member that does not know ours is no enemy."""


class Strikes:
    """The bad frames of one peer."""

    __slots__ = ("_windows", "counts")

    def __init__(self) -> None:
        self.counts: Counter[Reason] = Counter()
        self._windows: dict[Reason, tuple[float, int]] = {}

    def add(self, reason: Reason, clock: float) -> Policy | None:
        """Count one. The policy, if with it the peer is out; else None."""
        self.counts[reason] += 1
        policy = POLICY.get(reason)
        if policy is None:
            return None
        began, count = self._windows.get(reason, (clock, 0))
        if clock - began > policy.within:
            began, count = clock, 0
        self._windows[reason] = (began, count + 1)
        return policy if count + 1 >= policy.strikes else None
