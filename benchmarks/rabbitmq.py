"""How fast a bridge exports to RabbitMQ: ``python -m benchmarks.rabbitmq``.

    bare        aio-pika alone: batches of 512 at once (``gather``), persistent, mandatory, each confirmed
    bare plain  aio-pika alone, one after the other, transient, without confirms
    reliable    a bridge's reliable route, by way of the spool on disk: persistent, mandatory, each confirmed
    plain       a route that is not

All go to one durable queue.  ``benchmarks.bridged`` has the method.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pika

from benchmarks import bridged
from tests.bridges import rabbitmq_broker

QUEUE = "bench"
BATCH = 512
"""As many as a bridge sends at once."""


def broker(folder: Path) -> tuple[bridged.Broker, Callable[[], str]]:
    made = rabbitmq_broker.Broker(folder)
    return made, lambda: made.url.rstrip("/")


def prepare(url: str) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url + "/"))
    channel = connection.channel()
    channel.queue_declare(QUEUE, durable=True)
    channel.queue_bind(QUEUE, "amq.topic", "bench.#")
    channel.queue_purge(QUEUE)
    connection.close()


async def publish(url: str, count: int, size: int, *, confirms: bool) -> None:
    import aio_pika

    connection = await aio_pika.connect(url + "/")
    async with connection:
        channel = await connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
        exchange = await channel.get_exchange("amq.topic")
        body = bytes(size)
        mode = aio_pika.DeliveryMode.PERSISTENT if confirms else aio_pika.DeliveryMode.NOT_PERSISTENT

        def send(number: int) -> Any:
            message = aio_pika.Message(
                body,
                headers=dict(bridged.HEADERS),
                content_type="application/octet-stream",
                delivery_mode=mode,
                message_id=f"{'0' * 32}-{'0' * 16}-{number}",
                timestamp=1700000000,
            )
            return exchange.publish(message, bridged.KEY, mandatory=confirms)

        await send(0)
        began = time.monotonic()
        if confirms:
            for first in range(0, count, BATCH):
                await asyncio.gather(*map(send, range(first, min(count, first + BATCH))))
        else:
            for number in range(count):
                await send(number)
        bridged.say(rate=count / (time.monotonic() - began))


def bare(url: str, count: int, size: int) -> None:
    asyncio.run(publish(url, count, size, confirms=True))


def bare_plain(url: str, count: int, size: int) -> None:
    asyncio.run(publish(url, count, size, confirms=False))


ROUTE = {"pattern": "bench/**", "to": "{topic}"}

SUBJECT = bridged.Subject(
    name="rabbitmq",
    broker=broker,
    why_not=rabbitmq_broker.why_not,
    prepare=prepare,
    bare={"bare": bare, "bare plain": bare_plain},
    routes={"reliable": {**ROUTE, "reliable": True}, "plain": ROUTE},
    compare={"reliable": "bare", "plain": "bare plain"},
    count=10_000,
)

if __name__ == "__main__":
    sys.exit(bridged.main(SUBJECT, sys.argv[1:]))
