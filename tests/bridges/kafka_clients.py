"""What the tests of the Kafka bridge do on the other side of the broker, with a client of its own (aiokafka)."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import trio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bridges.base import Delivery, Receiver, Session
from bridges.config import read_bridge
from bridges.kafka import KIND
from bridges.settings import BridgeSettings

__all__ = [
    "WITHIN",
    "Record",
    "committed",
    "connected",
    "create",
    "fresh",
    "produce",
    "receive",
    "records",
    "settings",
    "until",
    "values",
]

WITHIN = 150.0
"""Seconds that a test waits for anything: never for time to pass."""

_T = TypeVar("_T")
_numbers = itertools.count()


def fresh(word: str = "topic") -> str:
    """A name that no other test has."""
    return f"{word}-{os.getpid()}-{next(_numbers)}"


@dataclass(frozen=True)
class Record:
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: Mapping[str, bytes]
    timestamp: float


async def _run(work: Callable[[], Awaitable[_T]]) -> _T:
    """An asyncio client, in a thread with a loop of its own."""

    async def main() -> _T:
        async with asyncio.timeout(WITHIN):
            return await work()

    return await trio.to_thread.run_sync(lambda: asyncio.run(main()))


async def create(address: str, *topics: str, partitions: int = 1, **settings: str) -> None:
    async def work() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=address)
        await admin.start()
        try:
            made = [NewTopic(topic, partitions, 1, topic_configs=settings) for topic in topics]
            # A broker that was just started answers before it knows its controller, and aiokafka trips over that.
            while admin._client.cluster.controller is None:
                await asyncio.sleep(0.1)
                await admin._client.force_metadata_update()
            await admin.create_topics(made)
        finally:
            await admin.close()

    await _run(work)


async def produce(address: str, topic: str, values: Iterable[Any], **record: Any) -> None:
    """Values, or (key, value) pairs."""

    async def work() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=address)
        await producer.start()
        try:
            for value in values:
                key, value = value if isinstance(value, tuple) else (None, value)
                await producer.send(topic, value, key=key, **record)
            await producer.flush()
        finally:
            await producer.stop()

    await _run(work)


async def records(address: str, topic: str, *, committed_only: bool = False) -> list[Record]:
    """All that is in a topic now."""

    async def work() -> list[Record]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=address,
            isolation_level="read_committed" if committed_only else "read_uncommitted",
            auto_offset_reset="earliest",
        )
        await consumer.start()
        found: list[Record] = []
        try:
            for partition in await _partitions(consumer, topic):
                consumer.assign([partition])
                end = (await consumer.end_offsets([partition]))[partition]
                await consumer.seek_to_beginning(partition)
                while await consumer.position(partition) < end:
                    batch = await consumer.getmany(partition, timeout_ms=500)
                    for record in batch.get(partition, ()):
                        found.append(
                            Record(
                                record.topic, record.partition, record.offset, record.key, record.value,
                                dict(record.headers), record.timestamp / 1000,
                            )
                        )  # fmt: skip
            return found
        finally:
            await consumer.stop()

    return await _run(work)


async def _partitions(consumer: Any, topic: str) -> list[TopicPartition]:
    await consumer._client.force_metadata_update()
    numbers = consumer.partitions_for_topic(topic)
    if numbers is None:
        consumer._client.add_topic(topic)
        await consumer._client.force_metadata_update()
        numbers = consumer.partitions_for_topic(topic)
    return [TopicPartition(topic, number) for number in sorted(numbers or ())]


async def committed(address: str, group: str, topic: str) -> int:
    """The sum over the partitions of what the group has committed."""

    async def work() -> int:
        admin = AIOKafkaAdminClient(bootstrap_servers=address)
        await admin.start()
        try:
            offsets = await admin.list_consumer_group_offsets(group)
        finally:
            await admin.close()
        return sum(kept.offset for place, kept in offsets.items() if place.topic == topic and kept.offset > 0)

    return await _run(work)


# -- our side, without the engine ------------------------------------------------------------


def settings(address: str, **table: Any) -> BridgeSettings:
    """A bridge's settings: ``export=[…]``, ``import_=[…]``, ``options={…}``."""
    if "import_" in table:
        table["import"] = table.pop("import_")
    options = {
        # What tests would wait for.
        "topic.metadata.refresh.interval.ms": 300,
        **table.pop("options", {}),
    }
    if "export" not in table and "import" not in table:
        table["export"] = [{"pattern": "**", "to": "{topic}"}]
    document = {"kind": "kafka", "url": f"kafka://{address}", **table, "options": options}
    return read_bridge(document, kind_named=lambda _: KIND)


@asynccontextmanager
async def connected(settings: BridgeSettings, identity: str = "0123456789abcdef") -> AsyncIterator[Session]:
    """A session, until the block is left. What ``run`` raises comes out as it is."""
    failure: list[BaseException] = []

    async def run(*, task_status: trio.TaskStatus[Session]) -> None:
        await KIND.make(settings, identity).run(task_status=task_status)

    try:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(WITHIN):
                session = await nursery.start(run)
            try:
                yield session
            except BaseException as error:
                failure.append(error)
                raise
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from None


async def receive(receiver: Receiver, count: int, *, acknowledge: bool = True) -> list[Delivery]:
    """So many deliveries, each acknowledged as it comes."""
    found: list[Delivery] = []
    with trio.fail_after(WITHIN):
        while len(found) < count:
            deliveries = await receiver.receive()
            found.extend(deliveries)
            if acknowledge:
                await receiver.acknowledge(deliveries)
    return found


async def until(ask: Callable[[], Awaitable[_T]], wanted: Callable[[_T], bool]) -> _T:
    """Ask until the answer is what is wanted."""
    with trio.fail_after(WITHIN):
        while True:
            answer = await ask()
            if wanted(answer):
                return answer
            await trio.sleep(0.05)


def values(found: Sequence[Delivery]) -> list[bytes]:
    return [delivery.message.data for delivery in found]
