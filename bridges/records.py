"""A ``BrokerMessage`` as one CBOR item: how it lies in a spool, on this machine's own disk."""

from __future__ import annotations

import cbor2

from bridges.messages import BrokerMessage

__all__ = ["decode_record", "encode_record"]

_FIELDS = ("destination", "data", "key", "headers", "content_type", "message_id", "timestamp", "reply_to",
           "correlation_id", "filled")  # fmt: skip


def encode_record(message: BrokerMessage) -> bytes:
    """Raises ``ValueError`` for text that UTF-8 cannot carry."""
    try:
        return cbor2.dumps(
            (
                message.destination,
                message.data,
                message.key,
                message.headers,
                message.content_type,
                message.message_id,
                message.timestamp,
                message.reply_to,
                message.correlation_id,
                message.filled,
            )
        )
    except cbor2.CBORError as error:
        raise ValueError(str(error)) from None


def decode_record(data: bytes) -> BrokerMessage:
    """Raises ``ValueError`` for what no bridge has written."""
    try:
        return BrokerMessage(**dict(zip(_FIELDS, cbor2.loads(data), strict=True)))
    except (cbor2.CBORError, TypeError) as error:
        raise ValueError(f"no record of a spool: {error}") from None
