"""What a discovery mechanism is: something that turns up candidates.

A candidate is a *hint* (``security.md``: a peer is its keys; names, addresses and
records are hints).  Mechanisms run in the node's nursery and hand candidates, already
checked against the mesh's beacon key and bounded, to a callback; the node's
engine decides whom to dial.  Nothing here says that a peer is gone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import trio

from mesh.core.types import NodeId

__all__ = ["Announcement", "Candidate", "Discovery", "Status"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """Somebody who may be a peer.

    ``node`` is None for a seed, of which only the address is known. ``intros`` are
    ZeroMQ endpoints of its intro socket, the likeliest first; ``source`` is the
    mechanism's name.
    """

    node: NodeId | None
    intros: tuple[str, ...]
    source: str


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a mechanism says of this node: its id and its intro endpoints as they are now."""

    node: NodeId
    intros: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """Whether a mechanism works here, for ``mesh doctor`` and the log: ``reason`` says why not."""

    name: str
    active: bool
    reason: str = ""


class Discovery(ABC):
    """One mechanism. ``run`` announces and looks until cancelled.

    ``status`` is its present state; ``rejected`` counts, by a few fixed words, what the network
    sent and was refused.
    """

    name: str
    status: Status
    rejected: Counter[str]

    @abstractmethod
    async def run(
        self,
        announcement: Announcement,
        found: Callable[[Candidate], None],
        *,
        task_status: trio.TaskStatus[Status] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Announce this node and report candidates until cancelled.

        ``found`` is called in the Trio thread. A mechanism that cannot work here reports an
        inactive status and goes on trying quietly; it never raises for the network's sake.
        """

    @abstractmethod
    def update(self, announcement: Announcement) -> None:
        """This node's addresses changed: announce the new ones."""

    @abstractmethod
    def look_again(self) -> None:
        """Ask the network anew (a peer was lost, an interface came up)."""
