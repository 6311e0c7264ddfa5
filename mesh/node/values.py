"""Values as CBOR by themselves, for programs that keep or pass on what they publish and receive.

These are the bytes that ``Message.data`` holds for a value that is not ``bytes``: RFC 8949, with the limits that hold
on the wire (no indefinite lengths, no duplicate keys, 14 levels, no tags that run code).
"""

from __future__ import annotations

from typing import Any

import cbor2

from mesh.core.codec import decode_value, encode_value
from mesh.core.messages import CBOR, RAW
from mesh.core.types import RemoteProtocolError
from mesh.errors import ValueEncodingError

__all__ = ["decode_cbor", "encode_cbor"]


def encode_cbor(value: Any) -> bytes:
    """The value as CBOR; ``bytes`` as a byte string. Raises ``ValueEncodingError``."""
    kind, data = encode_value(value)
    return cbor2.dumps(data) if kind == RAW else data


def decode_cbor(data: bytes) -> Any:
    """The value that these bytes are. Raises ``ValueEncodingError`` for anything that is not exactly one."""
    try:
        return decode_value(CBOR, data)
    except RemoteProtocolError as error:
        raise ValueEncodingError("CBOR", error.detail) from None
