"""The direct plane: CURVE links between allowed keys, one way each.

In:  peers' DEALERs → our one ROUTER → its pump → the connection's User-Id, which the ZAP handler
     set from the key → ``direct_received``, a burst of each sender's frames at once.
Out: ``send`` → the peer's own DEALER, so that a blocked peer blocks nobody else.

The routing id is the other side's to choose and is not looked at.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import trio
import zmq

from mesh.config import Config
from mesh.core.types import NodeId
from mesh.transport.base import LinkKey, TransportEvents
from mesh.transport.connections import CONNECTIONS, Monitor, cut, descriptor, user_property
from mesh.transport.endpoints import connect, needs_resolving, resolve
from mesh.transport.intake import Intake
from mesh.transport.zap import DIRECT, Gate
from mesh.transport.zmqsocket import LINGER, ZmqSocket, open_socket

__all__ = ["ENVELOPE", "DirectPlane", "queue_length"]

ENVELOPE: Final = 8192
"""Bytes around the largest value: the frame's own head, its headers, CURVE's MESSAGE command (RFC 26)."""

_NOTHING: Final = 1024  # MAXMSGSIZE of a link, where the peer sends handshake commands only
_HANDSHAKE_BYTES: Final = 16 << 10  # … which are some hundred bytes, and as much again
_FRAMES: Final = 4
"""Largest frames that a peer may send before a whole message has come of it: a message is one."""
_NOBLOCK: Final = int(zmq.NOBLOCK)
_BURST: Final = 128
_BURST_BYTES: Final = 256 << 10  # a few milliseconds of decoding, then others run


def queue_length(config: Config) -> int:
    """How many messages libzmq may queue for a peer, so that full batches stay within its bytes."""
    return max(2, config.limits.outbox_peer_bytes // config.batch_bytes)


class DirectPlane:
    """One ROUTER that only receives, one DEALER for each peer that only sends."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        nursery: trio.Nursery,
        link: LinkKey,
        gate: Gate,
        config: Config,
        events: TransportEvents,
    ) -> None:
        self._context = context
        self._nursery = nursery
        self._link = link
        self._gate = gate
        self._events = events
        self._queue = queue_length(config)
        self._links: dict[NodeId, ZmqSocket] = {}
        self._watches: dict[NodeId, Monitor] = {}
        self.intake = Intake(_FRAMES * config.limits.frame_bytes)
        self.links_intake = Intake(_HANDSHAKE_BYTES)
        self._opened = trio.lowlevel.ParkingLot()
        self.endpoints: Collection[str] = ()
        raw = open_socket(
            context,
            zmq.ROUTER,
            max_message=config.limits.frame_bytes + ENVELOPE,
            send_queue=1,
            receive_queue=self._queue,
            zap_domain=DIRECT,
        )
        self.router = ZmqSocket(raw)
        raw.setsockopt(zmq.CURVE_SERVER, 1)
        raw.setsockopt(zmq.CURVE_SECRETKEY, link.secret)

    # -- receiving -------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Pump the ROUTER until it is closed."""
        await self.router.pump(self._drain)

    def _drain(self) -> bool:
        received: dict[NodeId, list[bytes]] = {}
        receive, suspects = self.router.raw.recv, self.intake.suspects
        size = 0
        more = True
        for number in range(_BURST):
            if number and not self.router.readable():
                more = False
                break
            try:
                last = receive(_NOBLOCK, copy=False)
            except zmq.Again:
                more = False
                break
            parts = 1
            while last.more:  # ``recv_multipart`` would ask the socket, which costs more than the frame
                last = receive(_NOBLOCK, copy=False)
                parts += 1
            if parts != 2:
                self._events.rejected("direct", "bad_frames", 1)
                continue
            sender = self._gate.owner(user_property(last, "User-Id"))
            if sender is None:
                # Allowed when it connected, but no longer: with its connection gone, ZAP keeps it out.
                self._events.rejected("direct", "not_allowed", 1)
                cut(descriptor(last), self.endpoints)
                continue
            if suspects:
                self.intake.gave(descriptor(last))
            frame = last.bytes
            received.setdefault(sender, []).append(frame)
            size += len(frame)
            if size >= _BURST_BYTES:
                break
        for sender, frames in received.items():
            if self._gate.is_allowed(sender):  # the one before may have led to its removal
                self._events.direct_received(sender, frames)
            else:
                self._events.rejected("direct", "not_allowed", len(frames))
        return more

    # -- sending ---------------------------------------------------------------

    def open(self, peer: NodeId, link_key: bytes, endpoint: str) -> None:
        """Connect a DEALER of ours to a peer, in place of an earlier one.

        A fresh socket, because one that ZAP refused does not try again by itself.
        """
        self.close_link(peer)
        try:
            raw = open_socket(
                self._context, zmq.DEALER, max_message=_NOTHING, send_queue=self._queue, receive_queue=1
            )
            link = ZmqSocket(raw)
            watch = self._watch(link)
        except zmq.ZMQError:  # EMFILE: too many sockets, or files of this process
            self._events.rejected("direct", "too_many_sockets", 1)
            return
        self._links[peer], self._watches[peer] = link, watch
        self._nursery.start_soon(watch.run, self.links_intake.happened)
        raw.setsockopt(zmq.CURVE_SERVERKEY, link_key)
        raw.setsockopt(zmq.CURVE_PUBLICKEY, self._link.public)
        raw.setsockopt(zmq.CURVE_SECRETKEY, self._link.secret)
        if needs_resolving(endpoint):
            self._nursery.start_soon(self._resolve, link, endpoint, name=f"resolve {endpoint}")
        else:
            self._connect(link, endpoint)
        self._opened.unpark_all()

    def _watch(self, link: ZmqSocket) -> Monitor:
        try:
            return Monitor(self._context, link, CONNECTIONS)
        except zmq.ZMQError:
            link.close()
            raise

    def _connect(self, link: ZmqSocket, endpoint: str) -> None:
        try:
            connect(link.raw, endpoint)
        except zmq.ZMQError:  # EINVAL: no endpoint at all
            self._events.rejected("direct", "bad_endpoint", 1)
        link.settle()

    @trio.lowlevel.enable_ki_protection
    async def _resolve(self, link: ZmqSocket, endpoint: str) -> None:
        try:
            address = await resolve(endpoint)
        except OSError:
            self._events.rejected("direct", "no_such_host", 1)
            return
        if not link.closed:
            self._connect(link, address)

    def close_link(self, peer: NodeId) -> None:
        """Close our DEALER to the peer; a goodbye still goes out if it can."""
        link = self._links.pop(peer, None)
        if link is not None:
            self._watches.pop(peer).close()
            link.close(LINGER)

    def send(self, peer: NodeId, frame: bytes) -> bool:
        """Queue a frame on the peer's link; False if it is full or there is none."""
        link = self._links.get(peer)
        return link is not None and link.send([frame])

    async def wait_writable(self, peer: NodeId) -> None:
        """Return when the link takes frames, or was closed; without a link, when one is opened."""
        link = self._links.get(peer)
        if link is None:
            await self._opened.park()
            return
        try:
            await link.wait_writable()
        except trio.ClosedResourceError:
            await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close everything; what was sent still goes out if it can."""
        self.router.close()
        for peer in list(self._links):
            self.close_link(peer)
