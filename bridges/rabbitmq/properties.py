"""``BrokerMessage`` ↔ AMQP 0-9-1 properties (RabbitMQ's amqp-0-9-1 reference, class *basic*).

What AMQP has a property for goes there, the rest among the headers.  AMQP's timestamp counts whole seconds;
milliseconds stand in the header ``timestamp_in_ms``, as RabbitMQ's own timestamp interceptor writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from aiormq import spec
from aiormq.abc import DeliveredMessage

from bridges.base import BrokerRejected
from bridges.messages import BrokerMessage, header_text

__all__ = ["PERSISTENT", "TRANSIENT", "delivered", "properties_of", "reject_name", "reject_short"]

TRANSIENT, PERSISTENT = 1, 2
"""Delivery modes."""

SHORT: Final = 255
"""Bytes of an AMQP short string: routing keys, names of headers, ids."""

NAME: Final = 128
"""Bytes of a header's name (AMQP 0-9-1 §4.2.5.5); the client would cut a longer one off."""

_MILLISECONDS: Final = "timestamp_in_ms"

_PROPERTIES: Final = {"content-encoding": "content_encoding", "type": "message_type", "app-id": "app_id"}
"""Headers of a mesh message that AMQP has a property for."""

_BROKERS_OWN: Final = ("x-death", "x-delivery-count")
"""Headers that RabbitMQ keeps its own account in: they mean nothing beyond it."""


def reject_short(text: str) -> str | None:
    """Why it can't be a routing key or an id; None if it can."""
    return _reject(text, SHORT)


def reject_name(text: str) -> str | None:
    """Likewise for a header's name."""
    return _reject(text, NAME)


def _reject(text: str, most: int) -> str | None:
    size = len(text.encode())
    return None if size <= most else f"has {size} bytes, and AMQP takes {most} at most"


def properties_of(
    message: BrokerMessage,
    *,
    mode: int,
    room: int,
    reply_to: str = "",
    correlation_id: str = "",
    expiration: float | None = None,
) -> spec.Basic.Properties:
    """The properties of ``message``; ``room`` is what one frame holds, ``expiration`` in seconds.

    Raises ``BrokerRejected``: what is too large for AMQP would cost the whole connection there.
    """
    headers: dict[str, Any] = dict(message.headers)
    named = {name: headers.pop(key) for key, name in _PROPERTIES.items() if key in headers}
    timestamp = None
    if message.timestamp is not None:
        timestamp = datetime.fromtimestamp(int(message.timestamp), UTC)
        headers[_MILLISECONDS] = round(message.timestamp * 1000)  # 1.001 * 1000 is below 1001
    shorts = {
        "content_type": message.content_type,
        "message_id": message.message_id,
        "reply_to": reply_to or message.reply_to,
        "correlation_id": correlation_id or message.correlation_id,
        **named,
    }
    size = 64 + len(message.destination.encode())
    for name, text in shorts.items():
        if reason := reject_short(text):
            raise BrokerRejected("property too large", f"{name} {reason}")
        size += len(text.encode())
    for name, value in headers.items():
        if reason := reject_name(name):
            raise BrokerRejected("header too large", f"a header's name {reason}")
        size += len(name.encode()) + (len(value.encode()) if isinstance(value, str) else 8) + 8
    if size > room:
        raise BrokerRejected("header too large", f"{size} bytes, and a frame holds {room}")
    return spec.Basic.Properties(
        headers=headers or None,
        delivery_mode=mode,
        timestamp=timestamp,
        expiration=None if expiration is None else str(max(1, int(expiration * 1000))),
        **{name: text for name, text in shorts.items() if text},
    )


def delivered(message: DeliveredMessage) -> BrokerMessage:
    """What a consumer was given."""
    properties = message.header.properties
    table: Mapping[str, Any] = properties.headers or {}
    headers = {name: header_text(value) for name, value in table.items() if name not in _BROKERS_OWN}
    timestamp = _seconds(properties.timestamp, table.get(_MILLISECONDS))
    if timestamp is not None:
        headers.pop(_MILLISECONDS, None)
    for key, name in _PROPERTIES.items():
        if text := getattr(properties, name):
            headers[key] = text
    key = message.routing_key or ""
    return BrokerMessage(
        key,
        message.body,
        key=key,
        headers=headers,
        content_type=properties.content_type or "",
        message_id=properties.message_id or "",
        timestamp=timestamp,
        reply_to=properties.reply_to or "",
        correlation_id=properties.correlation_id or "",
    )


def _seconds(timestamp: Any, milliseconds: Any) -> float | None:
    if isinstance(milliseconds, int) and not isinstance(milliseconds, bool) and milliseconds >= 0:
        return milliseconds / 1000
    return timestamp.timestamp() if timestamp is not None else None
