"""Traffic by topic, for people who look: a subscription to everything that counts and keeps nothing.

It runs while somebody has asked within the last ``KEPT`` seconds, so that a gateway at which nobody looks subscribes
to nothing.  The table is bounded (``Bounds.traffic_topics``); what finds no room is counted in ``others``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final

import trio

import mesh
from bridges.web.bounds import Bounds

__all__ = ["TrafficMeter"]

KEPT: Final = 15.0
_SENDERS: Final = 8  # named in a row
_MEMORY: Final = 5.0  # seconds over which rates are smoothed


@dataclass(slots=True)
class _Row:
    messages: int = 0
    bytes: int = 0
    rate: float = 0.0
    at: float = 0.0
    senders: dict[str, None] = field(default_factory=dict)

    def count(self, message: mesh.Message, now: float) -> None:
        self.messages += 1
        self.bytes += len(message.data)
        self.rate = self.rate_at(now) + 1 / _MEMORY
        self.at = now
        if len(self.senders) < _SENDERS:
            self.senders[message.sender.name] = None

    def rate_at(self, now: float) -> float:
        return self.rate * math.exp((self.at - now) / _MEMORY)


class TrafficMeter:
    """Counts messages by topic while somebody looks."""

    def __init__(self, node: mesh.Node, bounds: Bounds) -> None:
        self._node = node
        self._most = bounds.traffic_topics
        self._rows: dict[str, _Row] = {}
        self._others = self._lost = self._dropped = 0
        self._asked = 0.0
        self._watch = trio.CancelScope()
        self._wanted = trio.Event()

    def look(self) -> dict[str, Any]:
        """The table as it is now; looking keeps it going."""
        now = trio.current_time()
        self._asked = now
        self._watch.deadline = now + KEPT
        self._wanted.set()
        rows = [
            {
                "topic": topic,
                "messages": row.messages,
                "bytes": row.bytes,
                "rate": round(row.rate_at(now), 2),
                "senders": list(row.senders),
            }
            for topic, row in self._rows.items()
        ]
        rows.sort(key=lambda row: (-float(str(row["rate"])), str(row["topic"])))
        return {"topics": rows, "others": self._others, "lost": self._lost, "dropped": self._dropped}

    async def run(self) -> None:
        """Count while somebody looks, until cancelled."""
        while True:
            await self._wanted.wait()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._count)
                with trio.CancelScope(deadline=self._asked + KEPT) as self._watch:
                    await trio.sleep_forever()
                nursery.cancel_scope.cancel()
            self._wanted = trio.Event()
            self._rows.clear()
            self._others = self._lost = self._dropped = 0

    async def _count(self) -> None:
        rows = self._rows
        async with self._node.subscribe("**") as subscription:
            async for message in subscription:
                row = rows.get(message.topic)
                if row is None:
                    if len(rows) >= self._most:
                        self._others += 1
                        continue
                    row = rows[message.topic] = _Row()
                row.count(message, trio.current_time())
                self._lost, self._dropped = subscription.lost, subscription.dropped
