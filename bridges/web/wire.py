"""What a WebSocket client says: one object a message → an operation, or words on what is wrong with it.

``docs/reference/websocket.schema.json`` is the same in JSON Schema; the tests hold the two together.  What is not
the protocol at all (no JSON, no object) is ``NotTheProtocol`` and ends the connection; a mistake inside an object
is a ``Mistake`` and is answered.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import mesh
from bridges.web.encoding import Id
from mesh.errors import ValueEncodingError

__all__ = [
    "SUBPROTOCOLS",
    "Auth",
    "Mistake",
    "NotTheProtocol",
    "Operation",
    "Peers",
    "Publish",
    "Request",
    "Subscribe",
    "Unsubscribe",
    "from_json_value",
    "read",
    "read_headers",
]

SUBPROTOCOLS: Final = {"zeromesh.v1.json": "json", "zeromesh.v1.cbor": "cbor"}

_MAX_ID: Final = 2**53  # what every JSON library keeps exactly
_MAX_ID_TEXT: Final = 64
_MAX_TOKEN: Final = 512
_MAX_HEADERS: Final = 64
_DEEPEST: Final = 64  # what the mesh carries nests a quarter as deep; Python's own stack ends at some 500


class NotTheProtocol(Exception):
    """The bytes are no object of this protocol."""


class Mistake(Exception):
    """An operation with something wrong in it. ``id`` is the operation's, if it has one."""

    def __init__(self, detail: str, identifier: Id | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.id = identifier


@dataclass(frozen=True, slots=True)
class Auth:
    token: str


@dataclass(frozen=True, slots=True)
class Subscribe:
    id: Id
    pattern: str


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    id: Id


@dataclass(frozen=True, slots=True)
class Publish:
    id: Id | None
    topic: str
    value: Any
    headers: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class Request:
    id: Id
    topic: str
    value: Any
    headers: Mapping[str, str] | None
    timeout: float | None


@dataclass(frozen=True, slots=True)
class Peers:
    id: Id


Operation = Auth | Subscribe | Unsubscribe | Publish | Request | Peers


def read(data: str | bytes) -> Operation:
    """One message of a client: text is JSON, bytes are CBOR. Raises ``NotTheProtocol``, ``Mistake``."""
    if isinstance(data, str):
        try:
            fields = json.loads(data, parse_constant=_no_number)
        except (ValueError, RecursionError):
            raise NotTheProtocol("a message is one JSON object") from None
    else:
        try:
            fields = mesh.decode_cbor(data)
        except ValueEncodingError:
            raise NotTheProtocol("a message is one CBOR map") from None
    if not isinstance(fields, dict):
        raise NotTheProtocol("a message is one object")
    try:
        return _Fields(fields, isinstance(data, str)).operation()
    except RecursionError:
        raise NotTheProtocol("it is nested too deeply") from None


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def from_json_value(value: Any, depth: int = 0) -> Any:
    """A value as a JSON client writes it: an object whose only member is ``base64`` stands for bytes, at any depth.

    Raises ``ValueEncodingError`` for what is nested deeper than any value of the mesh.
    """
    if depth > _DEEPEST:
        raise ValueEncodingError(type(value).__name__, f"it nests deeper than {_DEEPEST} levels")
    if isinstance(value, dict):
        if len(value) == 1 and isinstance(text := value.get("base64"), str):
            try:
                return base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError):
                return value
        return {key: from_json_value(each, depth + 1) for key, each in value.items()}
    if isinstance(value, list):
        return [from_json_value(each, depth + 1) for each in value]
    return value


def read_headers(value: Any) -> Mapping[str, str] | None:
    """Headers that a client gave. Raises ``ValueError``."""
    if value is None:
        return None
    if (
        isinstance(value, dict)
        and len(value) <= _MAX_HEADERS
        and all(isinstance(each, str) for pair in value.items() for each in pair)
    ):
        return value
    raise ValueError(f"headers: expected at most {_MAX_HEADERS} texts by name")


class _Fields:
    """The members of one object, taken one by one."""

    def __init__(self, fields: dict[Any, Any], is_json: bool) -> None:
        self._fields = fields
        self._is_json = is_json
        self._id = self._any_id()

    def operation(self) -> Operation:
        op = self._fields.get("op")
        reader = _READERS.get(op) if isinstance(op, str) else None
        if reader is None:
            raise self._mistake(f"op: expected one of {', '.join(_READERS)}")
        return reader(self)

    def _mistake(self, detail: str) -> Mistake:
        return Mistake(detail, self._id)

    def _any_id(self) -> Id | None:
        value = self._fields.get("id")
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_ID:
            return value
        return value if isinstance(value, str) and 0 < len(value) <= _MAX_ID_TEXT else None

    def id(self) -> Id:
        if self._id is None:
            raise self._mistake(
                f"id: expected a whole number from 0, or text of 1 to {_MAX_ID_TEXT} characters"
            )
        return self._id

    def optional_id(self) -> Id | None:
        return self.id() if "id" in self._fields else None

    def text(self, name: str, most: int = 1024) -> str:
        value = self._fields.get(name)
        if not isinstance(value, str) or not 0 < len(value) <= most:
            raise self._mistake(f"{name}: expected text of 1 to {most} characters")
        return value

    def value(self) -> Any:
        value = self._fields.get("value")
        try:
            return from_json_value(value) if self._is_json else value
        except ValueEncodingError as error:
            raise self._mistake(f"value: {error.reason}") from None

    def headers(self) -> Mapping[str, str] | None:
        try:
            return read_headers(self._fields.get("headers"))
        except ValueError as error:
            raise self._mistake(str(error)) from None

    def timeout(self) -> float | None:
        value = self._fields.get("timeout")
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
            raise self._mistake("timeout: expected seconds above 0")
        return float(value)


_READERS: Final[dict[str, Callable[[_Fields], Operation]]] = {
    "auth": lambda it: Auth(it.text("token", _MAX_TOKEN)),
    "subscribe": lambda it: Subscribe(it.id(), it.text("pattern")),
    "unsubscribe": lambda it: Unsubscribe(it.id()),
    "publish": lambda it: Publish(it.optional_id(), it.text("topic"), it.value(), it.headers()),
    "request": lambda it: Request(it.id(), it.text("topic"), it.value(), it.headers(), it.timeout()),
    "peers": lambda it: Peers(it.id()),
}
