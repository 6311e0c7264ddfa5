"""The systems that are compared, one adapter module each (see ``benchmarks.adapter``).

To add one: write a module here with ``ADAPTERS``, and name it in ``_MODULES``.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from benchmarks.adapter import Adapter

__all__ = ["BASE", "adapters", "load"]

BASE = "zeromesh"
"""The system that the others are compared with."""

_MODULES = (
    "zeromesh",
    "bare_zmq",
    "trio_zmq",
    "zenoh_python",
    "nats_python",
    "redis_python",
    "nng_python",
    "dds_python",
)


@cache
def adapters() -> dict[str, Adapter]:
    """Every adapter by its name, ours first."""
    return {
        adapter.name: adapter
        for module in _MODULES
        for adapter in import_module(f"{__name__}.{module}").ADAPTERS
    }


def load(name: str) -> Adapter:
    """One adapter. Raises ``KeyError`` for a name that there isn't."""
    return adapters()[name]
