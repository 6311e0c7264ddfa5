"""From the names in ``discovery=`` to the mechanisms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mesh.config import Limits
from mesh.discovery.base import Discovery
from mesh.errors import ConfigError

__all__ = ["MECHANISMS", "create"]

MECHANISMS: Final = ("mdns", "scout")
"""What ``discovery=`` may name. Seeds are given by ``connect=``."""


def create(names: Iterable[str], *, beacon_key: bytes, limits: Limits | None = None) -> list[Discovery]:
    """One mechanism for each name; none for an empty list.

    ``beacon_key`` is ``mesh.core.keys.beacon_key(mesh_id)``. Raises ``ConfigError`` for a name that
    is unknown or given twice.
    """
    if isinstance(names, str):
        raise ConfigError(f"expected a list of names, got {names!r}", key="discovery")
    made: dict[str, Discovery] = {}
    for name in names:
        if name in made:
            raise ConfigError(f"{name!r} is given twice", key="discovery")
        # zeroconf and its event loop are imported only where they are wanted.
        if name == "mdns":
            from mesh.discovery.mdns import MdnsDiscovery

            made[name] = MdnsDiscovery(beacon_key, limits=limits)
        elif name == "scout":
            from mesh.discovery.scout import ScoutDiscovery

            made[name] = ScoutDiscovery(beacon_key, limits=limits)
        else:
            known = ", ".join(MECHANISMS)
            raise ConfigError(f"unknown mechanism {name!r}, expected some of: {known}", key="discovery")
    return list(made.values())
