"""A message as brokers carry it, and its text form for brokers that have headers alone.

Every broker's client turns what it receives into a ``BrokerMessage`` and what it is given into its own
kind.  What a broker has a property for (AMQP's ``message_id``) goes there; where there are headers alone
(Kafka's records, Redis' streams) ``flatten`` writes the fields among the headers and ``unflatten`` reads
them back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

__all__ = [
    "CONTENT_TYPE",
    "CORRELATION_ID",
    "ERROR",
    "MESSAGE_ID",
    "ORIGIN",
    "PATH",
    "REJECTED",
    "REPLY_TO",
    "SENDER",
    "TIMESTAMP",
    "TOPIC",
    "TRACE",
    "BrokerMessage",
    "Flattening",
    "flatten",
    "header_text",
    "unflatten",
]

# The names of fields where there are headers alone; the same names stand in the headers of mesh messages.
MESSAGE_ID: Final = "message-id"
CONTENT_TYPE: Final = "content-type"
TIMESTAMP: Final = "timestamp"
REPLY_TO: Final = "reply-to"
CORRELATION_ID: Final = "correlation-id"

# Headers of the bridges' own.
PATH: Final = "mesh-path"
"""The bridges passed, oldest first, with commas between: what keeps loops from forming."""
TOPIC: Final = "mesh-topic"
"""The mesh topic that it was exported from."""
SENDER: Final = "mesh-sender"
"""The name of the node that published it."""
ERROR: Final = "mesh-error"
"""On a reply: the type of the error that it carries instead of a value."""

REJECTED: Final = "mesh-rejected"
"""On a dead letter: why it is one."""
ORIGIN: Final = "mesh-origin"
"""On a dead letter: where it comes from."""

TRACE: Final = ("traceparent", "tracestate")
"""Trace context (W3C Trace Context): crosses untouched like every other header; named here for who reads it."""


_NONE: Final[Mapping[str, str]] = {}


class BrokerMessage(NamedTuple):
    """One message at the broker's side of a bridge. Nobody changes its headers: messages may share them.

    (A named tuple, since one is made of every message: twice as fast as the fastest class.)

    ``destination`` is the channel, stream, routing key or Kafka topic. ``key`` is what the broker shall keep in
    order (messages of one mesh topic have one key) and partition by. ``timestamp`` is in seconds since the Unix
    epoch, None if unknown. Texts that are unknown are empty.
    """

    destination: str
    data: bytes
    key: str = ""
    headers: Mapping[str, str] = _NONE
    content_type: str = ""
    message_id: str = ""
    timestamp: float | None = None
    reply_to: str = ""
    correlation_id: str = ""
    filled: Mapping[str, str] = _NONE
    """What the route's further templates (``ExportRoute.templates``) came to; only on the way to the broker."""


def header_text(value: Any) -> str:
    """A broker's header as text, whatever it is there: bytes that are no UTF-8 keep their other characters."""
    if isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode(errors="replace")
    if value is None:
        return ""
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return str(value)


def flatten(message: BrokerMessage) -> dict[str, str]:
    """Headers and fields in one, for a broker without properties."""
    flat = dict(message.headers)  # field by field, without a loop: it is done for every message
    if message.message_id:
        flat[MESSAGE_ID] = message.message_id
    if message.content_type:
        flat[CONTENT_TYPE] = message.content_type
    if message.reply_to:
        flat[REPLY_TO] = message.reply_to
    if message.correlation_id:
        flat[CORRELATION_ID] = message.correlation_id
    if message.timestamp is not None:
        flat[TIMESTAMP] = repr(message.timestamp)
    return flat


class Flattening:
    """``flatten`` for one message after the other: what one shares with the one before is not worked out again.

    What an export route makes of one topic's messages shares its ``headers``, the object itself.
    """

    def __init__(self) -> None:
        self._last: BrokerMessage | None = None
        self._shared: dict[str, str] = {}

    def flat(self, message: BrokerMessage) -> dict[str, str]:
        last = self._last
        if (
            last is None
            or message.headers is not last.headers
            or message.timestamp != last.timestamp
            or message.content_type != last.content_type
            or message.reply_to != last.reply_to
            or message.correlation_id != last.correlation_id
        ):
            self._last = message
            self._shared = flatten(message)
            self._shared.pop(MESSAGE_ID, None)
        flat = self._shared.copy()
        if message.message_id:
            flat[MESSAGE_ID] = message.message_id
        return flat


def unflatten(destination: str, data: bytes, flat: Mapping[str, str], *, key: str = "") -> BrokerMessage:
    """The message that ``flatten`` wrote, or that others did in its likeness."""
    headers = dict(flat)
    timestamp = _seconds(headers.get(TIMESTAMP))
    if timestamp is not None:
        del headers[TIMESTAMP]
    return BrokerMessage(
        destination,
        data,
        key=key,
        message_id=headers.pop(MESSAGE_ID, ""),
        content_type=headers.pop(CONTENT_TYPE, ""),
        reply_to=headers.pop(REPLY_TO, ""),
        correlation_id=headers.pop(CORRELATION_ID, ""),
        timestamp=timestamp,
        headers=headers,
    )


def _seconds(text: str | None) -> float | None:
    """Seconds since the epoch; None for what is no such number (it stays a header then)."""
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None
