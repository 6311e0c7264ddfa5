"""One side of the stage, in a process of its own: ``victim`` is what is attacked, ``friend`` a peer that goes on living.

    python -m tests.hostile.actor ROLE HOME SEED…     a line of standard input is a question, a line of JSON its answer

The victim subscribes to everything, serves ``echo``, and publishes a canary all the time.  The friend asks for an
echo all the time, and tells how long that takes.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import trio

import mesh
from mesh.home import Admission, Home

CANARY = "canary-5f1c0f7e-never-in-clear"
CONFIG = mesh.Config.local(probe_after=5.0, probe_timeout=5.0, gone_after=20.0)


def resident() -> int:
    """Bytes of this process in memory now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Actor:
    def __init__(self, node: mesh.Node) -> None:
        self.node = node
        self.trips: list[float] = []
        self.heard = 0

    async def publish(self) -> None:
        publisher = self.node.publisher(f"{CANARY}/topic")
        while True:
            await publisher.publish(CANARY)
            await trio.sleep(0.01)

    async def listen(self) -> None:
        async with self.node.subscribe("**") as messages:
            async for _ in messages:
                self.heard += 1

    async def serve(self) -> None:
        async def echo(request: mesh.Request) -> Any:
            return request.value

        await self.node.serve("echo", echo)

    async def ask(self) -> None:
        while True:
            began = time.perf_counter()
            try:
                await self.node.request("echo", 1, timeout=10.0)
            except mesh.MeshError:
                await trio.sleep(0.05)
                continue
            self.trips.append(time.perf_counter() - began)
            await trio.sleep(0.005)

    def answer(self) -> dict[str, Any]:
        trips, self.trips = self.trips, []
        counts = self.node.statistics()
        return {
            "resident": resident(),
            "received": sum(peer.received for peer in counts.peers.values()),
            "heard": self.heard,
            "peers": sorted(peer.name for peer in self.node.peers.values()),
            "rejected": dict(counts.rejected_by_reason),
            "trips": len(trips),
            "p99": statistics.quantiles(trips, n=100)[98] if len(trips) > 1 else 0.0,
        }


async def main(role: str, home: str, seeds: list[str]) -> None:
    async with mesh.open_node(
        role, home=home, listen=["tcp://127.0.0.1:0"], connect=seeds, discovery=(), config=CONFIG
    ) as node:
        if role == "victim":
            own = Home(home)
            node.answer_joins(Admission(own, own.credentials().ca_public_key))
        actor = Actor(node)
        async with trio.open_nursery() as nursery:
            for task in (
                (actor.publish, actor.serve, actor.listen) if role == "victim" else (actor.ask, actor.listen)
            ):
                nursery.start_soon(task)
            addresses = [list(address) for address in node._engine.record.addresses]
            link = node._engine.record.link_key.hex()
            print(
                json.dumps({"ready": addresses, "endpoints": list(node.endpoints), "link": link}), flush=True
            )
            lines = trio.wrap_file(sys.stdin)
            async for _ in lines:
                print(json.dumps(actor.answer()), flush=True)
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], sys.argv[3:])
