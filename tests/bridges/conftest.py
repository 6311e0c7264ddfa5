"""The brokers that bridges are tested against: real ones, started when a first test asks for them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.bridges import kafka_broker


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kafka_broker.Broker]:
    """A Kafka broker of this session. A test that kills it starts it again."""
    if reason := kafka_broker.why_not():
        if os.environ.get(kafka_broker.REQUIRED) == "1":
            pytest.fail(f"{kafka_broker.REQUIRED}=1, and there is no Kafka broker: {reason}")
        pytest.skip(f"NO KAFKA BROKER, so the bridge to Kafka is not tested: {reason}")
    broker = kafka_broker.Broker(tmp_path_factory.mktemp("kafka"))
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()
