"""What is between fake transports: hosts, connections, and the way that takes time or is cut.

A station sends → a bounded pipe of the connection → an event in the network's one queue, due
after the way's delay → the station at the other end.  One task delivers for all (that of the
transport which has run longest), in order of due time and of sending, so that a seed and a mock clock
replay a run exactly.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, Protocol, TypeAlias

import trio

from mesh.core.types import MeshId
from mesh.transport.base import IntroRoute, LinkKey

__all__ = ["Item", "Network", "Pipe", "State", "Station", "Wire"]

_BURST: Final = 128
_RESENT: Final = 0.2  # s; TCP's shortest time until it sends again what was lost (Linux)
_LINGER: Final = 0.3  # s; what was sent before a side closed may still arrive
Item: TypeAlias = bytes | tuple[bytes, bytes]


class Station(Protocol):
    """What a connection needs of the transport at either end."""

    host: str
    link: LinkKey
    mesh_id: MeshId
    network: Network
    bodies: set[bytes]
    accepted: dict[Wire, None]
    drained: trio.lowlevel.ParkingLot

    def judge(self, wire: Wire) -> State: ...
    def arrived(self, wire: Wire, frames: list[bytes]) -> None: ...
    def answered(self, route: IntroRoute, frames: list[bytes]) -> None: ...
    def dial_failed(self, route: IntroRoute, reason: str) -> None: ...
    def published(self, frames: list[tuple[bytes, bytes]]) -> None: ...
    def forget_wire(self, wire: Wire) -> None: ...


class Network:
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
        self._isolated: set[str] = set()
        self._loss = self._double = self._flip = 0.0
        self._paused: dict[str, list[tuple[float, int, str, Callable[[], None]]]] = {}
        self._queue: list[tuple[float, int, str, Callable[[], None]]] = []
        self._order = itertools.count()
        self._hosts = itertools.count(1)
        self._wake = trio.Event()
        self._lead = trio.StrictFIFOLock()
        self.pipe = pipe
        self.listeners: dict[str, Station] = {}
        self.wires: dict[Wire, None] = {}

    def next_host(self) -> str:
        """The address of a host that is not in use."""
        number = next(self._hosts)
        return f"10.77.{number >> 8}.{number & 255}"

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

    def isolate(self, host: str) -> None:
        """Nothing gets from or to this host any more, for good."""
        self._isolated.add(host)

    def disturb(self, *, loss: float, double: float, flip: float) -> None:
        """From now on so many of all messages (0 to 1) are lost, come twice, come with a flipped bit.

        As above TCP: what is lost of a stream comes 0.2 s late; but broadcast frames, which full pipes lose too, never do.
        What comes twice or flipped are broadcast frames: the other planes would notice, and end the connection.
        """
        self._loss, self._double, self._flip = loss, double, flip

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
        return (source, target) in self._cuts or source in self._isolated or target in self._isolated

    def disturbed(self, item: Item) -> tuple[float, list[Item]]:
        """What becomes of a message: (seconds that it is late by, what arrives)."""
        chance = self._random
        if not (self._loss or self._double or self._flip):
            return 0.0, [item]
        lost = chance.random() < self._loss
        if isinstance(item, bytes):
            return _RESENT if lost else 0.0, [item]
        arriving: list[Item] = [] if lost else [item]
        if chance.random() < self._double:
            arriving.append(item)
        if chance.random() < self._flip:
            tag, frame = item
            at = chance.randrange(len(frame))
            arriving.append(
                (tag, frame[:at] + bytes([frame[at] ^ 1 << chance.randrange(8)]) + frame[at + 1 :])
            )
        return 0.0, arriving

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


class Pipe:
    """One direction of a connection: first in, first out, bounded by ``capacity``."""

    def __init__(
        self,
        wire: Wire,
        source: str,
        target: str,
        deliver: Callable[[list[Item]], None],
    ) -> None:
        self._network = wire.network
        self._wire = wire
        self._source = source
        self._target = target
        self._deliver = deliver
        self._items: deque[tuple[float, Item]] = deque()
        self._scheduled = False
        self._last_due = 0.0
        self.passed_over = False  # by publish_lossy, until half of it has been taken
        self.emptied: Callable[[], None] = _nothing
        self.room = trio.lowlevel.ParkingLot()

    def __bool__(self) -> bool:
        return bool(self._items)

    def is_full(self) -> bool:
        return len(self._items) >= self._network.pipe

    def put(self, item: Item) -> None:
        late, arriving = self._network.disturbed(item)
        self._last_due = max(self._last_due, self._network.due(self._source, self._target) + late)
        self._items.extend((self._last_due, each) for each in arriving)
        self.schedule()

    def schedule(self) -> None:
        if self._items and not self._scheduled and self._wire.state is State.OPEN:
            self._scheduled = True
            self._network.call_at(self._items[0][0], self._target, self._arrive)

    def _arrive(self) -> None:
        self._scheduled = False
        if self._wire.state is not State.OPEN or self._network.is_cut(self._source, self._target):
            return  # heal, or the next connection, schedules it again
        now = trio.current_time()
        batch: list[Item] = []
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


class State(Enum):
    WAITING = auto()  # for the other side to be there and reachable
    CONNECTING = auto()
    OPEN = auto()
    REFUSED = auto()
    CLOSED = auto()


class Wire:
    """A connection from a dialler to an endpoint, for as long as the dialler wants it."""

    def __init__(
        self, plane: str, dialler: Station, endpoint: str, *, key: bytes = b"", route: int = 0
    ) -> None:
        self.plane = plane
        self.dialler = dialler
        self.endpoint = endpoint
        self.key = key  # of the server, which the dialler expects
        self.route = IntroRoute(route)
        self.network = dialler.network
        self.state = State.WAITING
        self.listener: Station | None = None
        self.tags: set[bytes] = set()
        host = endpoint[6:].rpartition(":")[0]
        self.there = Pipe(self, dialler.host, host, self._arrived_there)
        self.back = Pipe(self, host, dialler.host, self._arrived_back)
        self.network.wires[self] = None

    def try_to_connect(self) -> None:
        """Go on if this waits and the other side can be reached."""
        if self.state is not State.WAITING:
            return
        network, host = self.network, self.endpoint[6:].rpartition(":")[0]
        if network.is_cut(self.dialler.host, host) or network.is_cut(host, self.dialler.host):
            return
        if self.endpoint in network.listeners:
            self.state = State.CONNECTING
            network.call_at(network.due(self.dialler.host, host), host, self._accept)
        elif self.plane == "intro":
            self.state = State.REFUSED
            network.call_at(
                network.due(self.dialler.host, host),
                self.dialler.host,
                lambda: self.dialler.dial_failed(self.route, "connection refused"),
            )

    def _accept(self) -> None:
        if self.state is not State.CONNECTING:
            return
        listener = self.network.listeners.get(self.endpoint)
        if listener is None:
            self.state = State.WAITING
            self.try_to_connect()
            return
        self.state = listener.judge(self)
        if self.state is State.OPEN:
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

    def _arrived_there(self, batch: list[Item]) -> None:
        if self.listener is not None:
            self.listener.arrived(self, [item for item in batch if isinstance(item, bytes)])

    def _arrived_back(self, batch: list[Item]) -> None:
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
        if self.state is not State.CLOSED:
            self.state = State.WAITING
        self.tags.clear()
        self.there.clear()
        self.back.clear()

    def finish(self) -> None:
        """The dialler's side wants no more of it: what it sent still goes out if it can."""
        if self.there and self.state in (State.OPEN, State.CONNECTING):
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
        self.state = State.CLOSED
        self.break_off()
        self.network.wires.pop(self, None)
