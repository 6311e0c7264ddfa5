"""Where the others are: what discovery turns up goes to the engine, and our addresses to discovery.

mechanism → ``found`` → engine's hint.  Interfaces change → ``advertise`` → our signed record, and every
mechanism.  Opening a node ``settle``\\ s: it waits a moment for those whom discovery reports at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import trio

from mesh.config import Config
from mesh.core.engine import Engine
from mesh.discovery.base import Announcement, Candidate, Discovery, Status
from mesh.discovery.interfaces import advertised, watch
from mesh.node.presence import Presence
from mesh.transport.base import Bound

__all__ = ["Lookout"]


class Lookout:
    """The discovery of one node. ``apply`` carries out what the engine wants done."""

    def __init__(self, engine: Engine, presence: Presence, config: Config, apply: Callable[[], None]) -> None:
        self._engine = engine
        self._presence = presence
        self._config = config
        self._apply = apply
        self._bound = Bound(())
        self._heard_of = False  # anybody at all
        self._settled = trio.Event()
        self.mechanisms: list[Discovery] = []
        self.status: dict[str, Status] = {}

    @trio.lowlevel.enable_ki_protection
    async def run(
        self,
        bound: Bound,
        mechanisms: Sequence[Discovery],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Announce what was bound, and look, until cancelled."""
        self._bound = bound
        self.mechanisms = list(mechanisms)
        self._advertise()
        async with trio.open_nursery() as nursery:
            for mechanism in self.mechanisms:
                nursery.start_soon(self._begin, nursery, mechanism)
            nursery.start_soon(watch, lambda _: self._advertise())
            task_status.started()

    @trio.lowlevel.enable_ki_protection
    async def _begin(self, nursery: trio.Nursery, mechanism: Discovery) -> None:
        if mechanism.name == "mdns" and any(other.name == "scout" for other in self.mechanisms):
            # The scout is quicker by far, and zeroconf keeps a core busy while it starts: not meanwhile.
            await self._settled.wait()
        self.status[mechanism.name] = await nursery.start(mechanism.run, self._announcement(), self._found)

    def _found(self, candidate: Candidate) -> None:
        self._engine.hint(
            candidate.node, candidate.intros, trio.current_time(), permanent=candidate.source == "seeds"
        )
        self._apply()
        if candidate.node != self._engine.node:
            self._heard_of = True
            self._presence.changed.unpark_all()

    def _advertise(self) -> None:
        """Our addresses as they are now: into the record, and to discovery."""
        addresses = advertised(self._bound.addresses, limit=self._config.limits.addresses_per_node)
        if addresses == self._engine.record.addresses:
            return
        self._engine.set_addresses(addresses, trio.current_time())
        self._presence.own = replace(self._presence.own, endpoints=tuple(a.intro for a in addresses))
        self._apply()
        for mechanism in self.mechanisms:
            mechanism.update(self._announcement())

    def _announcement(self) -> Announcement:
        return Announcement(self._engine.node, tuple(a.intro for a in self._engine.record.addresses))

    async def settle(self) -> None:
        """Wait, for a bounded time, for those whom discovery reports at once."""
        try:
            await self._settle()
        finally:
            self._settled.set()

    async def _settle(self) -> None:
        names = {mechanism.name for mechanism in self.mechanisms}
        if not names:
            return
        quick = self._config.quick_discovery
        if "mdns" in names and "scout" not in names:
            quick = self._config.quick_discovery_mdns
        with trio.move_on_after(quick):
            while not self._anybody():
                await self._presence.changed.park()
        if not self._anybody():
            return
        with trio.move_on_after(self._config.settle_timeout):
            while self._engine.directory.unresolved():
                await self._presence.changed.park()

    def _anybody(self) -> bool:
        """Whether we have heard of somebody, or somebody of us: who hears us first dials us."""
        return self._heard_of or bool(self._engine.links.sessions)
