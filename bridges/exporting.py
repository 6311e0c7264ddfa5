"""Mesh → broker, one route.

not reliable   subscription → mapped → ``send``; while the broker is away or a sibling leads, messages are dropped
               and counted
reliable       subscription → mapped → spool (``take_in``, always)  ┐
               spool → ``send`` → confirmed → removed, marked       ┘ (``send_out``, while connected and leading)

A batch of a reliable route that met ``BrokerUnavailable`` is sent again on the next connection: at least once, in
the order of the spool.  A sibling's marks remove from the spool what it has delivered; what nobody has claimed for
``ORPHANED`` seconds although the bridge is connected is sent by whoever has it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Final

import trio

import mesh
from bridges.base import BATCH, BrokerRejected, BrokerUnavailable, Session
from bridges.counters import RouteCounters
from bridges.crossing import Looped, Outward, topic_hash
from bridges.messages import BrokerMessage
from bridges.records import decode_record, encode_record
from bridges.settings import ExportRoute
from bridges.siblings import Siblings
from bridges.spool import Row, Spool
from bridges.values import Unmappable

__all__ = ["Export", "route_key"]

ORPHANED: Final = 10.0
"""Seconds after which a standby sends what the leader has not told of: it may never have got it."""


_LOOK: Final = 0.01
"""Seconds between two looks whether a bridge that is being closed has finished."""


def route_key(route: ExportRoute) -> str:
    """The route's name among siblings and in spools: the same after its place in the file has changed."""
    text = "\0".join((route.pattern, route.to.text, route.separator, route.format))
    return blake2b(text.encode(), digest_size=8).hexdigest()


class Export:
    """One export route. ``spool`` is there if it is reliable."""

    def __init__(
        self,
        route: ExportRoute,
        outward: Outward,
        siblings: Siblings,
        counters: RouteCounters,
        spool: Spool | None,
    ) -> None:
        self.route = route
        self.key = route_key(route)
        self.counters = counters
        self._outward = outward
        self._siblings = siblings
        self._spool = spool
        self._session: Session | None = None
        self._why_broken = ""
        self._uncertain = 0  # messages of the last batch, if nobody knows whether the broker has them
        self._messages: mesh.Subscription | None = None
        self._busy = False  # a batch is on its way to the broker or the spool
        self._broken = trio.Event()
        self._marked = trio.Event()
        self._wake = trio.Event()

    @property
    def reliable(self) -> bool:
        return self._spool is not None

    def connected(self, session: Session | None) -> None:
        """The connection that there is now."""
        self._session = session
        self._broken = trio.Event()

    async def until_broken(self) -> None:
        """Wait until a send has found the connection broken. Raises ``BrokerUnavailable``."""
        await self._broken.wait()
        raise BrokerUnavailable(self._why_broken)

    def wake(self) -> None:
        """There is something to look at: who leads has changed."""
        self._wake.set()

    def marked(self) -> None:
        """A sibling has told what it delivered."""
        self._marked.set()

    # -- from the mesh -------------------------------------------------------------------

    async def take_in(self, node: mesh.Node, *, task_status: trio.TaskStatus[None]) -> None:
        """Take what the mesh publishes, until cancelled. Started when the subscription is live."""
        async with node.subscribe(self.route.pattern) as messages:
            self._messages = messages
            task_status.started()
            while True:
                self._busy = False
                batch = [await anext(messages)]
                self._busy = True
                try:
                    while len(batch) < BATCH:
                        batch.append(messages.receive_nowait())
                except trio.WouldBlock:
                    pass
                if self._spool is not None:
                    await self._keep(self._spool, batch)
                else:
                    await self._pass_on(batch)

    def _map(self, messages: Sequence[mesh.Message]) -> list[tuple[mesh.Message, BrokerMessage]]:
        mapped = []
        for message in messages:
            try:
                mapped.append((message, self._outward.take(message)))
            except Looped:
                self.counters.looped += 1
            except Unmappable as error:
                self.counters.rejected(error.reason, error.detail)
        return mapped

    async def _keep(self, spool: Spool, batch: Sequence[mesh.Message]) -> None:
        rows = []
        for message, mapped in self._map(batch):
            try:
                record = encode_record(mapped)
            except ValueError as error:
                self.counters.rejected("text", str(error))
                continue
            rows.append(Row(f"{message.sender.id}-{topic_hash(message.topic)}", message.sequence, record))
        if rows:
            before = spool.dropped
            await spool.append(self.key, rows)
            self.counters.dropped("spool", spool.dropped - before)
            self._wake.set()

    async def _pass_on(self, batch: Sequence[mesh.Message]) -> None:
        session = self._session
        if session is None or not self._siblings.leads:
            self.counters.dropped("away" if session is None else "standby", len(batch))
            return
        messages = [mapped for _, mapped in self._map(batch)]
        if not messages:
            return
        try:
            refused = await session.send(self.route, messages)
        except BrokerUnavailable as error:
            self.counters.dropped("away", len(messages))
            self._session = None
            self._why_broken = str(error)
            self._broken.set()
            return
        except BrokerRejected as error:
            self._refused(dict.fromkeys(range(len(messages)), error))
            return
        self._refused(refused)
        self.counters.moved += len(messages) - len(refused)

    # -- to the broker -------------------------------------------------------------------

    async def send_out(self, session: Session) -> None:
        """Empty the spool into the broker, for as long as the connection lasts. Raises ``BrokerUnavailable``."""
        spool = self._spool
        assert spool is not None
        while True:
            self._wake = trio.Event()  # before looking: what comes while we look wakes us
            rows = await spool.peek(self.key, BATCH)
            if not self._siblings.leads:
                longest = time.time() - ORPHANED
                rows = [row for row in rows if row.stored < longest]
            if rows:
                await self._send(session, spool, rows)
                continue
            with trio.move_on_after(ORPHANED):
                await self._wake.wait()

    async def _send(self, session: Session, spool: Spool, rows: Sequence[Row]) -> None:
        messages: list[BrokerMessage] = []
        for row in rows:
            if self._siblings.covered(self.key, row.origin, row.sequence):
                continue
            try:
                messages.append(decode_record(row.payload))
            except ValueError as error:
                self.counters.rejected("spool", str(error))
        if messages:
            if self._uncertain:
                self.counters.repeated += min(self._uncertain, len(messages))
            self._uncertain = len(messages)
            try:
                refused = await session.send(self.route, messages)
            except BrokerRejected as error:
                refused = dict.fromkeys(range(len(messages)), error)
            self._uncertain = 0
            self._refused(refused)
            self.counters.moved += len(messages) - len(refused)
        self._siblings.mark(self.key, _ranges(rows))
        await spool.remove([row.number for row in rows])

    def _refused(self, refused: Mapping[int, BrokerRejected]) -> None:
        for error in refused.values():
            self.counters.rejected(error.reason, error.detail)

    async def drain(self, moving: Callable[[], bool]) -> None:
        """Return when nothing is on its way any more, as far as ``moving`` says that it can go on."""
        while True:
            await trio.sleep(_LOOK)  # first: what was published in this tick is on its way yet
            if not (
                self._busy
                or (self._messages is not None and self._messages.queued)
                or (self._spool is not None and moving() and await self._spool.peek(self.key, 1))
            ):
                return

    async def tidy(self) -> None:
        """Forget what siblings have delivered, connected or not, until cancelled."""
        spool = self._spool
        assert spool is not None
        while True:
            await self._marked.wait()
            self._marked = trio.Event()
            after = 0
            while rows := await spool.peek(self.key, BATCH, after=after):
                covered = [
                    row.number for row in rows if self._siblings.covered(self.key, row.origin, row.sequence)
                ]
                await spool.remove(covered)
                if not covered:
                    break  # what comes behind is younger than all that was told
                after = rows[-1].number


def _ranges(rows: Sequence[Row]) -> dict[str, tuple[int, int]]:
    """Origin → first and last number."""
    ranges: dict[str, tuple[int, int]] = {}
    for row in rows:
        first, last = ranges.get(row.origin, (row.sequence, row.sequence))
        ranges[row.origin] = (min(first, row.sequence), max(last, row.sequence))
    return ranges
