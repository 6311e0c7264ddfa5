"""What ``mesh.toml`` may say about a RabbitMQ broker."""

from __future__ import annotations

from typing import Any, Final

from bridges.base import Kind
from bridges.forms import count, flag, one_of, text
from bridges.mapping import SourcePattern, words
from bridges.rabbitmq.broker import RabbitMQ
from bridges.rabbitmq.properties import reject_name, reject_short
from bridges.settings import BridgeSettings
from mesh.errors import ConfigError

__all__ = ["KIND"]

MAX_PREFETCH: Final = 65535
"""AMQP's field has 16 bits."""

MAX_HEARTBEAT: Final = 3600


def _name(value: Any) -> str | None:
    """Of an exchange; the default exchange's is empty."""
    if value == "":
        return None
    return text(value) or (reject_short(value) and "expected a name of 255 bytes at most")


def _queue(value: Any) -> str | None:
    return text(value) or (reject_short(value) and "expected a name of 255 bytes at most")


def _prefetch(value: Any) -> str | None:
    return count(value) or (None if value <= MAX_PREFETCH else f"expected {MAX_PREFETCH} at most")


def _heartbeat(value: Any) -> str | None:
    return count(value) or (None if value <= MAX_HEARTBEAT else f"expected {MAX_HEARTBEAT} seconds at most")


def _headers(value: Any) -> str | None:
    """The arguments of a headers exchange's binding."""
    if not isinstance(value, dict) or not value:
        return 'expected a table such as {region = "eu", "x-match" = "any"}'
    for name, each in value.items():
        if reject_name(name) or not isinstance(each, (str, int, bool)):
            return "expected a table of texts, whole numbers, true and false"
    return None


def _source(given: str) -> SourcePattern:
    if reason := reject_short(given):
        raise ValueError(reason)
    return words(given)


def _check(settings: BridgeSettings) -> None:
    for export in settings.exports:
        where = f"export[{export.number}]"
        options = export.options
        if options.get("exchange") == "" and "exchange_type" in options:
            raise ConfigError("the default exchange can't be declared", key=f"{where}.exchange_type")
        if "binding" in options and "queue" not in options:
            raise ConfigError("needs the queue to bind", key=f"{where}.binding")
        if "queue" in options and not export.to.fixed and "binding" not in options:
            raise ConfigError(
                "needs a binding beside it, since the routing keys differ", key=f"{where}.queue"
            )
    for each in settings.imports:
        where = f"import[{each.number}]"
        options = each.options
        if options.get("exchange") == "":
            if "exchange_type" in options:
                raise ConfigError("the default exchange can't be declared", key=f"{where}.exchange_type")
            if "queue" not in options and not each.source.exact:
                raise ConfigError(
                    "the default exchange has no patterns: expected the name of a queue", key=f"{where}.from"
                )


_EXCHANGE_TYPE: Final = one_of("topic", "direct", "fanout", "headers")

KIND: Final = Kind(
    name="rabbitmq",
    schemes={"amqp": False, "amqps": True},
    port=5672,
    separator=".",
    source=_source,
    make=RabbitMQ,
    options={"prefetch": _prefetch, "heartbeat": _heartbeat},
    export_options={
        "exchange": _name,
        "exchange_type": _EXCHANGE_TYPE,
        "mandatory": flag,
        "persistent": flag,
        "queue": _queue,
        "binding": text,
    },
    import_options={
        "exchange": _name,
        "exchange_type": _EXCHANGE_TYPE,
        "queue": _queue,
        "headers": _headers,
        "dead_letter": _queue,
    },
    requests=True,
    reject_destination=reject_short,
    check=_check,
)
