"""A bridge: one broker, its routes, and the connection that comes and goes.

    open_bridge → spool, siblings, subscriptions (live from here on)
                → supervised: ``Broker.run`` → session → every route's work on it → lost → backoff → again

Whatever a broker or a message does, the bridge goes on; what ends it is the end of its block.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import trio

import mesh
from bridges.asking import Asked, Asking
from bridges.base import BrokerError, BrokerRejected, BrokerUnavailable, Kind, Session
from bridges.behind import behind
from bridges.config import read_bridge
from bridges.counters import BridgeState, BridgeStatistics, RouteCounters
from bridges.crossing import Inward, Outward
from bridges.exporting import Export, route_key
from bridges.importing import Import
from bridges.kinds import kind_named
from bridges.letters import DeadLetters
from bridges.settings import BridgeSettings
from bridges.siblings import Siblings
from bridges.slots import open_spool
from bridges.spool import Spool
from mesh.errors import ConfigError

__all__ = ["Bridge", "check_bridge", "open_bridge"]

log = logging.getLogger("mesh.bridges")

BACKOFF: Final = (0.1, 10.0)
"""Seconds between two tries to connect: a restarted broker is found soon, a missing one costs nothing."""

_STEADY: Final = 5.0
"""Seconds of a connection after which the next try is quick again."""

_DRAIN: Final = 2.0
"""Seconds for what was taken from the mesh to reach the broker when the bridge is closed."""


def identity_of(node: mesh.Node, settings: BridgeSettings) -> str:
    """16 hex digits: the same for all bridges of this mesh with this name and broker, and for no others."""
    text = "\0".join((settings.kind, settings.name, str(settings.address)))
    return blake2b(text.encode(), key=node.derive_key("bridge"), digest_size=8).hexdigest()


class Bridge:
    """A running bridge. Made by ``open_bridge``."""

    def __init__(self, node: mesh.Node, settings: BridgeSettings, kind: Kind, spool: Spool | None) -> None:
        self.settings = settings
        self.name = settings.name
        self.identity = identity_of(node, settings)
        self.state: BridgeState = "starting"
        self.why = ""
        self._node = node
        self._spool = spool
        self._broker = kind.make(settings, self.identity)
        self._connections = 0
        self._session: Session | None = None
        self._changed = trio.Event()
        reliable = [route for route in settings.exports if route.reliable and not route.request]
        self._siblings = Siblings(
            node, self.identity, map(route_key, reliable), self._marked, self._leader_may_have_changed
        )
        names = [each.name for each in settings.exports] + [each.name for each in settings.imports]
        counters = [RouteCounters(self.name, name) for name in names]
        self._counters = tuple(counters)
        self._exports: list[Export] = []
        self._asked: list[Asked] = []
        for export, counter in zip(settings.exports, counters, strict=False):
            outward = Outward(export, kind, self.identity, node.vault)
            if export.request:
                self._asked.append(Asked(export, outward, counter))
            else:
                kept = spool if export.reliable else None
                letters = None
                if export.dead_letter:
                    where = f"bridge {self.name}: {export.name}"
                    letters = DeadLetters(node, export.dead_letter, self.identity, where)
                self._exports.append(Export(export, outward, self._siblings, counter, kept, letters))
        self._imports: list[Import | Asking] = []
        for route, counter in zip(settings.imports, counters[len(settings.exports) :], strict=True):
            inward = Inward(route, self.identity, node.vault)
            if route.request:
                self._imports.append(Asking(node, route, inward, counter))
            else:
                self._imports.append(Import(node, route, inward, self._siblings, counter))

    # -- seen from outside -----------------------------------------------------------------

    @property
    def leads(self) -> bool:
        """Of the bridges of this name and broker in this mesh, this is the one that moves messages."""
        return self._siblings.leads

    async def wait_for(self, state: BridgeState) -> None:
        """Return when the bridge is in this state."""
        while self.state != state:
            await self._changed.wait()

    async def wait_live(self) -> None:
        """Return when this bridge is the one that moves messages, and every route of it does."""
        await self._siblings.wait_leading()
        for route in self._imports:
            await route.live.wait()

    def statistics(self) -> BridgeStatistics:
        """A frozen snapshot."""
        hindrance = "" if self._session is None else self._session.hindrance
        return BridgeStatistics(
            name=self.name,
            kind=self.settings.kind,
            address=str(self.settings.address),
            identity=self.identity,
            state="blocked" if hindrance else self.state,
            why=hindrance or self.why,
            leads=self._siblings.leads,
            siblings=self._siblings.present,
            connections=self._connections,
            spool=None if self._spool is None else self._spool.statistics(),
            routes=tuple(counters.snapshot() for counters in self._counters),
        )

    # -- running ---------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Started when the mesh's side is live, whatever the broker does."""
        try:
            async with trio.open_nursery() as nursery:
                if self._spool is not None:
                    nursery.start_soon(self._spool.run)
                await nursery.start(self._siblings.run)
                for export in self._exports:
                    await nursery.start(export.take_in, self._node)
                    if export.reliable:
                        nursery.start_soon(export.tidy)
                nursery.start_soon(self._supervised)
                task_status.started()
        finally:
            self._become("closed", self.why)

    async def _supervised(self) -> None:
        await mesh.supervise(
            self._connection,
            name=f"bridge {self.name}",
            restart="always",
            max_restarts=sys.maxsize,  # a broker may be away for a weekend
            within=_STEADY,
            backoff=BACKOFF,
        )

    async def _connection(self) -> None:
        """One connection, from first to last. Raises ``BrokerError`` when it is over."""
        try:
            async with trio.open_nursery() as nursery:
                session = await nursery.start(self._broker.run)
                self._connections += 1
                self._become("connected", "")
                log.info("bridge %s: connected to %s", self.name, self.settings.address)
                self._use(session)
                for work in self._work(session):
                    nursery.start_soon(work)
        except BaseExceptionGroup as group:
            leaves = list(_leaves(group))
            cancelled = [each for each in leaves if isinstance(each, trio.Cancelled)]
            errors = [each for each in leaves if isinstance(each, BrokerError)]
            if len(errors) + len(cancelled) < len(leaves):
                self._lost("away", f"failed: {group!r}")
                raise
            if cancelled:  # what broke while everything was being taken down says nothing
                raise cancelled[0] from None
            error = _plainest(errors)
            self._lost("refused" if isinstance(error, BrokerRejected) else "away", str(error))
            raise error from None
        finally:
            self._use(None)

    def _work(self, session: Session) -> Iterator[Callable[[], Awaitable[None]]]:
        """What is done on a connection, as long as it lasts."""
        for export in self._exports:
            yield export.until_broken
            if export.reliable:
                yield lambda export=export: export.send_out(session)  # type: ignore[misc]
        for asked in self._asked:
            yield lambda asked=asked: asked.run(self._node, session)  # type: ignore[misc]
        for each in self._imports:
            yield lambda each=each: each.run(session)  # type: ignore[misc]

    def _use(self, session: Session | None) -> None:
        self._session = session
        for export in self._exports:
            export.connected(session)
        self._siblings.connected(session is not None)

    def _lost(self, state: BridgeState, why: str) -> None:
        if (state, why) != (self.state, self.why):
            log.warning("bridge %s: %s: %s; trying again", self.name, self.settings.address, why)
        self._become(state, why)

    def _become(self, state: BridgeState, why: str) -> None:
        self.state, self.why = state, why
        self._changed.set()
        self._changed = trio.Event()

    def _marked(self, route: str) -> None:
        for export in self._exports:
            if export.key == route:
                export.marked()

    def _leader_may_have_changed(self) -> None:
        for export in self._exports:
            export.wake()

    async def drain(self) -> None:
        """Return when what the mesh has delivered so far is at the broker, or lies in the spool if it is away."""
        for export in self._exports:
            await export.drain(lambda: self.state == "connected" and self._siblings.leads)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)
        else:
            yield each


def _plainest(errors: Sequence[BrokerError]) -> BrokerError:
    """Of several the one that says no, rather than that nobody is there."""
    return min(errors, key=lambda error: isinstance(error, BrokerUnavailable))


def _settings(given: BridgeSettings | Mapping[str, Any], kind: Kind | None) -> tuple[BridgeSettings, Kind]:
    named = kind_named if kind is None else lambda name: kind
    settings = given if isinstance(given, BridgeSettings) else read_bridge(given, kind_named=named)
    return settings, named(settings.kind)


@asynccontextmanager
async def open_bridge(
    node: mesh.Node,
    settings: BridgeSettings | Mapping[str, Any],
    *,
    spool_folder: Path | None = None,
    kind: Kind | None = None,
) -> AsyncIterator[Bridge]:
    """A bridge on this node, for as long as the block lasts.

    ``settings`` is what ``[[bridge]]`` holds, as a mapping or read already (``read_bridge``).
    Entering returns when what the mesh publishes is taken; the broker may still be away.  Leaving brings what was
    taken to the broker, for a bounded time; on reliable routes the rest waits in the spool.

    ``spool_folder`` is where reliable exports are kept unless the settings name a folder. ``kind`` is for a broker
    of one's own. Raises ``ConfigError``.
    """
    told, its_kind = _settings(settings, kind)
    async with AsyncExitStack() as stack:
        spool = None
        if any(route.reliable and not route.request for route in told.exports):
            folder = told.spool.folder or spool_folder
            if folder is None:
                raise ConfigError("reliable exports need a folder for what waits", key="spool.folder")
            spool = await stack.enter_async_context(
                open_spool(
                    folder,
                    f"{told.name}-{identity_of(node, told)}",
                    limit=told.spool.bytes,
                    when_full=told.spool.full,
                )
            )
        bridge = Bridge(node, told, its_kind, spool)
        stack.enter_context(node.report_bridge(bridge.name, bridge.statistics))

        async def leave(nursery: trio.Nursery) -> None:
            if not nursery.cancel_scope.cancel_called:
                with trio.move_on_after(_DRAIN) as scope:
                    scope.shield = True
                    await bridge.drain()
            nursery.cancel_scope.cancel()

        async with behind(leave) as nursery:
            await nursery.start(bridge.run)
            yield bridge


async def check_bridge(settings: BridgeSettings, *, kind: Kind | None = None) -> None:
    """Connect to the broker and leave again; nothing is moved. Raises ``BrokerError``, ``ConfigError``."""
    told, its_kind = _settings(settings, kind)
    connected = False
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(its_kind.make(told, "0" * 16).run)
            connected = True
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        leaves = list(_leaves(group))
        errors = [each for each in leaves if isinstance(each, BrokerError)]
        if len(errors) < len(leaves):
            raise
        if not connected:  # what a client complains of while it closes is no concern here
            raise _plainest(errors) from None
