"""The brokers that bridges are tested against: real ones, started when a first test asks for them.

Skipped, in one loud line, where there can be none; with ``ZEROMESH_REQUIRE_…=1`` their absence is a failure.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.bridges import kafka_broker, rabbitmq_broker, redis_broker

INSTEAD = {"Kafka": ", but for its basics against a mock cluster, which is no broker"}
"""What stands in where there is no broker."""


def _need(name: str, required: str, reason: str | None) -> None:
    if reason is None:
        return
    if os.environ.get(required) == "1":
        pytest.fail(f"{required}=1, and there is no {name} broker: {reason}")
    pytest.skip(
        f"NO {name.upper()} BROKER, so the bridge to {name} is not tested{INSTEAD.get(name, '')}: {reason}"
    )


def _started(name: str, module: Any, folders: pytest.TempPathFactory) -> Iterator[Any]:
    _need(name, module.REQUIRED, module.why_not())
    broker = module.Broker(folders.mktemp(name.lower()))
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kafka_broker.Broker]:
    """A Kafka broker of this session. A test that kills it starts it again."""
    yield from _started("Kafka", kafka_broker, tmp_path_factory)


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rabbitmq_broker.Broker]:
    """A RabbitMQ node of this session. A test that kills it starts it again."""
    yield from _started("RabbitMQ", rabbitmq_broker, tmp_path_factory)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis_broker.Broker]:
    """A redis-server of this session. A test that kills it starts it again."""
    yield from _started("Redis", redis_broker, tmp_path_factory)
