"""What of a partition may be committed: everything before the first message that the mesh does not have yet.

    fetched --take--> in flight --settle, in any order--> settled --commitable--> committed

Kafka keeps one number for a group and partition, the offset to go on from.  Messages settle in whatever order
the mesh takes them, so a partition remembers those in flight and commits up to the oldest.  Offsets have gaps
(compaction, the marks of transactions): nothing here counts on the next one being the next number.

No I/O, no clock, no locks: the consumer's thread alone uses it.
"""

from __future__ import annotations

from collections import deque

__all__ = ["Offsets"]


class Offsets:
    """One partition, for as long as it is assigned to us. ``revoked`` once it is not: nothing is committed then."""

    __slots__ = ("_committed", "_flying", "_next", "_settled", "revoked")

    def __init__(self) -> None:
        self._flying: deque[int] = deque()  # in flight or settled out of order, ascending
        self._settled: set[int] = set()  # those of ``_flying`` that settled before an older one did
        self._next: int | None = None  # where to go on from, once known
        self._committed: int | None = None
        self.revoked = False

    @property
    def in_flight(self) -> int:
        """Messages taken and not settled."""
        return len(self._flying) - len(self._settled)

    @property
    def position(self) -> int | None:
        """The offset to go on from; None as long as nothing settled."""
        return self._next

    def take(self, offset: int) -> None:
        """A message was fetched. Offsets only grow while a partition is assigned."""
        self._flying.append(offset)

    def settle(self, offset: int) -> None:
        """The mesh has it, or it was set aside for good. Settling twice does nothing."""
        flying, settled = self._flying, self._settled
        if not flying or offset < flying[0]:
            return
        settled.add(offset)
        while flying and flying[0] in settled:
            oldest = flying.popleft()
            settled.discard(oldest)
            self._next = oldest + 1

    def commitable(self) -> int | None:
        """The offset to commit; None if that is done already, or not ours to do."""
        return None if self.revoked or self._next == self._committed else self._next

    def committed(self, offset: int) -> None:
        """The broker keeps it."""
        self._committed = offset
