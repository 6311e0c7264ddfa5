"""Stand-ins for what the parts of a node lean on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import trio

import mesh
from mesh.core.messages import Batch
from mesh.core.outgoing import Line
from mesh.core.router import Member, Route, Router
from mesh.core.types import NodeId
from mesh.core.windows import Windows
from mesh.node.pacing import Pacing

NOBODY = Route((), (), {})


def nobody_waits(config: mesh.Config) -> Pacing:
    """No subscriber asks to be waited for."""
    return Pacing(Windows(config, [], Router(), {}, lambda member: False), lambda: None, lambda: False)


@dataclass
class FakeTransport:
    """Only sending, with pipes that are as full as a test says."""

    full: bool = False  # the broadcast pipe of some subscriber
    blocked: set[NodeId] = field(default_factory=set)  # direct links
    published: list[tuple[bytes, bytes]] = field(default_factory=list)
    lossy: list[tuple[bytes, bytes]] = field(default_factory=list)
    sent: dict[NodeId, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    room: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)

    def publish(self, tag: bytes, frame: bytes) -> bool:
        if not self.full:
            self.published.append((tag, frame))
        return not self.full

    def publish_lossy(self, tag: bytes, frame: bytes) -> None:
        self.lossy.append((tag, frame))

    async def wait_publishable(self) -> None:
        await self.room.park()

    def send_direct(self, peer: NodeId, frame: bytes) -> bool:
        if peer in self.blocked:
            return False
        self.sent[peer].append(frame)
        return True

    async def wait_direct_writable(self, peer: NodeId) -> None:
        await self.room.park()

    def unblock(self, *peers: NodeId) -> None:
        self.full = False
        self.blocked.difference_update(peers)
        self.room.unpark_all()


class FakeOutlet:
    """What publishing needs of a node: records where batches go."""

    def __init__(self, route: Route = NOBODY, config: mesh.Config | None = None) -> None:
        self.config = config or mesh.Config.local()
        self.routed = route
        self.generation = 0
        self.local: list[tuple[tuple[int, ...], Batch]] = []
        self.sealed: list[tuple[str, bytes]] = []
        self.directed: list[tuple[NodeId, str, Batch]] = []
        self.live = 0
        self.turns: Counter[str] = Counter()
        self.changed = trio.lowlevel.ParkingLot()
        self.check_open: Callable[[], None] = lambda: None

    def reroute(self, route: Route) -> None:
        self.routed = route
        self.generation += 1

    def permit(self, topic: str) -> None:
        return

    def route(self, topic: str) -> Route:
        return self.routed

    def route_generation(self) -> int:
        return self.generation

    def deliver_local(self, numbers: tuple[int, ...], batch: Batch) -> None:
        self.local.append((numbers, batch))

    def seal(self, topic: str, plaintext: bytes, kind: int) -> tuple[bytes, bytes]:
        self.sealed.append((topic, plaintext))
        return b"tag " + topic.encode(), b"sealed " + plaintext

    def line(self, topic: str) -> Line:
        return Line(topic)

    def stir(self, line: Line) -> None:
        line.recent = True

    def settle(self) -> None:
        pass

    def choose(self, group: str, members: tuple[Member, ...]) -> Member:
        self.turns[group] += 1
        return members[(self.turns[group] - 1) % len(members)]

    def send_directed(self, peer: NodeId, group: str, batch: Batch) -> None:
        self.directed.append((peer, group, batch))

    def live_subscribers(self, topic: str) -> int:
        return self.live

    async def subscribers_changed(self) -> None:
        await self.changed.park()


def node(number: int) -> NodeId:
    return NodeId(bytes([number]) * 16)


def as_any(fake: Any) -> Any:
    """For where a fake stands in for a class that it is not."""
    return fake
