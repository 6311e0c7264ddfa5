"""How fast a bridge exports to Kafka: ``python -m benchmarks.kafka``.

    bare       confluent-kafka alone, as its manual has it: ``produce`` with a callback, ``poll``, ``flush``
    export     a bridge's route
    reliable   a bridge's reliable route, by way of the spool on disk

All are confirmed records of an idempotent producer, with key and headers.  ``benchmarks.bridged`` has the method.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks import bridged
from tests.bridges import kafka_broker

HEADERS: Final = {
    **bridged.HEADERS,
    "content-type": "application/octet-stream",
    "timestamp": "1700000000.123456",
}
"""What a bridge writes beside each value; the message id comes to it."""


def broker(folder: Path) -> tuple[bridged.Broker, Callable[[], str]]:
    made = kafka_broker.Broker(folder)
    return made, lambda: f"kafka://{made.address}"


def prepare(url: str) -> None:
    """The first record makes the topic, and a log need not be empty to be written to."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": url.removeprefix("kafka://")})
    producer.produce(bridged.KEY, b"first")
    producer.flush()


def bare(url: str, count: int, size: int) -> None:
    from confluent_kafka import Producer

    failed: list[Any] = []
    confirmed = 0

    def report(error: Any, _: Any) -> None:
        nonlocal confirmed
        confirmed += 1
        if error is not None:
            failed.append(error)

    address = url.removeprefix("kafka://")
    producer = Producer({"bootstrap.servers": address, "enable.idempotence": True, "linger.ms": 5})
    producer.produce(bridged.KEY, b"first", on_delivery=report)
    producer.flush()
    value = bytes(size)
    began = time.monotonic()
    for number in range(count):
        headers = {**HEADERS, "message-id": f"{'0' * 32}-{'0' * 16}-{number}"}
        while True:
            try:
                producer.produce(bridged.KEY, value, bridged.TOPIC, on_delivery=report, headers=headers)
            except BufferError:
                producer.poll(0.01)
            else:
                break
        if number % 500 == 0:
            producer.poll(0)
    producer.flush()
    assert (confirmed, failed) == (count + 1, [])
    bridged.say(rate=count / (time.monotonic() - began))


ROUTE: Final = {"pattern": "bench/**", "to": "bench.{1}"}

SUBJECT: Final = bridged.Subject(
    name="kafka",
    broker=broker,
    why_not=kafka_broker.why_not,
    prepare=prepare,
    bare={"bare": bare},
    routes={"export": ROUTE, "reliable": {**ROUTE, "reliable": True}},
    compare={"export": "bare", "reliable": "bare"},
    count=40_000,
)

if __name__ == "__main__":
    sys.exit(bridged.main(SUBJECT, sys.argv[1:]))
