"""One RabbitMQ broker as one bridge sees it: two connections on a loop of their own.

    run → loop thread → connect (each host in turn) → ``Session`` → until a connection is lost, or it is cancelled

One connection publishes, the other consumes: a broker short of memory stops reading from those that publish,
and acknowledgements would wait behind (RabbitMQ's guide to alarms).  The second is there only where
something is imported.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager
from typing import Final, TypeVar, TypeVarTuple

import aio_pika
import trio
from aio_pika.abc import AbstractConnection
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import ConnectionChannelError

from bridges.base import (
    CLOSE_WITHIN,
    CONNECT_WITHIN,
    Broker,
    BrokerError,
    BrokerRejected,
    BrokerUnavailable,
    Receiver,
    Session,
)
from bridges.loop import Inbox, Loop, open_loop
from bridges.messages import BrokerMessage
from bridges.rabbitmq.calls import Calls
from bridges.rabbitmq.channels import Blockade, Channels
from bridges.rabbitmq.consuming import PREFETCH, Consumer, RouteReceiver
from bridges.rabbitmq.faults import CLIENT_ERRORS, connecting, unavailable
from bridges.rabbitmq.publishing import Caution, Publisher
from bridges.settings import BridgeSettings, ExportRoute, ImportRoute

__all__ = ["RabbitMQ"]

for _name in ("aio_pika", "aiormq"):
    # The clients log each lost connection as an error of their own, with traceback. The bridge says it once, in
    # a line. Who wants theirs sets their level.
    if logging.getLogger(_name).level == logging.NOTSET:
        logging.getLogger(_name).setLevel(logging.CRITICAL)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

HEARTBEAT: Final = 10
"""Seconds between heartbeats: a broker that went silent is given up after some three times as long."""


class RabbitMQ(Broker):
    """``identity`` names the queues that belong to this bridge."""

    def __init__(self, settings: BridgeSettings, identity: str) -> None:
        self._settings = settings
        self._identity = identity
        self._ssl = settings.ssl_context()
        self._caution = Caution()

    async def run(self, *, task_status: trio.TaskStatus[Session] = trio.TASK_STATUS_IGNORED) -> None:
        lost = _Lost()
        async with open_loop(f"zeromesh-{self._settings.name}") as loop:
            connections: list[AbstractConnection] = []
            try:
                with trio.move_on_after(CONNECT_WITHIN) as limit:
                    connections.append(await self._connect(loop, "publish", lost))
                    if self._settings.imports:
                        connections.append(await self._connect(loop, "consume", lost))
                if limit.cancelled_caught:
                    raise BrokerUnavailable(f"{self._settings.address} does not answer")
                session = await loop.run(self._session, loop, connections)
                task_status.started(session)
                raise await lost.wait()
            finally:
                with trio.move_on_after(CLOSE_WITHIN, shield=True):
                    for connection in connections:
                        await loop.run(_close, connection)

    async def _connect(self, loop: Loop, purpose: str, lost: _Lost) -> AbstractConnection:
        """To the first host that takes us. Raises ``BrokerError``: what the last one said."""
        error: BrokerError = BrokerUnavailable("no host")
        for host, port in self._settings.address.hosts:
            try:
                return await loop.run(self._dial, host, port, purpose, lost)
            except BrokerError as fault:
                error = fault
            except CancelledError as fault:
                error = unavailable(fault)
        raise error

    # On the loop.

    async def _dial(self, host: str, port: int, purpose: str, lost: _Lost) -> AbstractConnection:
        address = self._settings.address
        try:
            connection = await aio_pika.connect(
                host=host,
                port=port,
                login=address.username or "guest",
                password=address.password.reveal() or "guest",
                virtualhost=address.path or "/",
                ssl=address.tls,
                ssl_context=self._ssl,
                heartbeat=self._settings.options.get("heartbeat", HEARTBEAT),
                client_properties={"connection_name": f"zeromesh {self._settings.name} {purpose}"},
            )
        except CLIENT_ERRORS as error:
            raise connecting(error) from error

        def closed(_: object, error: BaseException | None) -> None:
            if isinstance(error, ConnectionChannelError):
                for route in self._settings.exports:
                    self._caution.warn(route.number)
            lost.tell(unavailable(error))

        connection.close_callbacks.add(closed)
        return connection

    async def _session(self, loop: Loop, connections: Sequence[AbstractConnection]) -> RabbitSession:
        channels = [Channels(connection) for connection in connections]
        return RabbitSession(loop, self._settings, self._identity, self._caution, channels[0], channels[-1])


async def _close(connection: AbstractConnection) -> None:
    try:
        await connection.close()
    except CLIENT_ERRORS:
        pass  # it was lost before, and is as closed


class _Lost:
    """The first reason why a connection is gone, told on the loop and awaited under Trio."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._event = trio.Event()
        self._error: BrokerUnavailable | None = None

    def tell(self, error: BrokerUnavailable) -> None:
        if self._error is None:
            self._error = error
        try:
            self._token.run_sync_soon(self._event.set)
        except trio.RunFinishedError:
            pass  # nobody is left to hear it

    async def wait(self) -> BrokerUnavailable:
        await self._event.wait()
        assert self._error is not None
        return self._error


class RabbitSession(Session):
    """Two connections (the same one twice where nothing is imported) and what is open on them."""

    def __init__(
        self,
        loop: Loop,
        settings: BridgeSettings,
        identity: str,
        caution: Caution,
        publishing: Channels,
        consuming: Channels,
    ) -> None:
        self._loop = loop
        self._settings = settings
        self._identity = identity
        self._publishing = publishing
        self._consuming = consuming
        self._caution = caution
        self._blockade = Blockade(publishing.connection)
        self._calls = Calls(publishing, self._blockade)
        self._publishers: dict[int, Publisher] = {}

    async def send(
        self, route: ExportRoute, messages: Sequence[BrokerMessage]
    ) -> Mapping[int, BrokerRejected]:
        publisher = self._publishers.get(route.number)
        if publisher is None:
            publisher = Publisher(self._publishing, self._blockade, self._caution, route)
            self._publishers[route.number] = publisher
        return await self._run(publisher.send, messages)

    @asynccontextmanager
    async def receive(self, route: ImportRoute) -> AsyncIterator[Receiver]:
        inbox: Inbox[DeliveredMessage] = Inbox()
        consumer = Consumer(self._consuming, route, self._identity, inbox)
        try:
            await self._run(consumer.subscribe, self._settings.options.get("prefetch", PREFETCH))
            yield RouteReceiver(self._loop, self._run, consumer, inbox)
        finally:
            with trio.move_on_after(CLOSE_WITHIN, shield=True):
                await self._run(consumer.close)

    async def request(self, route: ExportRoute, message: BrokerMessage, timeout: float) -> BrokerMessage:
        with trio.fail_after(timeout):
            return await self._run(self._calls.request, route, message, timeout)

    async def reply(self, request: BrokerMessage, reply: BrokerMessage) -> None:
        await self._run(self._calls.reply, request, reply)

    @property
    def hindrance(self) -> str:
        return "the broker is short of memory or disk" if self._blockade.blocked else ""

    async def _run(self, function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        try:
            return await self._loop.run(function, *args)
        except CancelledError as error:
            # The client cancels what is under way on a channel that closes.
            raise BrokerUnavailable("the channel was closed") from error
