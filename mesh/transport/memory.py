"""The fake transport: the real one's semantics in one process, with no sockets.

A ``MemoryTransport`` sends → the network's connections (``memorynetwork``) → the other transport →
its ``TransportEvents``.

What ZeroMQ and TCP do, it does too: pipes are full at a bound; a key that is not allowed is refused and stays
refused until ``open_link``; an address that is not admitted tries again; subscriptions are repeated,
sorted, on every new connection; what a ``cut`` holds up arrives after ``heal``; ``reset`` loses it.
"""

from __future__ import annotations

import itertools
from typing import Final

import trio

from mesh.config import Config
from mesh.core.types import Address, MeshId, NodeId
from mesh.transport.base import Bound, IntroRoute, LinkKey, Transport, TransportEvents
from mesh.transport.memorynetwork import Network, Pipe, State, Wire

__all__ = ["MemoryNetwork", "MemoryTransport"]

_FIRST_PORT: Final = 7400


class MemoryNetwork(Network):
    """A network to which nodes can be added."""

    def transport(
        self, link: LinkKey, mesh_id: MeshId, config: Config, *, host: str | None = None
    ) -> MemoryTransport:
        """A node's transport at ``host``, or at a new host."""
        return MemoryTransport(self, host or self.next_host(), link, mesh_id, config)


class MemoryTransport(Transport):
    """One node's place in a ``MemoryNetwork``."""

    def __init__(self, network: Network, host: str, link: LinkKey, mesh_id: MeshId, config: Config) -> None:
        self.network: Network = network
        self.host = host
        self.link = link
        self.bodies: set[bytes] = set()
        self.accepted: dict[Wire, None] = {}  # connections that others made to us
        self.drained = trio.lowlevel.ParkingLot()  # a subscriber took something
        self.mesh_id = mesh_id
        self._limits = config.limits
        self._events: TransportEvents | None = None
        self._routes = itertools.count(1)
        self._dials: dict[IntroRoute, Wire] = {}
        self._strangers: dict[IntroRoute, Wire] = {}  # oldest first
        self._links: dict[NodeId, Wire] = {}
        self._opened = trio.lowlevel.ParkingLot()
        self._publishers: dict[NodeId, Wire] = {}
        self._keys: dict[bytes, NodeId] = {}
        self._hosts: dict[str, None] = {}
        self._source: dict[Wire, tuple[NodeId, int]] = {}  # in whose name a connection last subscribed

    @trio.lowlevel.enable_ki_protection
    async def run(
        self,
        events: TransportEvents,
        *,
        task_status: trio.TaskStatus[Bound] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        port = _FIRST_PORT
        while f"tcp://{self.host}:{port}" in self.network.listeners:
            port += 3
        address = Address(*(f"tcp://{self.host}:{port + n}" for n in range(3)))
        self._events = events
        try:
            self.network.listeners.update(dict.fromkeys(address, self))
            self.network.retry()
            task_status.started(Bound((address,)))
            await self.network.deliver()
        finally:
            self._events = None
            for endpoint in address:
                del self.network.listeners[endpoint]
            for wire in [*self.network.wires]:
                if wire.dialler is self:
                    wire.finish()
                elif wire.listener is self:
                    wire.orphan()
            for routes in (self._dials, self._strangers, self._links, self._publishers):
                routes.clear()
            self.network.retry()

    # -- what wires do with it ---------------------------------------------------

    def judge(self, wire: Wire) -> State:
        """Whether a connection made to us stands."""
        assert self._events is not None
        if wire.plane == "intro":
            return State.OPEN if wire.dialler.mesh_id == self.mesh_id else State.REFUSED
        if wire.plane == "direct":
            if wire.key != self.link.public:
                return State.WAITING
            peer = self._keys.get(wire.dialler.link.public)
            if peer is None:
                self._events.rejected("direct", "unknown_key", 1)
                return State.REFUSED
            self._events.direct_seen(peer, wire.dialler.host)
            return State.OPEN
        if wire.dialler.host in self._hosts:
            return State.OPEN
        self._events.rejected("broadcast", "unknown_address", 1)
        return State.WAITING

    def arrived(self, wire: Wire, frames: list[bytes]) -> None:
        """From the dialler of a connection made to us."""
        events = self._events
        if events is None:
            return
        if wire.plane == "intro":
            for frame in frames:
                events.intro_received(self._stranger(wire), frame, wire.dialler.host)
        elif wire.plane == "direct":
            sender = self._keys.get(wire.dialler.link.public)
            if sender is None:
                events.rejected("direct", "not_allowed", len(frames))
            else:
                events.direct_received(sender, frames)
        else:
            for message in frames:
                verdict = events.subscription_received(message)
                if verdict.tag is not None and verdict.source is not None:
                    self._source[wire] = verdict.source
                if verdict.tag is not None and verdict.subscribe:
                    wire.tags.add(verdict.tag)
                elif verdict.tag is not None:
                    wire.tags.discard(verdict.tag)

    def _stranger(self, wire: Wire) -> IntroRoute:
        for route, other in self._strangers.items():
            if other is wire:
                return route
        route = IntroRoute(next(self._routes))
        self._strangers[route] = wire
        if len(self._strangers) > self._limits.pending_handshakes:
            del self._strangers[next(iter(self._strangers))]
            if self._events is not None:
                self._events.rejected("intro", "too_many_pending", 1)
        return route

    def answered(self, route: IntroRoute, frames: list[bytes]) -> None:
        """From the listener of an introduction of ours."""
        for frame in frames:
            wire = self._dials.get(route)
            if wire is not None and wire.listener is not None and self._events is not None:
                self._events.intro_received(route, frame, wire.listener.host)

    def dial_failed(self, route: IntroRoute, reason: str) -> None:
        """An introduction of ours came to nothing."""
        wire = self._dials.pop(route, None)
        if wire is not None:
            wire.close()
            if self._events is not None:
                self._events.intro_failed(route, reason)

    def published(self, frames: list[tuple[bytes, bytes]]) -> None:
        """From a publisher that we are connected to."""
        if self._events is not None:
            self._events.broadcast_received(frames)

    def forget_wire(self, wire: Wire) -> None:
        """A connection made to us has ended."""
        self.accepted.pop(wire, None)
        self._source.pop(wire, None)
        for route in [route for route, other in self._strangers.items() if other is wire]:
            del self._strangers[route]
        self.drained.unpark_all()

    # -- intro plane -----------------------------------------------------------

    def dial_intro(self, endpoint: str) -> IntroRoute:
        route = IntroRoute(next(self._routes))
        if self._events is not None:
            wire = self._dials[route] = Wire("intro", self, endpoint, route=route)
            wire.try_to_connect()
        return route

    def send_intro(self, route: IntroRoute, frame: bytes) -> None:
        dialled, stranger = self._dials.get(route), self._strangers.get(route)
        pipe = dialled.there if dialled is not None else stranger.back if stranger is not None else None
        if pipe is not None and not pipe.is_full():
            pipe.put(frame)

    def close_intro(self, route: IntroRoute) -> None:
        self._strangers.pop(route, None)
        wire = self._dials.pop(route, None)
        if wire is not None:
            wire.finish()

    # -- direct plane ----------------------------------------------------------

    def allow(self, peer: NodeId, link_key: bytes) -> None:
        self.disallow(peer)
        self._keys[link_key] = peer

    def disallow(self, peer: NodeId) -> None:
        for key in [key for key, owner in self._keys.items() if owner == peer]:
            del self._keys[key]

    def open_link(self, peer: NodeId, link_key: bytes, endpoint: str) -> None:
        self.close_link(peer)
        if self._events is not None:
            wire = self._links[peer] = Wire("direct", self, endpoint, key=link_key)
            wire.try_to_connect()
            self._opened.unpark_all()

    def close_link(self, peer: NodeId) -> None:
        wire = self._links.pop(peer, None)
        if wire is not None:
            wire.there.room.unpark_all()
            wire.finish()

    def send_direct(self, peer: NodeId, frame: bytes) -> bool:
        wire = self._links.get(peer)
        if wire is None or wire.state is State.REFUSED or wire.there.is_full():
            return False
        wire.there.put(frame)
        return True

    async def wait_direct_writable(self, peer: NodeId) -> None:
        wire = self._links.get(peer)
        if wire is None:
            await self._opened.park()
        elif wire.state is State.REFUSED or wire.there.is_full():
            await wire.there.room.park()
        else:
            await trio.lowlevel.checkpoint()

    # -- broadcast plane -------------------------------------------------------

    def admit_broadcast(self, host: str) -> None:
        self._hosts.pop(host, None)
        self._hosts[host] = None
        if len(self._hosts) > 2 * self._limits.peers:
            del self._hosts[next(iter(self._hosts))]
        self.network.retry()

    def dismiss_broadcast(self, host: str) -> None:
        self._hosts.pop(host, None)

    def cut_subscriber(self, peer: NodeId, before: int) -> None:
        for wire, (who, epoch) in list(self._source.items()):
            if who == peer and epoch < before:
                wire.break_off()
                wire.try_to_connect()

    def connect_broadcast(self, peer: NodeId, endpoint: str) -> None:
        self.disconnect_broadcast(peer)
        if self._events is not None:
            wire = self._publishers[peer] = Wire("broadcast", self, endpoint)
            wire.try_to_connect()

    def disconnect_broadcast(self, peer: NodeId) -> None:
        wire = self._publishers.pop(peer, None)
        if wire is not None:
            wire.close()

    def subscribe(self, body: bytes) -> None:
        self.bodies.add(body)
        self._tell(b"\1" + body)

    def unsubscribe(self, body: bytes) -> None:
        self.bodies.discard(body)
        self._tell(b"\0" + body)

    def _tell(self, message: bytes) -> None:
        for wire in self._publishers.values():
            if wire.state is State.OPEN:
                wire.there.put(message)

    def _matching(self, tag: bytes) -> list[Pipe]:
        return [
            wire.back
            for wire in self.accepted
            if not wire.back.passed_over and any(map(tag.startswith, wire.tags))
        ]

    def publish(self, tag: bytes, frame: bytes) -> bool:
        pipes = self._matching(tag)
        if any(pipe.is_full() for pipe in pipes):
            return False
        for pipe in pipes:
            pipe.put((tag, frame))
        return True

    def publish_lossy(self, tag: bytes, frame: bytes) -> None:
        for pipe in self._matching(tag):
            if pipe.is_full():
                pipe.passed_over = True
            else:
                pipe.put((tag, frame))

    async def wait_publishable(self) -> None:
        if any(wire.back.is_full() for wire in self.accepted):
            await self.drained.park()
        else:
            await trio.lowlevel.checkpoint()
