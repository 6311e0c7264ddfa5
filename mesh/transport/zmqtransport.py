"""The real transport: three planes of ZeroMQ sockets in a context of their own.

``run``: ZAP handler → sockets, bound → self-test → pumps → until cancelled → sockets closed, their last
frames lingered out, libzmq's threads ended.  All else goes to the plane that it concerns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import trio
import zmq

from mesh.config import Config
from mesh.core.types import Address, MeshId, NodeId
from mesh.errors import TransportError
from mesh.transport.base import Bound, IntroRoute, LinkKey, Transport, TransportEvents
from mesh.transport.connections import CONNECTIONS, HANDSHAKE_FAILURES, Monitor
from mesh.transport.crowd import Crowd
from mesh.transport.endpoints import bind, plane_endpoints, release
from mesh.transport.intake import Intake
from mesh.transport.vigil import watch
from mesh.transport.zap import Gate
from mesh.transport.zmqbroadcast import BroadcastPlane
from mesh.transport.zmqdirect import DirectPlane
from mesh.transport.zmqintro import IntroPlane
from mesh.transport.zmqselftest import check_libzmq, check_strangers_are_refused
from mesh.transport.zmqsocket import open_context, terminate

__all__ = ["ZmqTransport"]


class ZmqTransport(Transport):
    """The ZeroMQ sockets of one node.

    ``listen`` are endpoints, each bound for all three planes (``mesh.transport.endpoints``). Before ``run`` has
    started and after it has ended, nothing is connected and nothing is sent; lists of who may
    come in can be changed at any time.
    """

    def __init__(self, listen: Sequence[str], link: LinkKey, mesh_id: MeshId, config: Config) -> None:
        self._listen = tuple(listen)
        self._link = link
        self._mesh_id = mesh_id
        self._config = config
        self._gate = Gate(config.limits)
        self._intro: IntroPlane | None = None
        self._direct: DirectPlane | None = None
        self._broadcast: BroadcastPlane | None = None
        self._bound: list[str] = []

    @trio.lowlevel.enable_ki_protection
    async def run(
        self,
        events: TransportEvents,
        *,
        task_status: trio.TaskStatus[Bound] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        if not self._listen:
            raise TransportError("listen", "at least one endpoint is needed")
        wanted = [plane_endpoints(endpoint) for endpoint in self._listen]
        check_libzmq(self._mesh_id)
        context = open_context()
        wrong: TransportError | None = None
        try:
            async with trio.open_nursery() as nursery:
                try:
                    await nursery.start(self._gate.run, context, events)
                    bound = await self._open(context, nursery, wanted, events)
                except TransportError as error:  # kept out of the nursery's exception group
                    wrong = error
                    nursery.cancel_scope.cancel()
                except zmq.ZMQError as error:  # EMFILE: no more files for this process
                    wrong = TransportError("zeromq", str(error.strerror).lower())
                    nursery.cancel_scope.cancel()
                else:
                    task_status.started(bound)
                    await trio.sleep_forever()
        finally:
            self._close()
            await terminate(context)
        if wrong is not None:
            raise wrong

    async def _open(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        nursery: trio.Nursery,
        wanted: list[tuple[str, str, str]],
        events: TransportEvents,
    ) -> Bound:
        config = self._config
        intro = self._intro = IntroPlane(context, nursery, self._mesh_id, config.limits, events)
        direct = self._direct = DirectPlane(context, nursery, self._link, self._gate, config, events)
        broadcast = self._broadcast = BroadcastPlane(context, nursery, config, events, self._gate)
        crowds = {plane: self._crowd(plane, events) for plane in ("intro", "direct")}
        crowds["broadcast"] = broadcast.crowd
        sockets = {"intro": intro.router, "direct": direct.router, "broadcast": broadcast.xpub}
        incoming = {"intro": intro.strangers, "direct": direct.intake, "broadcast": broadcast.subscribers}
        for plane, socket in sockets.items():
            monitor = Monitor(context, socket, HANDSHAKE_FAILURES | CONNECTIONS)
            accepted = broadcast.accepted if plane == "broadcast" else crowds[plane].accepted
            happened = partial(
                _connection_event, events, plane, incoming[plane], accepted, crowds[plane].ended
            )
            nursery.start_soon(monitor.run, happened)
        monitor = Monitor(context, broadcast.xsub, CONNECTIONS)
        nursery.start_soon(monitor.run, broadcast.publishers.happened)
        for three in wanted:
            for socket, endpoint in zip(sockets.values(), three, strict=True):
                self._bound.append(bind(socket.raw, endpoint))
        addresses = tuple(Address(*self._bound[n : n + 3]) for n in range(0, len(self._bound), 3))
        direct.endpoints = {address.direct for address in addresses}
        broadcast.endpoints = {address.broadcast for address in addresses}
        for plane, crowd in crowds.items():
            crowd.endpoints = {getattr(address, plane) for address in addresses}
        await check_strangers_are_refused(context, self._gate, self._link, addresses[0].direct)
        intakes = (
            ("intro", intro.strangers),
            ("intro", intro.dialled),
            ("direct", direct.intake),
            ("direct", direct.links_intake),
            ("broadcast", broadcast.subscribers),
            ("broadcast", broadcast.publishers),
        )
        nursery.start_soon(watch, partial(_look, events, intakes))
        for pump in (intro.run, direct.run, broadcast.run_publisher, broadcast.run_subscriber):
            nursery.start_soon(pump)
        return Bound(addresses)

    def _crowd(self, plane: str, events: TransportEvents) -> Crowd:
        limits, gate = self._config.limits, self._gate
        return Crowd(
            lambda host: limits.connections_per_host + 2 * gate.peers_at(host),
            lambda: events.rejected(plane, "too_many_connections", 1),
        )

    def _close(self) -> None:
        while self._bound:
            release(self._bound.pop())
        for plane in (self._intro, self._direct, self._broadcast):
            if plane is not None:
                plane.close()
        self._intro = self._direct = self._broadcast = None

    # -- intro plane -----------------------------------------------------------

    def dial_intro(self, endpoint: str) -> IntroRoute:
        return self._intro.dial(endpoint) if self._intro is not None else IntroRoute(0)

    def send_intro(self, route: IntroRoute, frame: bytes) -> None:
        if self._intro is not None:
            self._intro.send(route, frame)

    def close_intro(self, route: IntroRoute) -> None:
        if self._intro is not None:
            self._intro.hang_up(route)

    # -- direct plane ----------------------------------------------------------

    def allow(self, peer: NodeId, link_key: bytes) -> None:
        self._gate.allow(peer, link_key)

    def disallow(self, peer: NodeId) -> None:
        self._gate.disallow(peer)

    def open_link(self, peer: NodeId, link_key: bytes, endpoint: str) -> None:
        if self._direct is not None:
            self._direct.open(peer, link_key, endpoint)

    def close_link(self, peer: NodeId) -> None:
        if self._direct is not None:
            self._direct.close_link(peer)

    def send_direct(self, peer: NodeId, frame: bytes) -> bool:
        return self._direct is not None and self._direct.send(peer, frame)

    async def wait_direct_writable(self, peer: NodeId) -> None:
        if self._direct is None:
            await trio.sleep_forever()
        else:
            await self._direct.wait_writable(peer)

    # -- broadcast plane -------------------------------------------------------

    def admit_broadcast(self, host: str) -> None:
        self._gate.admit(host)

    def dismiss_broadcast(self, host: str) -> None:
        self._gate.dismiss(host)

    def cut_subscriber(self, peer: NodeId, before: int) -> None:
        if self._broadcast is not None:
            self._broadcast.cut_subscriber(peer, before)

    def connect_broadcast(self, peer: NodeId, endpoint: str) -> None:
        if self._broadcast is not None:
            self._broadcast.connect(peer, endpoint)

    def disconnect_broadcast(self, peer: NodeId) -> None:
        if self._broadcast is not None:
            self._broadcast.disconnect(peer)

    def subscribe(self, body: bytes) -> None:
        if self._broadcast is not None:
            self._broadcast.subscribe(body)

    def unsubscribe(self, body: bytes) -> None:
        if self._broadcast is not None:
            self._broadcast.unsubscribe(body)

    def publish(self, tag: bytes, frame: bytes) -> bool:
        return self._broadcast is None or self._broadcast.publish(tag, frame)

    def publish_lossy(self, tag: bytes, frame: bytes) -> None:
        if self._broadcast is not None:
            self._broadcast.publish_lossy(tag, frame)

    async def wait_publishable(self) -> None:
        if self._broadcast is None:
            await trio.sleep_forever()
        else:
            await self._broadcast.wait_publishable()


def _look(events: TransportEvents, intakes: Sequence[tuple[str, Intake]]) -> bool:
    """Cut the connections that take in much, and of which no message comes; whether some go on."""
    for plane, intake in intakes:
        if cut := intake.enforce(trio.current_time()):
            events.rejected(plane, "endless", cut)
    return any(intake.restless for _, intake in intakes)


def _connection_event(
    events: TransportEvents,
    plane: str,
    intake: Intake,
    accepted: Callable[[int], None],
    ended: Callable[[int], None],
    event: int,
    value: int,
    endpoint: str,
) -> None:
    """Count the handshakes that failed on a bound socket. ZAP counts its own refusals."""
    if event & CONNECTIONS:
        intake.happened(event, value, endpoint)
        if event == zmq.EVENT_ACCEPTED:
            accepted(value)
        elif event == zmq.EVENT_DISCONNECTED:
            ended(value)
    elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
        events.rejected(plane, "handshake_protocol", 1)
    elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        events.rejected(plane, "handshake_failed", 1)
