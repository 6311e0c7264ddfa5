"""What an error of librdkafka means for a bridge: try again later, or never.

Codes are those of Kafka's protocol and, below zero, librdkafka's own (``rdkafka.h``, ``rd_kafka_resp_err_t``).
"""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError

from bridges.base import BrokerError, BrokerRejected, BrokerUnavailable

__all__ = ["CREDENTIALS", "fault"]

_REFUSED: Final[dict[int, str]] = {
    KafkaError.MSG_SIZE_TOO_LARGE: "too large",
    KafkaError.RECORD_LIST_TOO_LARGE: "too large",
    KafkaError.INVALID_MSG: "invalid record",
    KafkaError.INVALID_MSG_SIZE: "invalid record",
    KafkaError.INVALID_RECORD: "invalid record",
    KafkaError.INVALID_TIMESTAMP: "invalid timestamp",
    KafkaError.POLICY_VIOLATION: "policy",
    KafkaError.TOPIC_EXCEPTION: "invalid topic",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "no such topic",
    KafkaError._UNKNOWN_TOPIC: "no such topic",
    KafkaError._UNKNOWN_PARTITION: "no such partition",
    KafkaError._INVALID_ARG: "invalid record",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "not allowed",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "not allowed",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "not allowed",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "not allowed",
}
"""The broker will say the same next time."""

CREDENTIALS: Final = frozenset({KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED})
"""It knows us, or does not, and says no."""


def fault(error: KafkaError, detail: str | None = None) -> BrokerError:
    """The error as the engine wants it. ``detail`` replaces librdkafka's words."""
    text = error.str() if detail is None else detail
    if error.code() in CREDENTIALS:
        return BrokerRejected("credentials", text)
    if error.code() in _REFUSED and not error.fatal():
        return BrokerRejected(_REFUSED[error.code()], text)
    return BrokerUnavailable(text)
