"""An episode of real nodes in trouble: ``mesh.testing``'s network, programs that publish and read, some of them slowly.

``episode(seed)`` → three nodes that publish plainly and reliably and subscribe to each other's, with buffers of all sizes, and a
guest that crashes and comes back, while messages are lost, doubled and flipped, ways are cut, nodes take nothing for a
while → everything heals → the account must be right.  After every step: what each subscription received is what its
program took, what it dropped, and what waits; messages come in order and once.

    python -m tests.simulation --kind nodes --first 17 --seeds 1 --trace
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AsyncExitStack
from random import Random
from typing import Any, Final

import trio

import mesh
from mesh.testing import VirtualNetwork, run
from tests.simulation.mesh import Broken

__all__ = ["Episode"]

NAMES: Final = ("a", "b", "c")
STEPS: Final = 30
BUFFERS: Final = (1, 3, 65536)  # the first two belong to programs that may be too slow


class Reader:
    """One subscription to one topic, and what its program has made of it."""

    def __init__(self, node: mesh.Node, topic: str, messages: mesh.Subscription) -> None:
        self.name = f"{node.name} of {topic}"
        self.topic = topic
        self.messages = messages
        self.taken: list[int] = []

    def read(self, most: int) -> None:
        for _ in range(min(most, self.messages.queued)):
            message = self.messages.receive_nowait()
            assert message is not None
            if self.taken and message.value <= self.taken[-1]:
                raise Broken(f"{self.name} has {message.value} behind {self.taken[-1]}")
            self.taken.append(message.value)

    def check(self) -> None:
        m = self.messages
        if m.received != m.delivered + m.dropped + m.queued or m.delivered != len(self.taken):
            raise Broken(f"{self.name}: {m.received} received, {m.delivered} + {m.dropped} + {m.queued}")
        if m.queued >= 2 * m.buffer and m.queued > 1:  # what is in the program's hand is not taken back
            raise Broken(f"{self.name} holds {m.queued} of {m.buffer}")


class Episode:
    """One run. ``history`` tells what was done, in order."""

    def __init__(self, seed: int, trace: Callable[[str], None] = lambda line: None) -> None:
        self.seed = seed
        self.history: list[str] = []
        self.clock = 0.0
        self._trace = trace
        self._chance = Random(seed)
        self._published: dict[str, int] = {}
        self._readers: list[Reader] = []
        self._nodes: dict[str, mesh.Node] = {}
        self._publishers: dict[str, mesh.Publisher] = {}

    def run(self) -> Episode:
        run(self._main, seed=self.seed)
        return self

    def digest(self) -> str:
        """What happened, in a few characters: the same for the same seed."""
        told = [f"{each.name} {each.taken} {each.messages.lost}" for each in self._readers]
        return hashlib.sha256("\n".join(self.history + told).encode()).hexdigest()[:16]

    def _note(self, line: str) -> None:
        self.history.append(f"{trio.current_time():10.4f} {line}")
        self._trace(self.history[-1])

    async def _main(self) -> None:
        self.network = VirtualNetwork(self.seed, jitter=0.002, pipe=16, config=mesh.Config.local())
        async with AsyncExitStack() as stack:
            for name in NAMES:
                self._nodes[name] = await stack.enter_async_context(self.network.open_node(name))
            for node in self._nodes.values():
                await node.wait_for_peers(len(NAMES) - 1)
            await self._open(stack)
            async with self.network.open_node("guest") as guest, guest.subscribe("**", buffer=1):
                await self._trouble(guest)
            async with self.network.open_node("guest") as guest:
                await self._heal(guest)
            self.clock = trio.current_time()

    async def _open(self, stack: AsyncExitStack) -> None:
        for name, node in self._nodes.items():
            for kind in ("plain", "kept"):
                topic = f"{kind}/{name}"
                self._published[topic] = 0
                publisher = node.publisher(topic, reliable=kind == "kept")
                self._publishers[topic] = await stack.enter_async_context(publisher)
                for other in self._nodes.values():
                    if other is not node:
                        wanted = other.subscribe(topic, buffer=self._chance.choice(BUFFERS))
                        messages = await stack.enter_async_context(wanted)
                        self._readers.append(Reader(other, topic, messages))

    async def _trouble(self, guest: mesh.Node) -> None:
        crash_at = self._chance.randrange(STEPS)
        for step in range(STEPS):
            if step == crash_at:
                self._note("the guest crashes")
                self.network.crash("guest")
            await self._chance.choices((self._publish, self._read, self._harm), (6, 3, 2))[0]()
            await trio.sleep(self._chance.choice((0.0, 0.001, 0.02, 0.3)))
            for reader in self._readers:
                reader.check()

    async def _publish(self) -> None:
        topic = self._chance.choice(list(self._published))
        count = self._chance.randrange(1, 8)
        self._note(f"{count} on {topic}")
        for _ in range(count):
            await self._publishers[topic].publish(self._published[topic])
            self._published[topic] += 1

    async def _read(self) -> None:
        for reader in self._readers:
            reader.read(self._chance.choice((0, 1, 100)))

    async def _harm(self) -> None:
        network, chance = self.network, self._chance
        one, other = chance.sample(NAMES, 2)
        what = chance.choice(("disturb", "calm", "cut", "one way", "heal", "break", "pause", "clock", "slow"))
        self._note(f"{what} {one} {other}")
        match what:
            case "disturb":
                network.disturb(loss=chance.choice((0.05, 0.3)), duplicate=0.05, flip=0.05)
            case "calm":
                network.disturb()
            case "cut" | "one way":
                network.cut(one, other, one_way=what == "one way")
            case "heal":
                network.heal(one, other)
            case "break":
                network.break_connections(one, other)
            case "pause":
                network.pause(one)
                await trio.sleep(chance.choice((0.1, 1.0)))
                network.resume(one)
            case "clock":
                network.set_clock(one, chance.choice((-30.0, 30.0, 3600.0)))
            case "slow":
                network.delay(one, other, chance.choice((0.001, 0.1)), one_way=True)

    async def _heal(self, guest: mesh.Node) -> None:
        self._note("everything heals")
        self.network.disturb()
        for one in NAMES:
            for other in NAMES:
                if one < other:
                    self.network.heal(one, other)
        await trio.sleep(20)
        names = {*NAMES, "guest"}
        for node in (*self._nodes.values(), guest):
            seen = {peer.name for peer in node.peers.values()}
            if seen != names - {node.name}:
                raise Broken(f"{node.name} sees {sorted(seen)}")
        for topic in self._published:
            await self._publishers[topic].publish(self._published[topic])
            self._published[topic] += 1
        await trio.sleep(10)
        for reader in self._readers:
            reader.read(1 << 30)
            reader.check()
            self._account(reader)

    def _account(self, reader: Reader) -> None:
        """Published = delivered + dropped + lost; and of a reliable publisher nothing is lost."""
        m, published = reader.messages, self._published[reader.topic]
        if m.received + m.lost != published:
            raise Broken(f"{reader.name}: {published} published, {m.received} received, {m.lost} lost")
        if reader.topic.startswith("kept/") and m.lost:
            raise Broken(f"{reader.name} lost {m.lost}")
        statistics: Any = self._nodes[reader.name[0]].statistics()
        if statistics.awaited:
            raise Broken(f"{reader.name[0]} still waits for {statistics.awaited}")
