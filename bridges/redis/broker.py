"""One bridge's client of Redis: connects, looks every few seconds whether it still answers, closes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

import trio
from coredis import Redis

from bridges.base import (
    CONNECT_WITHIN,
    Broker,
    BrokerRejected,
    BrokerUnavailable,
    Receiver,
    Session,
)
from bridges.messages import BrokerMessage
from bridges.redis.faults import faults
from bridges.redis.listening import listening
from bridges.redis.reading import reading
from bridges.redis.sending import send
from bridges.settings import BridgeSettings, ExportRoute, ImportRoute

__all__ = ["RedisBroker"]

_PING_EVERY: Final = 2.0
_PING_WITHIN: Final = 10.0
"""Seconds for an answer: a Redis that saves its data to disk may pause."""

_SPARE: Final = 4
"""Connections beside one for each route: pipelines, pings and questions after the lag."""


class RedisSession(Session):
    def __init__(self, client: Redis[bytes], identity: str) -> None:
        self._client = client
        self._identity = identity

    async def send(
        self, route: ExportRoute, messages: Sequence[BrokerMessage]
    ) -> Mapping[int, BrokerRejected]:
        return await send(self._client, route, messages)

    def receive(self, route: ImportRoute) -> AbstractAsyncContextManager[Receiver]:
        if route.reliable:
            return reading(self._client, route, self._identity)
        return listening(self._client, route)


class RedisBroker(Broker):
    def __init__(self, settings: BridgeSettings, identity: str) -> None:
        self._settings = settings
        self._identity = identity

    async def run(self, *, task_status: trio.TaskStatus[Session]) -> None:
        settings, address = self._settings, self._settings.address
        with faults():
            async with Redis(
                host=address.host,
                port=address.port,
                db=int(address.path or 0),
                username=address.username or None,
                password=address.password.reveal() or None,
                ssl_context=settings.ssl_context(),
                connect_timeout=CONNECT_WITHIN,
                client_name=f"zeromesh-{settings.name}",
                decode_responses=False,
                max_connections=len(settings.exports) + len(settings.imports) + _SPARE,
            ) as client:
                await self._ping(client)
                task_status.started(RedisSession(client, self._identity))
                while True:
                    await trio.sleep(_PING_EVERY)
                    await self._ping(client)

    @staticmethod
    async def _ping(client: Redis[bytes]) -> None:
        with trio.move_on_after(_PING_WITHIN):
            await client.ping()
            return
        raise BrokerUnavailable(f"no answer within {_PING_WITHIN:g} s")
