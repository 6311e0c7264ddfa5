"""The fake: discovery within one process, through a hub that stands for the network.

Deterministic: what one member announces the others are told at once, in the order in
which they came. ``isolate`` and ``rejoin`` make a network that some can't be seen on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from mesh.core.types import NodeId
from mesh.discovery.base import Announcement, Candidate, Discovery, Status

__all__ = ["MemoryDiscovery", "MemoryHub"]


@dataclass(eq=False, slots=True)
class _Member:
    announcement: Announcement
    found: Callable[[Candidate], None]


@dataclass(slots=True)
class MemoryHub:
    """Who announces what on this network."""

    _members: list[_Member] = field(default_factory=list)
    _isolated: set[NodeId] = field(default_factory=set)

    def isolate(self, node: NodeId) -> None:
        """Nothing passes to or from this node until ``rejoin``."""
        self._isolated.add(node)

    def rejoin(self, node: NodeId) -> None:
        """Undo ``isolate``. The node isn't told of the others before it or they ask again."""
        self._isolated.discard(node)

    def _enter(self, member: _Member) -> None:
        self._members.append(member)
        self._meet(member)

    def _leave(self, member: _Member) -> None:
        self._members.remove(member)

    def _meet(self, member: _Member) -> None:
        """As a scout's question does: both sides learn of each other."""
        for other in tuple(self._members):
            self._tell(other, member.announcement)
            self._tell(member, other.announcement)

    def _tell(self, member: _Member, announcement: Announcement) -> None:
        pair = {member.announcement.node, announcement.node}
        if len(pair) == 2 and not pair & self._isolated and announcement.intros:
            member.found(Candidate(announcement.node, announcement.intros, MemoryDiscovery.name))


class MemoryDiscovery(Discovery):
    """Discovery through a ``MemoryHub``."""

    name = "memory"

    def __init__(self, hub: MemoryHub) -> None:
        self.status = Status(self.name, active=False, reason="not started")
        self.rejected: Counter[str] = Counter()
        self._hub = hub
        self._member: _Member | None = None

    @trio.lowlevel.enable_ki_protection
    async def run(
        self,
        announcement: Announcement,
        found: Callable[[Candidate], None],
        *,
        task_status: trio.TaskStatus[Status] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        self._member = _Member(announcement, found)
        self.status = Status(self.name, active=True)
        self._hub._enter(self._member)  # the hub is this class's other half
        try:
            task_status.started(self.status)
            await trio.sleep_forever()
        finally:
            self._hub._leave(self._member)
            self._member = None

    def update(self, announcement: Announcement) -> None:
        if self._member is not None:
            self._member.announcement = announcement
            self._hub._meet(self._member)

    def look_again(self) -> None:
        if self._member is not None:
            self._hub._meet(self._member)
