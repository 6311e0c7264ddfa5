"""The basics of the bridge to Kafka against librdkafka's own mock cluster: where no real broker can be had, and only there.

A mock shows that records, headers, groups and commits have the right form.  It is no broker: nothing here is killed,
no disk survives, there is no TLS, and of transactions it says too much.
``ZEROMESH_KAFKA_MOCK=1`` runs these although there is a broker.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from tests.bridges import kafka_broker
from tests.bridges.contract import BOTH, BridgeContract, Setting
from tests.bridges.contract import setting as setting
from tests.bridges.kafka_outside import Outside
from tests.bridges.test_kafka import KafkaHarness


class Mock(kafka_broker.Broker):
    """A cluster of one broker, in this process: it lives as long as the client that it is a part of."""

    def __init__(self) -> None:
        self._client = Producer({"test.mock.num.brokers": 1, "log_level": 2})
        (broker,) = self._client.list_topics(timeout=30).brokers.values()
        self.address = f"{broker.host}:{broker.port}"


@pytest.fixture(scope="module")
def mock() -> Mock:
    if os.environ.get("ZEROMESH_KAFKA_MOCK") != "1" and kafka_broker.why_not() is None:
        pytest.skip("a real Kafka broker is here: its mock has nothing to add")
    return Mock()


@pytest.fixture(scope="module")
def outside(mock: Mock) -> Iterator[Outside]:
    outside = Outside(mock.address)
    outside.start()
    try:
        yield outside
    finally:
        outside.stop()


@pytest.fixture
def broker(mock: Mock, outside: Outside) -> KafkaHarness:
    harness = KafkaHarness(mock, outside)
    harness.key = b"one"  # a mock's topics have four partitions: one of them keeps an order
    return harness


class TestKafkaMock:
    _contract = BridgeContract()

    @BOTH
    async def test_what_the_mesh_publishes_is_at_the_broker(self, setting: Setting, reliable: bool) -> None:
        await self._contract.test_what_the_mesh_publishes_is_at_the_broker(setting, reliable)

    @BOTH
    async def test_what_the_broker_has_is_in_the_mesh(self, setting: Setting, reliable: bool) -> None:
        await self._contract.test_what_the_broker_has_is_in_the_mesh(setting, reliable)

    async def test_poison_is_put_aside(self, setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
        await self._contract.test_poison_is_put_aside(setting, caplog)

    async def test_duplicates_are_dropped(self, setting: Setting) -> None:
        await self._contract.test_duplicates_are_dropped(setting)

    async def test_of_two_bridges_one_moves(self, setting: Setting) -> None:
        await self._contract.test_of_two_bridges_one_moves(setting)
