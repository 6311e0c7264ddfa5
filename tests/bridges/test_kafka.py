"""The bridge to Kafka keeps the contract: a real broker, and aiokafka on the other side of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from bridges.kafka import KIND
from bridges.messages import header_text
from tests.bridges import kafka_broker
from tests.bridges.contract import CANARY, BridgeContract, Harness, Observer, Seen, Setting
from tests.bridges.contract import setting as setting
from tests.bridges.kafka_outside import Outside, Reading

GRAVES = "contract-dead-letters"

OPTIONS = {
    # What tests would wait for.
    "topic.metadata.refresh.interval.ms": 300,
    "session.timeout.ms": 6000,
}


def seen(record: Any) -> Seen:
    return Seen(
        record.topic, record.value or b"", {name: header_text(value) for name, value in record.headers}
    )


class KafkaObserver(Observer):
    def __init__(self, reading: Reading) -> None:
        super().__init__()
        self._reading = reading

    async def more(self) -> None:
        self.seen += map(seen, await self._reading.more())


class KafkaHarness(Harness):
    kind = KIND
    key: bytes | None = None
    """Of what is put there."""

    def __init__(self, broker: kafka_broker.Broker, outside: Outside) -> None:
        self.broker = broker
        self.outside = outside

    def table(self) -> dict[str, Any]:
        return {"kind": "kafka", "url": f"kafka://{self.broker.address}", "options": OPTIONS}

    def wrong_credentials(self) -> dict[str, Any]:
        return self._secured(CANARY)

    def secure(self) -> dict[str, Any]:
        return self._secured(kafka_broker.PASSWORD)

    def _secured(self, password: str) -> dict[str, Any]:
        return {
            "kind": "kafka",
            "url": f"kafkas://{kafka_broker.USER}:{password}@{self.broker.secure}",
            "tls": {"ca": str(self.broker.authority)},
            "options": OPTIONS,
        }

    def reliable_import(self) -> dict[str, Any]:
        return {"dead_letter": GRAVES, "start": "earliest"}

    def everything(self, prefix: str) -> str:
        return f"{prefix}.*"

    @asynccontextmanager
    async def observe(self, prefix: str, *, reliable: bool) -> AsyncIterator[Observer]:
        async with self.outside.reading(f"{prefix}.") as reading:
            yield KafkaObserver(reading)

    async def put(
        self, destination: str, data: bytes, headers: Mapping[str, str] | None = None, *, reliable: bool
    ) -> None:
        await self.outside.put(destination, data, headers or {}, self.key)

    async def kill(self) -> None:
        await trio.to_thread.run_sync(self.broker.kill)

    async def restart(self) -> None:
        await trio.to_thread.run_sync(self.broker.start)

    async def dead_letters(self, destination: str) -> list[Seen]:
        async with self.outside.reading(GRAVES) as reading:
            letters: list[Seen] = []
            while batch := await reading.more():
                letters += [
                    seen(record)
                    for record in batch
                    if dict(record.headers)["mesh-origin"] == destination.encode()
                ]
            return letters


@pytest.fixture(scope="module")
def outside(kafka: kafka_broker.Broker) -> Iterator[Outside]:
    outside = Outside(kafka.address)
    outside.start()
    try:
        yield outside
    finally:
        outside.stop()


@pytest.fixture
def broker(kafka: kafka_broker.Broker, outside: Outside) -> Iterator[KafkaHarness]:
    yield KafkaHarness(kafka, outside)
    if not kafka.running:  # a test that failed may have left it so
        kafka.start()


class TestKafka(BridgeContract):
    # Each start of a JVM costs seconds, and what a full spool does is the engine's: one of three has to do here.
    @pytest.mark.parametrize("full", ["drop_oldest"])
    async def test_a_full_spool(self, setting: Setting, full: str) -> None:
        await super().test_a_full_spool(setting, full)
