"""The kinds of brokers by name. An adapter's module, and its client library, is loaded when it is first wanted."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final, cast

from bridges.forms import perhaps
from mesh.errors import ConfigError

if TYPE_CHECKING:
    from bridges.base import Kind

__all__ = ["MODULES", "kind_named"]

MODULES: Final[dict[str, str]] = {"kafka": "confluent_kafka", "rabbitmq": "aio_pika", "redis": "coredis"}
"""Name of the kind (its module in ``bridges``, and the extra to install) → the library it needs."""


def kind_named(name: str) -> Kind:
    """The kind of this name. Raises ``ConfigError``: there is none, or what it needs is not installed."""
    library = MODULES.get(name)
    if library is None:
        raise ConfigError(f"expected one of {', '.join(MODULES)}{perhaps(name, MODULES)}", key="kind")
    try:
        module = import_module(f"bridges.{name}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != library:
            raise
        raise ConfigError(
            f"bridges to {name} need a package that is not installed: pip install zeromesh[{name}]",
            key="kind",
        ) from None
    return cast("Kind", module.KIND)
