"""The fake transport: a network in one process, with the real one's semantics and no sockets.

A ``MemoryTransport`` sends → a bounded pipe of the connection → an event in the network's one
queue, due after the way's delay → the receiving transport's ``TransportEvents``.  One task delivers for all
(that of the transport which has run longest), in order of due time and of sending, so that a
seed and a mock clock replay a run exactly.

What ZeroMQ and TCP do, it does too: pipes are full at a bound; a key that is not allowed is refused and stays
refused until ``open_link``; an address that is not admitted tries again; subscriptions are repeated,
sorted, on every new connection; what a ``cut`` holds up arrives after ``heal``; ``reset`` loses it.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, TypeAlias

import trio

from mesh.config import Config
from mesh.core.types import Address, MeshId, NodeId
from mesh.transport.base import Bound, IntroRoute, LinkKey, Transport, TransportEvents

__all__ = ["MemoryNetwork", "MemoryTransport"]

_BURST: Final = 128
_FIRST_PORT: Final = 7400
_LINGER: Final = 0.3  # s; what was sent before a side closed may still arrive
_Item: TypeAlias = bytes | tuple[bytes, bytes]


class MemoryNetwork:
    """The way between hosts. Hosts are named by their addresses; times are in seconds.

    ``latency`` is one way, ``jitter`` at most as much again at random (seeded); order within a
    connection is kept. ``pipe`` is how many messages a connection holds.
    """

    def __init__(self, seed: int = 0, *, latency: float = 0.0, jitter: float = 0.0, pipe: int = 256) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a simulation's chance, to be repeated
        self._latency = latency
        self._jitter = jitter
        self._delays: dict[tuple[str, str], float] = {}
        self._cuts: set[tuple[str, str]] = set()
        self._paused: dict[str, list[tuple[float, int, str, Callable[[], None]]]] = {}
        self._queue: list[tuple[float, int, str, Callable[[], None]]] = []
        self._order = itertools.count()
        self._hosts = itertools.count(1)
        self._wake = trio.Event()
        self._lead = trio.StrictFIFOLock()
        self.pipe = pipe
        self.listeners: dict[str, MemoryTransport] = {}
        self.wires: dict[_Wire, None] = {}

    def transport(
        self, link: LinkKey, mesh_id: MeshId, config: Config, *, host: str | None = None
    ) -> MemoryTransport:
        """A node's transport at ``host``, or at a new host."""
        if host is None:
            number = next(self._hosts)
            host = f"10.77.{number >> 8}.{number & 255}"
        return MemoryTransport(self, host, link, mesh_id, config)

    # -- what a test does to it ------------------------------------------------

    def cut(self, a: str, b: str, *, one_way: bool = False) -> None:
        """Nothing gets from host ``a`` to ``b`` (and back, unless ``one_way``) until ``heal``; it waits."""
        self._cuts.update([(a, b)] if one_way else [(a, b), (b, a)])

    def heal(self, a: str, b: str, *, one_way: bool = False) -> None:
        """Undo ``cut``: what waited arrives, and connections are made."""
        self._cuts.difference_update([(a, b)] if one_way else [(a, b), (b, a)])
        for wire in self.wires:
            wire.there.schedule()
            wire.back.schedule()
        self.retry()

    def delay(self, a: str, b: str, seconds: float, *, one_way: bool = False) -> None:
        """Set the latency from ``a`` to ``b`` (and back, unless ``one_way``)."""
        for way in [(a, b)] if one_way else [(a, b), (b, a)]:
            self._delays[way] = seconds

    def crash(self, host: str) -> None:
        """What the nodes at this host have sent is lost. To be followed by their cancellation at once."""
        for wire in list(self.wires):
            if wire.dialler.host == host:
                wire.close()
            elif wire.listener is not None and wire.listener.host == host:
                wire.break_off()

    def reset(self, a: str, b: str) -> None:
        """Break every connection between two hosts, losing what is on its way; they connect anew."""
        for wire in list(self.wires):
            if wire.listener is not None and {wire.dialler.host, wire.listener.host} == {a, b}:
                wire.break_off()
        self.retry()

    def pause(self, host: str) -> None:
        """The nodes at this host take nothing, as if stopped, until ``resume``."""
        self._paused.setdefault(host, [])

    def resume(self, host: str) -> None:
        """Undo ``pause``."""
        for event in self._paused.pop(host, ()):
            heapq.heappush(self._queue, event)
        self._wake.set()

    # -- what transports do with it ----------------------------------------------

    def is_cut(self, source: str, target: str) -> bool:
        """Whether nothing gets from one host to the other."""
        return (source, target) in self._cuts

    def due(self, source: str, target: str) -> float:
        """When something sent now arrives."""
        delay = self._delays.get((source, target), self._latency)
        if self._jitter:
            delay += self._random.uniform(0, self._jitter)
        return trio.current_time() + delay

    def call_at(self, due: float, host: str, action: Callable[[], None]) -> None:
        """Do something at a host when it is due."""
        heapq.heappush(self._queue, (due, next(self._order), host, action))
        self._wake.set()

    def retry(self) -> None:
        """Something changed: let every connection that is not made try again."""
        for wire in list(self.wires):
            wire.try_to_connect()

    async def deliver(self) -> None:
        """Deliver for all until cancelled. One task does so at a time."""
        async with self._lead:
            while True:
                if self._queue and self._queue[0][0] <= trio.current_time():
                    event = heapq.heappop(self._queue)
                    held = self._paused.get(event[2])
                    if held is not None:
                        held.append(event)
                        continue
                    event[3]()
                    await trio.lowlevel.checkpoint()
                else:
                    self._wake = trio.Event()
                    with trio.move_on_at(self._queue[0][0] if self._queue else float("inf")):
                        await self._wake.wait()


class _Pipe:
    """One direction of a connection: first in, first out, bounded by ``capacity``."""

    def __init__(
        self,
        wire: _Wire,
        source: str,
        target: str,
        deliver: Callable[[list[_Item]], None],
    ) -> None:
        self._network = wire.network
        self._wire = wire
        self._source = source
        self._target = target
        self._deliver = deliver
        self._items: deque[tuple[float, _Item]] = deque()
        self._scheduled = False
        self._last_due = 0.0
        self.passed_over = False  # by publish_lossy, until half of it has been taken
        self.emptied: Callable[[], None] = _nothing
        self.room = trio.lowlevel.ParkingLot()

    def __bool__(self) -> bool:
        return bool(self._items)

    def is_full(self) -> bool:
        return len(self._items) >= self._network.pipe

    def put(self, item: _Item) -> None:
        self._last_due = max(self._last_due, self._network.due(self._source, self._target))
        self._items.append((self._last_due, item))
        self.schedule()

    def schedule(self) -> None:
        if self._items and not self._scheduled and self._wire.state is _State.OPEN:
            self._scheduled = True
            self._network.call_at(self._items[0][0], self._target, self._arrive)

    def _arrive(self) -> None:
        self._scheduled = False
        if self._wire.state is not _State.OPEN or self._network.is_cut(self._source, self._target):
            return  # heal, or the next connection, schedules it again
        now = trio.current_time()
        batch: list[_Item] = []
        while self._items and len(batch) < _BURST and self._items[0][0] <= now:
            batch.append(self._items.popleft()[1])
        if 2 * len(self._items) <= self._network.pipe:
            self.passed_over = False
            self.room.unpark_all()
        self.schedule()
        if batch:
            self._deliver(batch)
        if not self._items:
            self.emptied()

    def clear(self) -> None:
        self._items.clear()
        self.emptied = _nothing
        self.passed_over = False
        self.room.unpark_all()


def _nothing() -> None:
    pass


class _State(Enum):
    WAITING = auto()  # for the other side to be there and reachable
    CONNECTING = auto()
    OPEN = auto()
    REFUSED = auto()
    CLOSED = auto()


class _Wire:
    """A connection from a dialler to an endpoint, for as long as the dialler wants it."""

    def __init__(
        self, plane: str, dialler: MemoryTransport, endpoint: str, *, key: bytes = b"", route: int = 0
    ) -> None:
        self.plane = plane
        self.dialler = dialler
        self.endpoint = endpoint
        self.key = key  # of the server, which the dialler expects
        self.route = IntroRoute(route)
        self.network = dialler.network
        self.state = _State.WAITING
        self.listener: MemoryTransport | None = None
        self.tags: set[bytes] = set()
        host = endpoint[6:].rpartition(":")[0]
        self.there = _Pipe(self, dialler.host, host, self._arrived_there)
        self.back = _Pipe(self, host, dialler.host, self._arrived_back)
        self.network.wires[self] = None

    def try_to_connect(self) -> None:
        """Go on if this waits and the other side can be reached."""
        if self.state is not _State.WAITING:
            return
        network, host = self.network, self.endpoint[6:].rpartition(":")[0]
        if network.is_cut(self.dialler.host, host) or network.is_cut(host, self.dialler.host):
            return
        if self.endpoint in network.listeners:
            self.state = _State.CONNECTING
            network.call_at(network.due(self.dialler.host, host), host, self._accept)
        elif self.plane == "intro":
            self.state = _State.REFUSED
            network.call_at(
                network.due(self.dialler.host, host),
                self.dialler.host,
                lambda: self.dialler.dial_failed(self.route, "connection refused"),
            )

    def _accept(self) -> None:
        if self.state is not _State.CONNECTING:
            return
        listener = self.network.listeners.get(self.endpoint)
        if listener is None:
            self.state = _State.WAITING
            self.try_to_connect()
            return
        self.state = listener.judge(self)
        if self.state is _State.OPEN:
            self.listener = listener
            listener.accepted[self] = None
            if self.plane == "broadcast":
                for body in sorted(self.dialler.bodies):
                    self.there.put(b"\1" + body)
            self.there.schedule()
        elif self.plane == "intro":
            reason = "handshake failed: another mesh, or no zeromesh node"
            self.network.call_at(
                self.network.due(listener.host, self.dialler.host),
                self.dialler.host,
                lambda: self.dialler.dial_failed(self.route, reason),
            )

    def _arrived_there(self, batch: list[_Item]) -> None:
        if self.listener is not None:
            self.listener.arrived(self, [item for item in batch if isinstance(item, bytes)])

    def _arrived_back(self, batch: list[_Item]) -> None:
        if self.plane == "intro":
            self.dialler.answered(self.route, [item for item in batch if isinstance(item, bytes)])
        else:
            self.dialler.published([item for item in batch if isinstance(item, tuple)])
        if self.listener is not None:
            self.listener.drained.unpark_all()

    def break_off(self) -> None:
        """The connection is lost, with all on its way; the dialler's side tries again."""
        listener, self.listener = self.listener, None
        if listener is not None:
            listener.forget_wire(self)
        if self.state is not _State.CLOSED:
            self.state = _State.WAITING
        self.tags.clear()
        self.there.clear()
        self.back.clear()

    def finish(self) -> None:
        """The dialler's side wants no more of it: what it sent still goes out if it can."""
        if self.there and self.state in (_State.OPEN, _State.CONNECTING):
            self.there.emptied = self.close
            self.network.call_at(trio.current_time() + _LINGER, self.dialler.host, self.close)
        else:
            self.close()

    def orphan(self) -> None:
        """The listener's side closed: what it sent still goes out if it can."""

        def over() -> None:
            if self.listener is listener:
                self.break_off()
                self.try_to_connect()

        listener = self.listener
        if self.back:
            self.back.emptied = over
            self.network.call_at(trio.current_time() + _LINGER, self.dialler.host, over)
        else:
            over()

    def close(self) -> None:
        """The dialler's side closed it."""
        self.state = _State.CLOSED
        self.break_off()
        self.network.wires.pop(self, None)


class MemoryTransport(Transport):
    """One node's place in a ``MemoryNetwork``."""

    def __init__(
        self, network: MemoryNetwork, host: str, link: LinkKey, mesh_id: MeshId, config: Config
    ) -> None:
        self.network = network
        self.host = host
        self.link = link
        self.bodies: set[bytes] = set()
        self.accepted: dict[_Wire, None] = {}  # connections that others made to us
        self.drained = trio.lowlevel.ParkingLot()  # a subscriber took something
        self._mesh_id = mesh_id
        self._limits = config.limits
        self._events: TransportEvents | None = None
        self._routes = itertools.count(1)
        self._dials: dict[IntroRoute, _Wire] = {}
        self._strangers: dict[IntroRoute, _Wire] = {}  # oldest first
        self._links: dict[NodeId, _Wire] = {}
        self._opened = trio.lowlevel.ParkingLot()
        self._publishers: dict[NodeId, _Wire] = {}
        self._keys: dict[bytes, NodeId] = {}
        self._hosts: dict[str, None] = {}

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

    def judge(self, wire: _Wire) -> _State:
        """Whether a connection made to us stands."""
        assert self._events is not None
        if wire.plane == "intro":
            return _State.OPEN if wire.dialler._mesh_id == self._mesh_id else _State.REFUSED
        if wire.plane == "direct":
            if wire.key != self.link.public:
                return _State.WAITING
            peer = self._keys.get(wire.dialler.link.public)
            if peer is None:
                self._events.rejected("direct", "unknown_key", 1)
                return _State.REFUSED
            self._events.direct_seen(peer, wire.dialler.host)
            return _State.OPEN
        if wire.dialler.host in self._hosts:
            return _State.OPEN
        self._events.rejected("broadcast", "unknown_address", 1)
        return _State.WAITING

    def arrived(self, wire: _Wire, frames: list[bytes]) -> None:
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
                if verdict.tag is not None and verdict.subscribe:
                    wire.tags.add(verdict.tag)
                elif verdict.tag is not None:
                    wire.tags.discard(verdict.tag)

    def _stranger(self, wire: _Wire) -> IntroRoute:
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

    def forget_wire(self, wire: _Wire) -> None:
        """A connection made to us has ended."""
        self.accepted.pop(wire, None)
        for route in [route for route, other in self._strangers.items() if other is wire]:
            del self._strangers[route]
        self.drained.unpark_all()

    # -- intro plane -----------------------------------------------------------

    def dial_intro(self, endpoint: str) -> IntroRoute:
        route = IntroRoute(next(self._routes))
        if self._events is not None:
            wire = self._dials[route] = _Wire("intro", self, endpoint, route=route)
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
            wire = self._links[peer] = _Wire("direct", self, endpoint, key=link_key)
            wire.try_to_connect()
            self._opened.unpark_all()

    def close_link(self, peer: NodeId) -> None:
        wire = self._links.pop(peer, None)
        if wire is not None:
            wire.there.room.unpark_all()
            wire.finish()

    def send_direct(self, peer: NodeId, frame: bytes) -> bool:
        wire = self._links.get(peer)
        if wire is None or wire.state is _State.REFUSED or wire.there.is_full():
            return False
        wire.there.put(frame)
        return True

    async def wait_direct_writable(self, peer: NodeId) -> None:
        wire = self._links.get(peer)
        if wire is None:
            await self._opened.park()
        elif wire.state is _State.REFUSED or wire.there.is_full():
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

    def connect_broadcast(self, peer: NodeId, endpoint: str) -> None:
        self.disconnect_broadcast(peer)
        if self._events is not None:
            wire = self._publishers[peer] = _Wire("broadcast", self, endpoint)
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
            if wire.state is _State.OPEN:
                wire.there.put(message)

    def _matching(self, tag: bytes) -> list[_Pipe]:
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
