"""Messages of the mesh as clients get them: encoded once for each format, whoever and how many they are for.

    mesh.Message → ``Encoded`` ┬ JSON text  {"op":"message","id":ID, …}     ┐ as a whole WebSocket frame
                               ├ CBOR       the same, the value's own bytes ┘ (RFC 6455 §5.2, not masked)
                               └ an event of a stream of server-sent events

Only the ID that a client gave its subscription differs, and it stands in front: the rest is encoded once, and a
frame once for each ID in use, which is one where all clients run the same program.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Mapping, Sequence
from datetime import date, time
from typing import Any, Final, Literal

import mesh
from mesh.errors import ValueEncodingError

__all__ = ["CBOR", "EVENTS", "JSON", "Encoded", "Format", "Id", "encode", "frame", "jsonable", "to_json"]

Format = Literal["json", "cbor", "events"]
Id = int | str

JSON: Final[Format] = "json"
CBOR: Final[Format] = "cbor"
EVENTS: Final[Format] = "events"

_DIGIT_BITS: Final = 8192  # longer integers take quadratic time to write in decimal
_TEXT, _BINARY = 0x81, 0x82  # FIN and the opcode


def frame(data: bytes, *, text: bool) -> bytes:
    """A server's WebSocket frame with this payload."""
    size = len(data)
    first = _TEXT if text else _BINARY
    if size < 126:
        return bytes((first, size)) + data
    if size < 1 << 16:
        return struct.pack("!BBH", first, 126, size) + data
    return struct.pack("!BBQ", first, 127, size) + data


# -- JSON ---------------------------------------------------------------------------------


def to_json(value: Any) -> str:
    """The value as JSON; what JSON lacks in a readable form, bytes as ``{"base64": …}``."""
    try:
        return json.dumps(
            value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_readable
        )
    except (
        TypeError,
        ValueError,
        RecursionError,
    ):  # keys that are no text, NaN, integers of thousands of digits
        return json.dumps(jsonable(value), ensure_ascii=False, separators=(",", ":"))


def _readable(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, (set, frozenset)):
        return sorted((jsonable(each) for each in value), key=str)
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    try:
        return str(value)
    except ValueError:  # a fraction of numbers with more digits than Python writes
        return f"<{type(value).__name__}>"


def jsonable(value: Any) -> Any:
    """The value with everything that JSON lacks in a readable form; NaN and infinity become null."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > _DIGIT_BITS:
        return hex(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_key(key): jsonable(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return [jsonable(each) for each in value]
    return _readable(value)


def _key(key: Any) -> str:
    return base64.b64encode(key).decode() if isinstance(key, bytes) else str(jsonable(key))


def encode(message: Mapping[str, Any], form: Format) -> bytes:
    """One object of the WebSocket protocol, as a frame."""
    if form == CBOR:
        return frame(mesh.encode_cbor(message), text=False)
    return frame(to_json(message).encode(), text=True)


# -- messages of the mesh -------------------------------------------------------------------

_CBOR_ITEM: Final = {name: mesh.encode_cbor(name) for name in (
    "op", "id", "message", "topic", "value", "sender", "sequence", "timestamp", "headers")}  # fmt: skip
_MAP_OF: Final = {7: b"\xa7", 8: b"\xa8"}


class Encoded:
    """One message, on its way to all clients that want it."""

    __slots__ = ("_frames", "_message", "_rest")

    def __init__(self, message: mesh.Message) -> None:
        self._message = message
        self._rest: dict[Format, bytes] = {}
        self._frames: dict[tuple[Format, Id], bytes] = {}

    def frame(self, form: Format, identifier: Id) -> bytes:
        """What a client with this format gets for the subscription with this id."""
        key = (form, identifier)
        ready = self._frames.get(key)
        if ready is None:
            ready = self._frames[key] = self._make(form, identifier)
        return ready

    def _make(self, form: Format, identifier: Id) -> bytes:
        rest = self._rest.get(form)
        if rest is None:
            rest = self._rest[form] = self._encode(form)
        if form == EVENTS:
            return rest
        if form == CBOR:
            return frame(rest[:1] + _cbor_head(identifier) + rest[1:], text=False)
        return frame(b'{"op":"message","id":' + json.dumps(identifier).encode() + b"," + rest, text=True)

    def _encode(self, form: Format) -> bytes:
        message = self._message
        if form == CBOR:
            return self._encode_cbor()
        try:
            value = message.value
        except ValueEncodingError:  # another implementation sent what we would not decode: its bytes, then
            value = message.data
        fields = {
            "topic": message.topic,
            "value": value,
            "sender": message.sender.name,
            "sequence": message.sequence,
            "timestamp": message.timestamp,
        }
        if message.headers:
            fields["headers"] = dict(message.headers)
        text = to_json(fields)
        if form == EVENTS:
            return f"event: message\ndata: {text}\n\n".encode()
        return text[1:].encode()

    def _encode_cbor(self) -> bytes:
        """The map's head byte, then all but ``op`` and ``id``; the value's bytes cross as they are."""
        message, item, cbor = self._message, _CBOR_ITEM, mesh.encode_cbor
        headers = message.headers
        parts = [
            _MAP_OF[8 if headers else 7],
            item["topic"], cbor(message.topic),
            item["value"], cbor(message.data) if message.kind == 0 else message.data,
            item["sender"], cbor(message.sender.name),
            item["sequence"], cbor(message.sequence),
            item["timestamp"], cbor(message.timestamp),
        ]  # fmt: skip
        if headers:
            parts += [item["headers"], cbor(dict(headers))]
        return b"".join(parts)


def _cbor_head(identifier: Id) -> bytes:
    return _CBOR_ITEM["op"] + _CBOR_ITEM["message"] + _CBOR_ITEM["id"] + mesh.encode_cbor(identifier)
