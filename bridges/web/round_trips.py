"""Round trips between all pairs, for people who look: this node's own, and what every daemon says of its own.

A daemon answers a request on ``TOPIC`` with ``{peer's id: seconds}`` (``mesh.daemon.measuring``).  All are asked every
``EVERY`` seconds while somebody has looked within the last ``KEPT``; nodes that are no daemons do not answer, and
their rows stay empty.  What comes from others is checked, and bounded (``Bounds.pairs``).
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from typing import Any, Final

import trio

import mesh
from bridges.web.bounds import Bounds
from mesh.errors import MeshError

__all__ = ["TOPIC", "RoundTrips"]

TOPIC: Final = "zeromesh/bench/trips"
KEPT: Final = 15.0
EVERY: Final = 5.0
_ANSWERS_WITHIN: Final = 2.0
_LONGEST: Final = 3600.0  # seconds; beyond that it is no round trip


class RoundTrips:
    """What is known of the pairs."""

    def __init__(self, node: mesh.Node, bounds: Bounds) -> None:
        self._node = node
        self._most = bounds.pairs
        self._told: dict[str, dict[str, float]] = {}
        self._asked = -KEPT
        self._wanted = trio.Event()

    def look(self) -> dict[str, Any]:
        """The pairs as they are known now; looking has the others asked."""
        self._asked = trio.current_time()
        self._wanted.set()
        node = self._node
        peers = node.peers.values()
        names = {node.id: node.name, **{peer.id: peer.name for peer in peers}}
        own = {peer.id: peer.rtt for peer in peers if peer.rtt is not None}
        pairs = [
            {"from": one, "to": other, "seconds": seconds}
            for one, row in {**self._told, node.id: own}.items()
            for other, seconds in row.items()
            if one in names and other in names  # of those who have left, too, was told
        ]
        return {
            "nodes": [{"id": each, "name": name} for each, name in names.items()],
            "pairs": pairs[: self._most],
            "others": max(0, len(pairs) - self._most),
        }

    async def run(self) -> None:
        """Ask while somebody looks, until cancelled."""
        while True:
            await self._wanted.wait()
            while trio.current_time() < self._asked + KEPT:
                await self._ask()
                await trio.sleep(EVERY)
            self._wanted = trio.Event()
            self._told.clear()

    async def _ask(self) -> None:
        known = {self._node.id, *self._node.peers}
        told: dict[str, dict[str, float]] = {}
        try:
            async with self._node.request_many(TOPIC, timeout=_ANSWERS_WITHIN) as replies:
                async for reply in replies:
                    if reply.error is None:
                        told[reply.sender.id] = _row(reply.value, known)
        except MeshError:
            pass  # nobody serves it, or nobody may ask: there are this node's own
        self._told = told


def _row(value: Any, known: Container[str]) -> dict[str, float]:
    """What another node said of nodes that are known here, as far as it can be true."""
    if not isinstance(value, Mapping):
        return {}
    return {
        peer: float(seconds)
        for peer, seconds in value.items()
        if peer in known
        and isinstance(seconds, (int, float))
        and not isinstance(seconds, bool)
        and math.isfinite(seconds)
        and 0 <= seconds < _LONGEST
    }
