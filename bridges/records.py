"""A ``BrokerMessage`` as one CBOR item: how it lies in a spool."""

from __future__ import annotations

import mesh
from bridges.messages import BrokerMessage
from mesh.errors import ValueEncodingError

__all__ = ["decode_record", "encode_record"]

_FIELDS = ("destination", "data", "key", "headers", "content_type", "message_id", "timestamp", "reply_to",
           "correlation_id", "filled")  # fmt: skip


def encode_record(message: BrokerMessage) -> bytes:
    """Raises ``ValueEncodingError`` for text that UTF-8 cannot carry."""
    return mesh.encode_cbor([getattr(message, name) for name in _FIELDS])


def decode_record(data: bytes) -> BrokerMessage:
    """Raises ``ValueError`` for what no bridge has written."""
    try:
        fields = mesh.decode_cbor(data)
        return BrokerMessage(**dict(zip(_FIELDS, fields, strict=True)))
    except (ValueEncodingError, TypeError) as error:
        raise ValueError(f"no record of a spool: {error}") from None
