"""The intro plane: strangers who know the mesh id introduce themselves, and so do we.

Ours:    ``dial`` → a DEALER of its own with a fresh client key → its pump → ``intro_received``; what libzmq
         tells of its connection → ``intro_failed``.
Theirs:  the ROUTER's pump → a routing id becomes an ``IntroRoute`` → ``intro_received``; ``send`` maps it back.

The routing id only says which connection an answer belongs to.  Who is at the other end is what
certificates are for.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Final

import trio
import zmq

from mesh.config import Limits
from mesh.core.keys import intro_key_pair
from mesh.core.types import MeshId
from mesh.transport.base import IntroRoute, TransportEvents
from mesh.transport.connections import CONNECTIONS, HANDSHAKE_FAILURES, Monitor, user_property
from mesh.transport.endpoints import connect, needs_resolving, peer_host, resolve
from mesh.transport.intake import Intake
from mesh.transport.zap import INTRO
from mesh.transport.zmqsocket import LINGER, ZmqSocket, open_socket

__all__ = ["IntroPlane"]

_ENVELOPE: Final = 256  # CURVE's MESSAGE command around a frame (RFC 26: 33 bytes), and room
_QUEUE: Final = 16  # frames a peer; an introduction is a handful
_BURST: Final = 32
_BACKLOG: Final = 4  # frames that may wait for the name of a dialled host to be resolved
_WATCHED: Final = zmq.EVENT_CLOSED | zmq.EVENT_CONNECT_RETRIED | HANDSHAKE_FAILURES | CONNECTIONS
_BYTES: Final = (
    32 << 10
)  # a stranger's, in all, and as much again: an introduction is a handful of frames of 4 KiB
_LIFETIME: Final = 30.0  # s; an introduction takes three at most, a machine that joins asks again


class _Dial:
    """An introduction that we began."""

    __slots__ = ("backlog", "socket")

    def __init__(self, socket: ZmqSocket) -> None:
        self.socket = socket
        self.backlog: list[bytes] | None = []  # None once connected


class IntroPlane:
    """One ROUTER for strangers, one DEALER for each introduction of ours."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        nursery: trio.Nursery,
        mesh_id: MeshId,
        limits: Limits,
        events: TransportEvents,
    ) -> None:
        self._context = context
        self._nursery = nursery
        self._limits = limits
        self._events = events
        self._server_key, secret = intro_key_pair(mesh_id)
        self._names = itertools.count(1)
        self._dials: dict[IntroRoute, _Dial] = {}
        self._strangers: dict[IntroRoute, bytes] = {}  # oldest first
        self._route_of: dict[bytes, IntroRoute] = {}
        self.strangers = Intake(_BYTES, _LIFETIME)
        self.dialled = Intake(_BYTES, _LIFETIME)
        raw = self._open(zmq.ROUTER, INTRO)
        self.router = ZmqSocket(raw)
        raw.setsockopt(zmq.CURVE_SERVER, 1)
        raw.setsockopt(zmq.CURVE_SECRETKEY, secret)

    def _open(self, kind: int, zap_domain: bytes = b"") -> zmq.Socket[bytes]:
        return open_socket(
            self._context,
            kind,
            max_message=self._limits.intro_frame_bytes + _ENVELOPE,
            send_queue=_QUEUE,
            receive_queue=_QUEUE,
            zap_domain=zap_domain,
        )

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Pump the ROUTER until it is closed."""
        await self.router.pump(self._drain_router)

    def close(self) -> None:
        """Close everything; replies on their way to strangers have a moment to get out."""
        self.router.close(LINGER)
        for dial in self._dials.values():
            dial.socket.close()
        self._dials.clear()
        self._strangers.clear()
        self._route_of.clear()

    # -- strangers -------------------------------------------------------------

    def _drain_router(self) -> bool:
        for _ in range(_BURST):
            if self.router.closed:
                break
            try:
                parts = self.router.raw.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return False
            if len(parts) != 2:
                self._events.rejected("intro", "bad_frames", 1)
                continue
            route = self._route(parts[0].bytes)
            host = peer_host(user_property(parts[1], "Peer-Address"))
            self._events.intro_received(route, parts[1].bytes, host)
        return True

    def _route(self, routing_id: bytes) -> IntroRoute:
        route = self._route_of.get(routing_id)
        if route is None:
            route = IntroRoute(next(self._names))
            self._route_of[routing_id] = route
            self._strangers[route] = routing_id
            if len(self._strangers) > self._limits.pending_handshakes:
                self.hang_up(next(iter(self._strangers)))
                self._events.rejected("intro", "too_many_pending", 1)
        return route

    # -- both ------------------------------------------------------------------

    def send(self, route: IntroRoute, frame: bytes) -> None:
        """Send on an introduction; one that is gone, or that takes nothing more, is ignored."""
        routing_id = self._strangers.get(route)
        if routing_id is not None:
            self.router.send([routing_id, frame])
        dial = self._dials.get(route)
        if dial is None:
            return
        if dial.backlog is None:
            dial.socket.send([frame])
        elif len(dial.backlog) < _BACKLOG:
            dial.backlog.append(frame)

    def hang_up(self, route: IntroRoute) -> None:
        """Forget an introduction; what was sent still goes out if it can."""
        routing_id = self._strangers.pop(route, None)
        if routing_id is not None:
            del self._route_of[routing_id]
        dial = self._dials.pop(route, None)
        if dial is not None:
            dial.socket.close(LINGER)

    # -- ours ------------------------------------------------------------------

    def dial(self, endpoint: str) -> IntroRoute:
        """Begin an introduction. It fails through ``intro_failed``, never here."""
        route = IntroRoute(next(self._names))
        public, secret = zmq.curve_keypair()  # fresh: two introductions cannot be linked by their keys
        try:
            raw = self._open(zmq.DEALER)
            dial = _Dial(ZmqSocket(raw))
            try:
                raw.setsockopt(zmq.CURVE_SERVERKEY, self._server_key)
                raw.setsockopt(zmq.CURVE_PUBLICKEY, public)
                raw.setsockopt(zmq.CURVE_SECRETKEY, secret)
                watch = Monitor(self._context, dial.socket, _WATCHED)
            except zmq.ZMQError:
                dial.socket.close()
                raise
        except zmq.ZMQError as error:  # EMFILE: too many sockets, or files of this process
            self._nursery.start_soon(self._fail_later, route, str(error.strerror).lower())
            return route
        self._dials[route] = dial
        reason = "" if needs_resolving(endpoint) else self._connect(dial, endpoint)
        self._nursery.start_soon(
            self._run_dial, route, dial, watch, endpoint, reason, name=f"dial {endpoint}"
        )
        return route

    @trio.lowlevel.enable_ki_protection
    async def _fail_later(self, route: IntroRoute, reason: str) -> None:
        self._events.intro_failed(route, reason)

    def _connect(self, dial: _Dial, endpoint: str) -> str:
        """Connect and send what waits; the reason if that cannot be."""
        try:
            connect(dial.socket.raw, endpoint)
        except zmq.ZMQError as error:  # EINVAL: no endpoint at all
            return str(error.strerror).lower()
        frames: Iterable[bytes] = dial.backlog or ()
        dial.backlog = None
        for frame in frames:
            dial.socket.send([frame])
        return ""

    @trio.lowlevel.enable_ki_protection
    async def _run_dial(
        self, route: IntroRoute, dial: _Dial, watch: Monitor, endpoint: str, reason: str
    ) -> None:
        def failed(reason: str) -> None:
            if self._dials.get(route) is dial:
                del self._dials[route]
                dial.socket.close()
                self._events.intro_failed(route, reason)

        def happened(event: int, value: int, at: str) -> None:
            if event & CONNECTIONS:
                self.dialled.happened(event, value, at)
            elif event & (zmq.EVENT_CLOSED | zmq.EVENT_CONNECT_RETRIED):
                failed("connection refused")
            else:
                failed("handshake failed: another mesh, or no zeromesh node")

        def drain() -> bool:
            for _ in range(_BURST):
                if dial.socket.closed:
                    break
                try:
                    parts = dial.socket.raw.recv_multipart(zmq.NOBLOCK, copy=False)
                except zmq.Again:
                    return False
                if len(parts) == 1:
                    host = peer_host(user_property(parts[0], "Peer-Address"))
                    self._events.intro_received(route, parts[0].bytes, host)
                else:
                    self._events.rejected("intro", "bad_frames", 1)
            return True

        try:
            if not reason and dial.backlog is not None:
                try:
                    address = await resolve(endpoint)
                except OSError:
                    reason = "no such host"
                else:
                    reason = "" if dial.socket.closed else self._connect(dial, address)
            if reason:
                failed(reason)
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch.run, happened)
                await dial.socket.pump(drain)
                nursery.cancel_scope.cancel()
        finally:
            watch.close()
            dial.socket.close()
