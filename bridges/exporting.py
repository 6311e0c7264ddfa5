"""Mesh → broker, one route.

not reliable   subscription → mapped → ``begin`` … outcome; while the broker is away or a sibling leads, messages are
               dropped and counted
reliable       subscription → mapped → spool (``take_in``, always)                  ┐
               spool → ``begin`` … outcome → removed, marked (``send_out``, while   ┘ connected and leading)

Up to ``DEPTH`` batches are under way at once, handed over and settled in order.  Those of a reliable route that met
``BrokerUnavailable`` are sent again on the next connection: at least once, in the order of the spool.  A sibling's
marks remove from the spool what it has delivered; what nobody has claimed for ``ORPHANED`` seconds although the bridge
is connected is sent by whoever has it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

import trio

import mesh
from bridges.base import BATCH, BrokerRejected, BrokerUnavailable, Outcome, Session
from bridges.counters import RouteCounters
from bridges.crossing import Looped, Outward, origin_of
from bridges.letters import DeadLetters
from bridges.messages import BrokerMessage
from bridges.records import Entry
from bridges.settings import ExportRoute
from bridges.siblings import Siblings
from bridges.spool import Packet, Spool

__all__ = ["Export", "route_key"]

DEPTH: Final = 16
"""Batches under way at once: what hides the time that a broker takes to confirm one, in a few MiB mostly."""

ORPHANED: Final = 10.0
"""Seconds after which a standby sends what the leader has not told of: it may never have got it."""


_LOOK: Final = 0.01
"""Seconds between two looks whether a bridge that is being closed has finished."""


def route_key(route: ExportRoute) -> str:
    """The route's name among siblings and in spools: the same after its place in the file has changed."""
    text = "\0".join((route.pattern, route.to.text, route.separator, route.format))
    return blake2b(text.encode(), digest_size=8).hexdigest()


class _UnderWay(NamedTuple):
    """A batch that was handed over."""

    session: Session
    messages: Sequence[BrokerMessage]
    outcome: Outcome
    packets: Sequence[Packet] = ()
    """Where it comes from, if from the spool."""


class Export:
    """One export route. ``spool`` is there if it is reliable, ``letters`` if it has a place for dead ones."""

    def __init__(
        self,
        route: ExportRoute,
        outward: Outward,
        siblings: Siblings,
        counters: RouteCounters,
        spool: Spool | None,
        letters: DeadLetters | None,
    ) -> None:
        self.route = route
        self.key = route_key(route)
        self.counters = counters
        self._outward = outward
        self._siblings = siblings
        self._spool = spool
        self._letters = letters
        self._session: Session | None = None
        self._why_broken = ""
        self._doubtful = 0  # up to this packet, nobody knows whether the broker has what is left
        self._messages: mesh.Subscription | None = None
        self._busy = False  # a batch is on its way to the broker or the spool
        self._under_way = 0  # batches that were handed over
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
        begun, under_way = trio.open_memory_channel[_UnderWay](DEPTH)
        # A full spool that blocks holds the publishers back, as far as their patience goes.
        overflow = "backpressure" if self._spool is not None and self._spool.blocks else "drop_oldest"
        async with (
            node.subscribe(self.route.pattern, overflow=overflow) as messages,
            trio.open_nursery() as nursery,
        ):
            self._messages = messages
            nursery.start_soon(self._follow, under_way)
            task_status.started()
            while True:
                batch: list[mesh.Message] = []
                try:
                    self._busy = False
                    batch.append(await anext(messages))
                    self._busy = True
                    while len(batch) < BATCH:
                        batch.append(messages.receive_nowait())
                except trio.WouldBlock:
                    pass
                except mesh.CutOff as gap:
                    self.counters.dropped("cut off", gap.dropped)
                    if not batch:
                        continue
                if self._spool is not None:
                    await self._take(self._spool, batch)
                else:
                    await self._pass_on(batch, begun)

    async def _map(
        self, batch: Sequence[mesh.Message]
    ) -> tuple[Sequence[mesh.Message], Sequence[BrokerMessage]]:
        """Those that can cross, and what they are at the broker."""
        mapped, faults = self._outward.take(batch)
        if not faults:
            return batch, mapped
        for place, fault in faults.items():
            if isinstance(fault, Looped):
                self.counters.looped += 1
                continue
            self.counters.rejected(fault.reason, fault.detail)
            if self._letters is not None and self._siblings.leads:
                self._buried(await self._letters.unmappable(batch[place], str(fault)))
        return [message for place, message in enumerate(batch) if place not in faults], mapped

    async def _take(self, spool: Spool, batch: Sequence[mesh.Message]) -> None:
        entries: list[Entry] = []
        topic = sender = None
        origin = ""
        for message, mapped in zip(*await self._map(batch), strict=True):
            if message.topic is not topic or message.sender is not sender:
                topic, sender, origin = message.topic, message.sender, origin_of(message)
            entries.append((origin, message.sequence, mapped))
        if entries:
            before = spool.dropped
            await self._keep(spool, entries)
            self.counters.dropped("spool", spool.dropped - before)
            self._wake.set()

    async def _keep(self, spool: Spool, entries: Sequence[Entry]) -> None:
        try:
            await spool.append(self.key, entries)
        except ValueError as error:
            if len(entries) == 1:
                self.counters.rejected("text", str(error))
                return
            for entry in entries:  # one of them
                await self._keep(spool, [entry])

    async def _pass_on(self, batch: Sequence[mesh.Message], begun: trio.MemorySendChannel[_UnderWay]) -> None:
        session = self._session
        if session is None or not self._siblings.leads:
            self.counters.dropped("away" if session is None else "standby", len(batch))
            return
        _, messages = await self._map(batch)
        if not messages:
            return
        try:
            outcome = await session.begin(self.route, messages)
        except BrokerUnavailable as error:
            self._lost(session, len(messages), error)
        except BrokerRejected as error:
            await self._settled(messages, dict.fromkeys(range(len(messages)), error))
        else:
            self._under_way += 1
            await begun.send(_UnderWay(session, messages, outcome))

    async def _follow(self, under_way: trio.MemoryReceiveChannel[_UnderWay]) -> None:
        """What became of each batch of a route that is not reliable."""
        async for session, messages, outcome, _ in under_way:
            try:
                refused = await outcome()
            except BrokerUnavailable as error:
                self._lost(session, len(messages), error)
            except BrokerRejected as error:
                await self._settled(messages, dict.fromkeys(range(len(messages)), error))
            else:
                await self._settled(messages, refused)
            self._under_way -= 1

    def _lost(self, session: Session, messages: int, error: BrokerUnavailable) -> None:
        self.counters.dropped("away", messages)
        if self._session is session:
            self._session = None
            self._why_broken = str(error)
            self._broken.set()

    # -- to the broker -------------------------------------------------------------------

    async def send_out(self, session: Session) -> None:
        """Empty the spool into the broker, for as long as the connection lasts. Raises ``BrokerUnavailable``."""
        spool = self._spool
        assert spool is not None
        begun, under_way = trio.open_memory_channel[_UnderWay](DEPTH)
        sent = 0
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._settle, spool, under_way)
                while True:
                    self._wake = trio.Event()  # before looking: what comes while we look wakes us
                    packets = await spool.next(self.key, sent, BATCH)
                    if not self._siblings.leads:
                        longest = time.time() - ORPHANED
                        packets = [packet for packet in packets if packet.stored < longest]
                    if packets:
                        messages = self._unclaimed(packets)
                        sent = packets[-1].number
                        await begun.send(await self._begin(session, packets, messages))
                        continue
                    with trio.move_on_after(ORPHANED):
                        await self._wake.wait()
        finally:
            self._doubtful = max(self._doubtful, sent)

    def _unclaimed(self, packets: Sequence[Packet]) -> list[BrokerMessage]:
        """The messages that no sibling has delivered."""
        messages: list[BrokerMessage] = []
        told = self._siblings.told(self.key)
        for packet in packets:
            if packet.fault:
                self.counters.rejected("spool", packet.fault)
            if told:
                mine = [
                    message
                    for origin, number, message in packet.entries
                    if not self._siblings.covered(self.key, origin, number)
                ]
            else:
                mine = [message for _, _, message in packet.entries]
            if packet.number <= self._doubtful:
                self.counters.repeated += len(mine)
            messages += mine
        return messages

    async def _begin(
        self, session: Session, packets: Sequence[Packet], messages: Sequence[BrokerMessage]
    ) -> _UnderWay:
        refused: dict[int, BrokerRejected] = {}
        if messages:
            try:
                return _UnderWay(session, messages, await session.begin(self.route, messages), packets)
            except BrokerRejected as error:
                refused = dict.fromkeys(range(len(messages)), error)

        async def outcome() -> Mapping[int, BrokerRejected]:
            return refused

        return _UnderWay(session, messages, outcome, packets)

    async def _settle(self, spool: Spool, under_way: trio.MemoryReceiveChannel[_UnderWay]) -> None:
        """What became of each batch of a reliable route. Raises ``BrokerUnavailable``."""
        async for _, messages, outcome, packets in under_way:
            try:
                refused = await outcome()
            except BrokerRejected as error:
                refused = dict.fromkeys(range(len(messages)), error)
            await self._settled(messages, refused)
            for packet in packets:
                self._siblings.mark(self.key, packet.ranges)
            spool.remove([packet.number for packet in packets])

    # -- both ----------------------------------------------------------------------------

    async def _settled(
        self, messages: Sequence[BrokerMessage], refused: Mapping[int, BrokerRejected]
    ) -> None:
        self.counters.moved += len(messages) - len(refused)
        for place, error in refused.items():
            self.counters.rejected(error.reason, error.detail)
            if self._letters is not None:
                self._buried(await self._letters.refused(messages[place], str(error)))

    def _buried(self, well: bool) -> None:
        if well:
            self.counters.dead_letters += 1

    async def drain(self, moving: Callable[[], bool]) -> None:
        """Return when nothing is on its way any more, as far as ``moving`` says that it can go on."""
        while True:
            await trio.sleep(_LOOK)  # first: what was published in this tick is on its way yet
            if not (
                self._busy
                or self._under_way
                or (self._messages is not None and self._messages.queued)
                or (self._spool is not None and moving() and await self._spool.next(self.key, 0, 1))
            ):
                return

    async def tidy(self) -> None:
        """Forget what siblings have delivered, connected or not, until cancelled."""
        spool = self._spool
        assert spool is not None
        while True:
            await self._marked.wait()
            self._marked = trio.Event()
            spool.remove(
                await spool.covered(
                    self.key, lambda origin, number: self._siblings.covered(self.key, origin, number)
                )
            )
