"""What ``mesh.toml`` may say about a bridge to Redis."""

from __future__ import annotations

from typing import Any, Final

from bridges.base import Kind
from bridges.forms import count, flag, one_of, seconds, text
from bridges.mapping import glob
from bridges.redis.broker import RedisBroker
from bridges.redis.notes import CHANNEL
from bridges.settings import BridgeSettings
from mesh.errors import ConfigError

__all__ = ["KIND"]

_NAME: Final = 512
"""Bytes of a key or channel: Redis would take half a gigabyte."""


def _reject_destination(destination: str) -> str | None:
    if not destination or len(destination.encode()) > _NAME:
        return f"a key or channel has 1 to {_NAME} bytes"
    return "it is where headers travel" if destination == CHANNEL else None


def _check(settings: BridgeSettings) -> None:
    def fail(key: str, reason: str) -> None:
        raise ConfigError(reason, key=key)

    address = settings.address
    if len(address.hosts) > 1:
        fail("url", "expected one server, not several")
    if address.path and not (address.path.isascii() and address.path.isdigit() and len(address.path) < 6):
        fail("url", "expected the number of a database after the slash, such as redis://127.0.0.1:6379/0")
    for route in settings.exports:
        _only_for(route.options, route.reliable, route.name)
    for each in settings.imports:
        _only_for(each.options, each.reliable, each.name)


def _only_for(options: Any, reliable: bool, where: str) -> None:
    for key in options:
        if (key == "headers") == reliable:
            kind = "that is not reliable" if key == "headers" else "with reliable = true"
            raise ConfigError(f"is for a route {kind}", key=f"{where}.{key}")


KIND: Final = Kind(
    name="redis",
    schemes={"redis": False, "rediss": True},
    port=6379,
    separator=".",
    source=glob,
    make=RedisBroker,
    export_options={"max_length": count, "headers": flag},
    export_templates=("retain",),
    import_options={"group": text, "claim_after": seconds, "start": one_of("all", "new")},
    reject_destination=_reject_destination,
    check=_check,
)
