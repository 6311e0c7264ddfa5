"""A broker in memory: the interface's other end for tests, and a model of what adapters owe.

``MemoryServer`` keeps what is sent on reliable routes as a log, read by groups that acknowledge, and gives everything
to whoever listens now.  ``kind(server)`` is the ``Kind`` of bridges to it.  ``kill`` breaks every connection, and
nobody is answered until ``restart``; the log stays, as on a disk.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import trio

from bridges.base import (
    BATCH,
    Broker,
    BrokerRejected,
    BrokerUnavailable,
    Delivery,
    Kind,
    Outcome,
    Receiver,
    Session,
)
from bridges.mapping import SourcePattern, words
from bridges.messages import BrokerMessage
from bridges.settings import BridgeSettings, ExportRoute, ImportRoute

__all__ = ["MemoryServer", "kind"]

_LARGEST: Final = 64 << 10
"""Bytes of a message: so small that the refusal of larger ones is easily seen."""

_NAME: Final = 255
"""Characters of a destination."""


@dataclass
class _Group:
    """Readers that share the log: what nobody was given yet begins at ``next``."""

    next: int = 0
    pending: set[int] = field(default_factory=set)


class MemoryServer:
    """The broker. ``password`` is asked of everybody who connects."""

    def __init__(self, password: str = "") -> None:
        self.password = password
        self.log: list[BrokerMessage] = []
        self.dead: list[tuple[BrokerMessage, str]] = []
        self.confirms = math.inf
        """Batches that are confirmed. With the next one it dies, having stored it: nobody is told."""
        self.confirming = trio.Event()
        """Batches are confirmed once it is set: nobody who sends need wait for that."""
        self.confirming.set()
        self.replies: dict[str, BrokerMessage] = {}
        self.workers: dict[str, Callable[[BrokerMessage], BrokerMessage]] = {}
        self.news = trio.lowlevel.ParkingLot()
        self._died: trio.Event | None = trio.Event()
        self._groups: dict[tuple[str, str], _Group] = {}
        self._listeners: dict[object, tuple[SourcePattern, deque[BrokerMessage]]] = {}

    # -- life ----------------------------------------------------------------------------

    def kill(self) -> None:
        """The process is gone: connections break, what was delivered and not acknowledged will be again."""
        assert self._died is not None
        self._died.set()
        self._died = None
        for group in self._groups.values():
            self._give_back(group)
        self.news.unpark_all()

    def restart(self) -> None:
        self._died = trio.Event()

    def _give_back(self, group: _Group) -> None:
        group.next = min((*group.pending, group.next))
        group.pending.clear()

    def check_up(self) -> None:
        if self._died is None:
            raise BrokerUnavailable("the broker in memory is down")

    async def until_down(self) -> None:
        """Raises ``BrokerUnavailable`` when it dies."""
        self.check_up()
        assert self._died is not None
        await self._died.wait()
        raise BrokerUnavailable("the broker in memory went down")

    # -- messages ------------------------------------------------------------------------

    def put(self, message: BrokerMessage, *, reliable: bool = False) -> None:
        """Take anybody's message."""
        if reliable:
            self.log.append(message)
        for source, waiting in self._listeners.values():
            if source.captures(message.destination) is not None:
                waiting.append(message)
        self.news.unpark_all()

    def store(self, messages: Sequence[BrokerMessage], *, reliable: bool) -> dict[int, BrokerRejected]:
        """A bridge's batch."""
        self.check_up()
        refused = {}
        for place, message in enumerate(messages):
            if len(message.data) > _LARGEST:
                refused[place] = BrokerRejected("too large", f"{len(message.data)} bytes")
            else:
                self.put(message, reliable=reliable)
        self.confirms -= 1
        if self.confirms < 0:
            self.confirms = math.inf
            self.kill()
        self.check_up()
        return refused

    @asynccontextmanager
    async def listen(self, source: SourcePattern) -> AsyncIterator[deque[BrokerMessage]]:
        """What comes from now on."""
        self.check_up()
        waiting: deque[BrokerMessage] = deque()
        me = object()
        self._listeners[me] = source, waiting
        try:
            yield waiting
        finally:
            del self._listeners[me]

    @asynccontextmanager
    async def join(self, group: str, source: SourcePattern) -> AsyncIterator[_Group]:
        """Read the log as one of a group; what is not acknowledged at the end is for the others."""
        self.check_up()
        member = self._groups.setdefault((group, source.text), _Group())
        try:
            yield member
        finally:
            self._give_back(member)


class _Listening(Receiver):
    """Not reliable: what is said now."""

    def __init__(self, server: MemoryServer, waiting: deque[BrokerMessage]) -> None:
        self._server = server
        self._waiting = waiting

    async def receive(self) -> Sequence[Delivery]:
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            self._server.check_up()
            await self._server.news.park()
        return [Delivery(self._waiting.popleft()) for _ in range(min(BATCH, len(self._waiting)))]

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        await trio.lowlevel.checkpoint()

    async def reject(self, delivery: Delivery, reason: str) -> None:
        await trio.lowlevel.checkpoint()


class _Reading(Receiver):
    """Reliable: the log, for one of a group. Tokens are places in the log."""

    def __init__(self, server: MemoryServer, group: _Group, source: SourcePattern) -> None:
        self._server = server
        self._group = group
        self._source = source

    async def receive(self) -> Sequence[Delivery]:
        await trio.lowlevel.checkpoint()
        while True:
            self._server.check_up()
            found = self._look()
            if found:
                return found
            await self._server.news.park()

    def _look(self) -> list[Delivery]:
        group, log = self._group, self._server.log
        found: list[Delivery] = []
        while group.next < len(log) and len(found) < BATCH:
            message = log[group.next]
            if self._source.captures(message.destination) is not None:
                found.append(Delivery(message, group.next))
                group.pending.add(group.next)
            group.next += 1
        return found

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        await trio.lowlevel.checkpoint()
        self._server.check_up()
        self._group.pending.difference_update(delivery.token for delivery in deliveries)

    async def reject(self, delivery: Delivery, reason: str) -> None:
        await self.acknowledge([delivery])
        self._server.dead.append((delivery.message, reason))

    async def lag(self) -> int | None:
        group = self._group
        waiting = self._server.log[group.next :]
        return len(group.pending) + sum(
            self._source.captures(message.destination) is not None for message in waiting
        )


class _MemorySession(Session):
    def __init__(self, server: MemoryServer, group: str) -> None:
        self._server = server
        self._group = group

    async def send(
        self, route: ExportRoute, messages: Sequence[BrokerMessage]
    ) -> Mapping[int, BrokerRejected]:
        return await (await self.begin(route, messages))()

    async def begin(self, route: ExportRoute, messages: Sequence[BrokerMessage]) -> Outcome:
        await trio.lowlevel.checkpoint()
        refused = self._server.store(messages, reliable=route.reliable)

        async def outcome() -> Mapping[int, BrokerRejected]:
            await self._server.confirming.wait()
            self._server.check_up()
            return refused

        return outcome

    @asynccontextmanager
    async def receive(self, route: ImportRoute) -> AsyncIterator[Receiver]:
        if route.reliable:
            async with self._server.join(self._group, route.source) as group:
                yield _Reading(self._server, group, route.source)
        else:
            async with self._server.listen(route.source) as waiting:
                yield _Listening(self._server, waiting)

    async def request(self, route: ExportRoute, message: BrokerMessage, timeout: float) -> BrokerMessage:
        await trio.lowlevel.checkpoint()
        self._server.check_up()
        worker = self._server.workers.get(message.destination)
        if worker is None:
            raise BrokerRejected("unroutable", message.destination)
        return worker(message)

    async def reply(self, request: BrokerMessage, reply: BrokerMessage) -> None:
        await trio.lowlevel.checkpoint()
        self._server.check_up()
        self._server.replies[request.correlation_id] = reply
        self._server.news.unpark_all()


class _MemoryBroker(Broker):
    def __init__(self, server: MemoryServer, settings: BridgeSettings, identity: str) -> None:
        self._server = server
        self._settings = settings
        self._identity = identity

    async def run(self, *, task_status: trio.TaskStatus[Session]) -> None:
        await trio.lowlevel.checkpoint()
        self._server.check_up()
        if self._settings.address.password.reveal() != self._server.password:
            raise BrokerRejected("credentials", "the password is wrong")
        task_status.started(_MemorySession(self._server, self._identity))
        await self._server.until_down()


def _reject_destination(text: str) -> str | None:
    return None if 0 < len(text) <= _NAME else f"it has {len(text)} characters, and 1 to {_NAME} are allowed"


def kind(server: MemoryServer) -> Kind:
    """Bridges to this server."""
    return Kind(
        name="memory",
        schemes={"memory": False},
        port=1,
        separator=".",
        source=words,
        make=lambda settings, identity: _MemoryBroker(server, settings, identity),
        requests=True,
        reject_destination=_reject_destination,
    )
