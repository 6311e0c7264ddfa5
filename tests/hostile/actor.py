"""One side of the stage, in a process of its own: ``victim`` is what is attacked, ``friend`` a peer that goes on living.

    python -m tests.hostile.actor '{"role": …, "home": …, …}'     see ``Part``

A line of standard input is an order (``?`` answers with figures, ``zap MODE`` makes its ZAP handler ill, ``clock
SECONDS`` sets its wall clock), and each has one line of JSON for an answer.  The victim subscribes to everything, serves
``echo``, and publishes a canary all the time.  The friend asks for an echo all the time, tells how long that takes, and publishes
numbers: what the victim hears that is none of them, or hears twice, came from somebody else.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
import zmq

import mesh
from mesh.core.types import Address
from mesh.home import Admission, Home
from mesh.node import lookout, pump, switchboard
from mesh.transport import zmqtransport
from mesh.transport.base import TransportEvents
from mesh.transport.zap import Gate

CANARY = "canary-5f1c0f7e-never-in-clear"
NUMBERS = "numbers"
ZAP = "inproc://zeromq.zap.01"
CONFIG = mesh.Config.local(probe_after=5.0, probe_timeout=5.0, gone_after=20.0)


@dataclass
class Part:
    """Who to be. ``announce`` is told to others in place of the addresses that were bound."""

    role: str
    home: str
    seeds: list[str] = field(default_factory=list)
    listen: str = "tcp://127.0.0.1:0"
    discovery: list[str] = field(default_factory=list)
    announce: list[str] = field(default_factory=list)


class SickGate(Gate):
    """A ZAP handler that can fall ill: ``dead`` (nobody is there), ``hanging`` (it is asked and never answers),
    ``denying``; and get ``well`` again."""

    mode = "well"
    turned = trio.CancelScope()
    there = trio.Event()

    async def run(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        events: TransportEvents,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        while True:
            await _nobody_there(context)
            with trio.CancelScope() as SickGate.turned:
                if SickGate.mode == "dead":
                    SickGate.there.set()
                    await trio.sleep_forever()
                elif SickGate.mode == "hanging":
                    with context.socket(zmq.ROUTER) as raw:
                        raw.linger = 0
                        raw.bind(ZAP)
                        SickGate.there.set()
                        await trio.sleep_forever()
                else:
                    SickGate.there.set()
                    await super().run(context, events, task_status=task_status)
            task_status = trio.TASK_STATUS_IGNORED

    @classmethod
    async def turn(cls, mode: str) -> None:
        cls.mode, cls.there = mode, trio.Event()
        cls.turned.cancel()
        await cls.there.wait()

    def _judge(self, request: Sequence[bytes], events: TransportEvents, intro_rate: Any) -> Any:
        if SickGate.mode == "denying":
            return b"400", b"no", b""
        return super()._judge(request, events, intro_rate)


async def _nobody_there(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """Return when the handler before is gone: libzmq closes sockets in a thread of its own."""
    with context.socket(zmq.ROUTER) as raw:
        while True:
            try:
                raw.bind(ZAP)
            except zmq.ZMQError:
                await trio.sleep(0.005)
            else:
                raw.unbind(ZAP)
                return


class SetClock:
    """``time`` as the node's pump sees it, with a wall clock that can be set."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def time(self) -> float:
        return time.time() + self.ahead


def resident() -> int:
    """Bytes of this process in memory now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Actor:
    def __init__(self, node: mesh.Node, clock: SetClock) -> None:
        self.node = node
        self.clock = clock
        self.trips: list[float] = []
        self.numbers: set[int] = set()
        self.wrong = 0  # messages and requests that the friend did not make, or not again
        self.published = 0

    async def publish(self) -> None:
        publisher = self.node.publisher(f"{CANARY}/topic")
        while True:
            await publisher.publish(CANARY)
            await trio.sleep(0.01)

    async def number(self) -> None:
        publisher = self.node.publisher(NUMBERS)
        while True:
            await publisher.publish(self.published)
            self.published += 1
            await trio.sleep(0.01)

    async def listen(self) -> None:
        async with self.node.subscribe("**") as messages:
            async for message in messages:
                if message.sender.id == self.node.id:
                    continue
                if (
                    message.sender.name != "friend"
                    or message.topic != NUMBERS
                    or message.value in self.numbers
                ):
                    self.wrong += 1
                self.numbers.add(message.value)

    async def hear(self) -> None:
        async with self.node.subscribe(f"{CANARY}/**") as messages:
            async for _ in messages:
                self.numbers.add(len(self.numbers))

    async def serve(self) -> None:
        async def echo(request: mesh.Request) -> Any:
            self.wrong += request.sender.name != "friend"
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

    async def obey(self, order: str) -> dict[str, Any]:
        match order.split():
            case ["zap", mode]:
                await SickGate.turn(mode)
            case ["clock", seconds]:
                self.clock.ahead = float(seconds)
            case _:
                return self.answer()
        return {}

    def answer(self) -> dict[str, Any]:
        trips, self.trips = self.trips, []
        counts = self.node.statistics()
        return {
            "resident": resident(),
            "wrong": self.wrong,
            "heard": len(self.numbers),
            "published": self.published,
            "revocations": self.node._engine.standing.version,
            "peers": sorted(peer.name for peer in self.node.peers.values()),
            "rejected": dict(counts.rejected_by_reason),
            "trips": len(trips),
            "p99": statistics.quantiles(trips, n=100)[98] if len(trips) > 1 else 0.0,
        }


async def main(part: Part) -> None:
    zmqtransport.Gate = SickGate  # type: ignore[misc]
    clock = SetClock()
    for module in (pump, switchboard):
        module.time = clock  # type: ignore[attr-defined]
    if part.announce:
        lookout.advertised = lambda *_, **__: (Address(*part.announce),)  # type: ignore[attr-defined]
    async with mesh.open_node(
        part.role,
        home=part.home,
        listen=[part.listen],
        connect=part.seeds,
        discovery=part.discovery,
        config=CONFIG,
    ) as node:
        if part.role == "victim":
            own = Home(part.home)
            node.answer_joins(Admission(own, own.credentials().ca_public_key))
        actor = Actor(node, clock)
        async with trio.open_nursery() as nursery:
            tasks = {
                "victim": (actor.publish, actor.serve, actor.listen),
                "friend": (actor.ask, actor.hear, actor.number),
            }
            for task in tasks[part.role]:
                nursery.start_soon(task)
            ready = {
                "ready": [list(address) for address in node._lookout._bound.addresses],
                "endpoints": list(node.endpoints),
                "link": node._engine.record.link_key.hex(),
                "id": node.id,
            }
            print(json.dumps(ready), flush=True)
            async for line in trio.wrap_file(sys.stdin):
                print(json.dumps(await actor.obey(line)), flush=True)
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, Part(**json.loads(sys.argv[1])))
