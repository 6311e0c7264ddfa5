"""What a node says and hears while it is harmed: numbered messages, plain and reliable, and the account of them.

Each node publishes on ``load/KIND/NAME`` (KIND is ``plain`` or ``kept``) and reads everybody's. ``told()`` is, as JSON:
``published``: kind → count, and ``seen``: publisher's name → kind → [delivered, lost, twice, out of order].
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

import trio

import mesh

__all__ = ["KINDS", "Load"]

KINDS: Final = ("plain", "kept")
DELIVERED, LOST, TWICE, DISORDERED = range(4)
RING: Final = 64 << 20  # bytes: more than is published while anybody is away


class Load:
    """``rate`` messages a second of each kind, of ``size`` bytes; 0: read only. ``pace``: seconds to read one."""

    def __init__(self, node: mesh.Node, rate: float, size: int, pace: float) -> None:
        self._node = node
        self._rate = rate
        self._size = size
        self._pace = pace
        self._begun = trio.Event()
        self._quiet = False
        self._published = dict.fromkeys(KINDS, 0)
        self._seen: dict[str, dict[str, list[int]]] = defaultdict(
            lambda: {kind: [0, 0, 0, 0] for kind in KINDS}
        )
        self._next: dict[tuple[str, str], int] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._losses)
            await nursery.start(self._read)
            task_status.started()
            if self._rate:
                for kind in KINDS:
                    nursery.start_soon(self._publish, kind)

    def begin(self) -> None:
        """Publish, now that everybody listens."""
        self._begun.set()

    def quiet(self) -> None:
        """Publish nothing more."""
        self._quiet = True

    def told(self) -> dict[str, Any]:
        return {"published": self._published, "seen": self._seen}

    async def _publish(self, kind: str) -> None:
        padding = bytes(self._size)
        how: dict[str, Any] = {"reliable": True, "ring": RING} if kind == "kept" else {}
        async with self._node.publisher(f"load/{kind}/{self._node.name}", **how) as publisher:
            await self._begun.wait()
            due = trio.current_time()
            while not self._quiet:
                await publisher.publish(padding)
                self._published[kind] += 1
                due += 1 / self._rate
                if due > trio.current_time():
                    await trio.sleep_until(due)
            await trio.sleep_forever()  # what it keeps is for whoever misses it

    async def _read(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with self._node.subscribe("load/**", buffer=1 << 20) as messages:
            task_status.started()
            async for message in messages:
                _, kind, name = message.topic.split("/")
                tally = self._seen[name][kind]
                expected = self._next.get((message.sender.id, kind), 0)
                tally[DELIVERED] += 1
                if message.sequence < expected:
                    tally[TWICE if message.sequence == expected - 1 else DISORDERED] += 1
                self._next[message.sender.id, kind] = message.sequence + 1
                if self._pace:
                    await trio.sleep(self._pace)

    async def _losses(self) -> None:
        async for loss in self._node.watch_losses():
            _, _, rest = loss.topic.partition("load/")
            kind, _, name = rest.partition("/")
            if kind in KINDS:
                self._seen[name][kind][LOST] += loss.count
