"""Bridges between a mesh and message brokers or the web.

A bridge is an ordinary program of the mesh: it uses only the public names of ``mesh``.
Each client stands behind an extra (``redis``, ``rabbitmq``, ``kafka``, ``web``).

    async with mesh.open_node("hub") as node, bridges.open_bridge(node, {
        "kind": "redis", "url": "redis://127.0.0.1:6379/0",
        "export": [{"pattern": "home/**", "to": "home.{1}"}],
    }) as bridge:
        ...
"""

from __future__ import annotations

from bridges.base import BrokerError, BrokerRejected, BrokerUnavailable
from bridges.bridge import Bridge, check_bridge, open_bridge
from bridges.config import bridge_reader, read_bridge
from bridges.counters import BridgeStatistics, RouteStatistics
from bridges.several import open_bridges
from bridges.spool import SpoolStatistics
from bridges.window import SeenWindow

__all__ = [
    "Bridge",
    "BridgeStatistics",
    "BrokerError",
    "BrokerRejected",
    "BrokerUnavailable",
    "RouteStatistics",
    "SeenWindow",
    "SpoolStatistics",
    "bridge_reader",
    "check_bridge",
    "open_bridge",
    "open_bridges",
    "read_bridge",
]
