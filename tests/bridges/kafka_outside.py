"""Somebody at the Kafka broker who is not the bridge: aiokafka, on an event loop in a thread of its own.

One loop and one producer serve a whole module of tests; they live through the broker's restarts.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

__all__ = ["Outside", "Reading"]

_T = TypeVar("_T")

PATIENCE_MS = 60_000


class Reading:
    """Reads topics that begin so, whenever they come into being, from their beginnings."""

    def __init__(self, outside: Outside, consumer: AIOKafkaConsumer) -> None:
        self._outside = outside
        self._consumer = consumer

    async def more(self) -> list[Any]:
        """Some records, or none after a short while."""

        async def get() -> list[Any]:
            found = await self._consumer.getmany(timeout_ms=200)
            return [record for records in found.values() for record in records]

        return await self._outside.run(get())


class Outside:
    """``address`` is a broker that may be down for a while."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="aiokafka")
        self._producer: AIOKafkaProducer | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        if self._producer is not None:
            await self._producer.stop()

    async def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """On the loop, from Trio."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        return await trio.to_thread.run_sync(future.result, abandon_on_cancel=True)

    async def put(
        self, topic: str, data: bytes, headers: Mapping[str, str], key: bytes | None = None
    ) -> None:
        async def put() -> None:
            if self._producer is None:
                self._producer = AIOKafkaProducer(
                    bootstrap_servers=self.address, request_timeout_ms=PATIENCE_MS, retry_backoff_ms=50
                )
                await self._producer.start()
            encoded = [(name, text.encode()) for name, text in headers.items()]
            await self._producer.send_and_wait(topic, data, key, headers=encoded)

        await self.run(put())

    @asynccontextmanager
    async def reading(self, prefix: str) -> AsyncIterator[Reading]:
        async def begin() -> AIOKafkaConsumer:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self.address,
                auto_offset_reset="earliest",
                metadata_max_age_ms=200,
                retry_backoff_ms=50,
            )
            await consumer.start()
            consumer.subscribe(pattern=f"^{re.escape(prefix)}.*")
            return consumer

        consumer = await self.run(begin())
        try:
            yield Reading(self, consumer)
        finally:
            with trio.CancelScope(shield=True):
                await self.run(consumer.stop())
