"""Kafka, through confluent-kafka (librdkafka): topics, keys and partitions, consumer groups.

broker → producing, consuming (a thread for each import: worker) → settings, names, offsets, faults
"""

from __future__ import annotations

from typing import Final

from bridges.base import Kind
from bridges.forms import one_of, text
from bridges.kafka.broker import KafkaBroker
from bridges.kafka.names import reject_name, source
from bridges.kafka.settings import check

__all__ = ["KIND"]


def _topic(value: object) -> str | None:
    wrong = text(value)
    return wrong if wrong is not None else reject_name(str(value))


KIND: Final = Kind(
    name="kafka",
    schemes={"kafka": False, "kafkas": True},
    port=9092,
    separator=".",
    source=source,
    make=KafkaBroker,
    options=None,  # librdkafka's own; ``check`` has it judge them
    export_templates=("key", "partition"),
    import_options={
        "group": text,
        "start": one_of("latest", "earliest"),
        "dead_letter": _topic,
    },
    reject_destination=reject_name,
    check=check,
)
