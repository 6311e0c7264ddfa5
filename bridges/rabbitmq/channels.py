"""One connection's channels. Everything here runs on the loop.

A channel that the broker closed leaves its number in doubt: the client's word that it has understood may not
have got through, and the broker would then ignore whoever opens that number.  So each gets a new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar, cast

from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.channel import Channel as Underlay

from bridges.base import CONNECT_WITHIN

__all__ = ["Blockade", "Channels", "Underlay"]

T = TypeVar("T")

LOOK_EVERY: Final = 0.25
"""Seconds between two looks at whether the broker has blocked us, while something waits for it."""

MOST: Final = 2047
"""Channels of a connection where the broker names no bound (it is RabbitMQ's own default)."""


class Channels:
    """Opens channels of ``connection``."""

    def __init__(self, connection: AbstractConnection) -> None:
        self.connection = connection
        self._number = 0

    @property
    def works(self) -> bool:
        """The connection does."""
        transport = self.connection.transport
        return transport is not None and not transport.connection.is_closed

    async def open(self, *, confirms: bool = False) -> tuple[AbstractChannel, Underlay]:
        """A channel, and the client's plain one beneath it: that pipelines, and costs less for a message."""
        transport = self.connection.transport
        if transport is None:
            raise ConnectionError("the connection was closed")
        most = transport.connection.connection_tune.channel_max or MOST
        for _ in range(most):
            self._number = self._number % most + 1
            if self._number not in transport.connection.channels:
                break
        channel = self.connection.channel(
            channel_number=self._number, publisher_confirms=confirms, on_return_raises=confirms
        )
        async with asyncio.timeout(CONNECT_WITHIN):
            await channel.initialize()
        return channel, cast("Underlay", await channel.get_underlay_channel())


class Blockade:
    """Whether the broker takes nothing for now (``connection.blocked``: it is short of memory or disk).

    The client has no event for it. So whoever waits for the broker looks, and an idle bridge costs nothing:
    RabbitMQ blocks connections that publish, when they do.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self.blocked = False

    async def wait(self, awaitable: Awaitable[T]) -> T:
        """``await awaitable``, and look meanwhile."""
        future = asyncio.ensure_future(awaitable)
        try:
            while not (await asyncio.wait((future,), timeout=LOOK_EVERY))[0]:
                self.blocked = not await self._ready()
            self.blocked = False
            return future.result()
        finally:
            future.cancel()

    async def _ready(self) -> bool:
        transport = self._connection.transport
        if transport is None:
            return True
        try:
            async with asyncio.timeout(0):
                await transport.connection.ready()
        except TimeoutError:
            return False
        return True
