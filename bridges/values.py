"""Values across a bridge: bytes as they are, JSON or CBOR, by the route's ``format``.

    raw    bytes cross untouched. A value that is no bytes crosses as the CBOR that the mesh has it in, and says so
           in its content type, by which an import knows it again
    json   a value as JSON text (RFC 8259), bytes as ``{"base64": …}``; an import takes JSON only
    cbor   a value as CBOR (RFC 8949), bytes as a byte string; an import takes CBOR only

What does not fit raises ``Unmappable``.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from datetime import date, time
from typing import Any, Final

import mesh
from bridges.settings import Format
from mesh.errors import ValueEncodingError

__all__ = ["CBOR", "JSON", "RAW", "SEALED", "Unmappable", "from_broker", "to_broker"]

CBOR: Final = "application/cbor"
JSON: Final = "application/json"
RAW: Final = "application/octet-stream"
SEALED: Final = "application/vnd.zeromesh.sealed"
"""What ``mesh.Vault`` sealed: for members of the mesh only."""

_DIGIT_BITS: Final = 8192  # longer integers take quadratic time to write in decimal


class Unmappable(ValueError):
    """It cannot cross. ``reason`` is the same for all failures of one cause; ``detail`` says more."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


def to_broker(message: mesh.Message | mesh.Request, form: Format) -> tuple[bytes, str]:
    """A mesh message's value → the bytes for the broker, and their content type. Raises ``Unmappable``."""
    plain = message.kind == 0
    if form == "raw":
        return message.data, RAW if plain else CBOR
    if form == "cbor":
        return (mesh.encode_cbor(message.data), CBOR) if plain else (message.data, CBOR)
    return encode(_value_of(message), "json")


def _value_of(message: mesh.Message | mesh.Request) -> Any:
    try:
        return message.value
    except ValueEncodingError as error:
        raise Unmappable("not CBOR", error.reason) from None


def encode(value: Any, form: Format) -> tuple[bytes, str]:
    """A value → bytes, and their content type. Raises ``Unmappable``."""
    if form == "raw" and isinstance(value, bytes):
        return value, RAW
    if form == "json":
        try:
            return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False).encode(), JSON
        except (ValueError, TypeError, RecursionError) as error:
            raise Unmappable("not JSON", str(error)) from None
    try:
        return mesh.encode_cbor(value), CBOR
    except ValueEncodingError as error:
        raise Unmappable("not CBOR", error.reason) from None


def from_broker(data: bytes, content_type: str, form: Format) -> Any:
    """What a broker carried → the value for the mesh. Raises ``Unmappable``."""
    if form == "json":
        try:
            return json.loads(data, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
            raise Unmappable("not JSON", str(error)) from None
    if form == "cbor" or content_type == CBOR:
        try:
            return mesh.decode_cbor(data)
        except ValueEncodingError as error:
            raise Unmappable("not CBOR", error.reason) from None
    return data


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _plain(value: Any) -> Any:
    """The value with everything that JSON lacks in a readable form."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > _DIGIT_BITS:
        return hex(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is no number of JSON")
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        return {_key(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(each) for each in value), key=str)
    if isinstance(value, Sequence):
        return [_plain(each) for each in value]
    if isinstance(value, (date, time)):
        return value.isoformat()
    return str(value)


def _key(key: Any) -> str:
    return base64.b64encode(key).decode() if isinstance(key, bytes) else str(key)
