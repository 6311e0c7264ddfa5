"""The broadcast plane: sealed frames by tag, subscriptions only with a MAC.

Out: ``publish`` → the XPUB → the pipes on which a prefix of the tag stands.
In:  one XSUB, connected to every peer's XPUB → its pump → ``broadcast_received``, a burst at once.
Subscriptions: ours go out on the XSUB to all; theirs come up from the XPUB, which in manual mode sets nothing by
itself → ``subscription_received`` → the verdict's tag is set on, or taken from, the pipe that it came from.

What libzmq does that one has to know:

- It keeps every subscription's bytes until its connection ends, refused or not (3.6 kB for one of
  100 bytes). So a connection whose refused subscriptions pass a bound is cut.
- When a connection ends it tells of each subscription once more, as taken back. These come from no
  connection and are swallowed: the peer may be back already, with the same ones.
- A pipe that ``publish_lossy`` passed over stays out until its subscriber has taken half of what
  waits, and ``publish`` no longer waits for it.
- After a reconnection the XSUB repeats its subscriptions sorted, not in the order in which they were made.
- Reading an XSUB's ``EVENTS`` takes the first part of the next message from its pipe. If that pipe is then
  disconnected, the rest is gone with it, and libzmq ends the process ("!_more", fq.cpp). So
  a message that may be half taken is taken whole before any disconnection.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, cast

import trio
import zmq

from mesh.config import Config
from mesh.core.types import NodeId
from mesh.transport.base import TransportEvents
from mesh.transport.connections import cut, descriptor, user_property
from mesh.transport.crowd import Crowd
from mesh.transport.endpoints import connect, needs_resolving, peer_host, resolve
from mesh.transport.intake import Intake
from mesh.transport.zap import BROADCAST, Gate
from mesh.transport.zmqdirect import ENVELOPE, queue_length
from mesh.transport.zmqsocket import ZmqSocket, open_socket

__all__ = ["BroadcastPlane"]

_NOBLOCK: Final = int(zmq.NOBLOCK)
_BURST: Final = 128
_VIEW_FROM: Final = 16 << 10  # bytes from which a view costs less than a copy
_BURST_BYTES: Final = 64 << 10  # about a full batch, as many messages as a program takes in its turn
_COMMAND: Final = 16  # "SUBSCRIBE" in front of it, as ZMTP 3.1 sends it
_RECHECK: Final = 0.01  # s; two publishers may each take the news the other waits for
_REFUSED_BYTES: Final = 4 << 10
"""Refused subscriptions of one connection: some 50. libzmq takes in what a connection sends faster than it can be judged
here, and without a bound of its own, so what counts is how soon the connection ends. A peer subscribes when we have its
token, and one that was cut after all comes again and repeats what it wants."""

PENALTY: Final = 1.0
"""Seconds for which no new broadcast connection is let in from an address whose connection was cut for that."""

_SUBSCRIPTION_BYTES: Final = 256 << 10
"""What a connection may take in before a whole subscription has come of it."""

_FRAMES: Final = 4
"""Largest frames that a publisher may send before a whole message has come of it: a message is a tag and one."""

_SUBSCRIPTIONS: Final = 16
"""Messages of a connection that libzmq reads ahead. It puts them all in a tree, of which each byte is a node, before any is
judged here, and goes on as long as more come; with few, it finds the pipe empty soon, and we can cut the connection."""

_RECEIVE_BUFFER: Final = 16 << 10
"""Bytes of a connection that the kernel keeps for us. What is there when we cut the connection libzmq still takes in."""

_SPARE: Final = 2
"""Connections that an address may have beyond one for each peer there: a peer's next, before its last is noticed to be dead."""

_CONNECTIONS: Final = 1024  # whose refusals are remembered


class BroadcastPlane:
    """One XPUB and one XSUB."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        nursery: trio.Nursery,
        config: Config,
        events: TransportEvents,
        gate: Gate,
    ) -> None:
        self._nursery = nursery
        self._gate = gate
        # What was published goes out although the program has ended, as long as subscribers take it.
        self._linger = int(config.drain_timeout * 1000)
        self._events = events
        self._refused: dict[int, int] = {}  # bytes, by file descriptor
        self.crowd = Crowd(
            lambda host: gate.peers_at(host) + _SPARE,
            lambda: events.rejected("broadcast", "too_many_connections", 1),
        )
        # In whose name each connection last subscribed, by file descriptor: no more than a process has files.
        self._source: dict[int, tuple[NodeId, int]] = {}
        self._endpoint_of: dict[NodeId, str] = {}
        self._ahead: list[tuple[bytes, bytes]] = []  # frames taken before a disconnection, for the next drain
        self.endpoints: Collection[str] = ()
        self.subscribers = Intake(_SUBSCRIPTION_BYTES)
        self.publishers = Intake(_FRAMES * config.limits.frame_bytes)
        queue = queue_length(config)
        self.xpub = ZmqSocket(
            open_socket(
                context,
                zmq.XPUB,
                max_message=config.limits.subscription_frame_bytes + _COMMAND,
                send_queue=queue,
                receive_queue=_SUBSCRIPTIONS,
                zap_domain=BROADCAST,
            )
        )
        self.xpub.raw.setsockopt(zmq.RCVBUF, _RECEIVE_BUFFER)
        self.xpub.raw.setsockopt(zmq.XPUB_MANUAL, 1)
        self.xpub.raw.setsockopt(zmq.XPUB_NODROP, 1)
        self.xsub = ZmqSocket(
            open_socket(
                context,
                zmq.XSUB,
                max_message=config.limits.frame_bytes + ENVELOPE,
                send_queue=0,  # none may be lost, and how many there are is our own doing
                receive_queue=queue,
            )
        )

    @trio.lowlevel.enable_ki_protection
    async def run_publisher(self) -> None:
        """Pump the XPUB until it is closed."""
        await self.xpub.pump(self._drain_subscriptions)

    @trio.lowlevel.enable_ki_protection
    async def run_subscriber(self) -> None:
        """Pump the XSUB until it is closed."""
        await self.xsub.pump(self._drain_frames)

    def close(self) -> None:
        """Close both; what was published still goes out if it can."""
        self.xpub.close(self._linger)
        self.xsub.close()

    # -- publishing ------------------------------------------------------------

    def publish(self, tag: bytes, frame: bytes) -> bool:
        """Send to every matching pipe; False, and nothing sent, if one of them is full."""
        return self.xpub.send((tag, frame))

    def publish_lossy(self, tag: bytes, frame: bytes) -> None:
        """Send to every matching pipe that is not full."""
        self.xpub.raw.setsockopt(zmq.XPUB_NODROP, 0)
        try:
            self.xpub.send((tag, frame))
        finally:
            self.xpub.raw.setsockopt(zmq.XPUB_NODROP, 1)

    async def wait_publishable(self) -> None:
        """Return when a pipe may have room again, or after a moment."""
        try:
            await self.xpub.wait_stirred(_RECHECK)
        except trio.ClosedResourceError:
            await trio.lowlevel.checkpoint()

    def _drain_subscriptions(self) -> bool:
        raw = self.xpub.raw
        for _ in range(_BURST):
            try:
                frame = raw.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return False
            message = frame.bytes
            fd = descriptor(frame)
            if fd < 0:
                continue  # the end of a connection
            if self.subscribers.suspects:
                self.subscribers.gave(fd)
            if message[:1] not in (b"\0", b"\1"):
                self._events.rejected("broadcast", "bad_frames", 1)
                cut(fd, self.endpoints)
                continue
            verdict = self._events.subscription_received(message)
            if verdict.tag is None:
                self._count_refused(fd, len(message), user_property(frame, "Peer-Address"))
            else:
                if verdict.source is not None:
                    self._source[fd] = verdict.source
                # Nothing was called on the socket since, so this is for the pipe it came from.
                raw.setsockopt(zmq.SUBSCRIBE if verdict.subscribe else zmq.UNSUBSCRIBE, verdict.tag)
        return True

    def accepted(self, fd: int) -> None:
        """A new connection has this descriptor: what an earlier one was refused is not its doing."""
        self._refused.pop(fd, None)
        self._source.pop(fd, None)
        self.crowd.accepted(fd)

    def cut_subscriber(self, peer: NodeId, before: int) -> None:
        """Close the connections that last subscribed as ``peer``, under a token older than epoch ``before``.

        The number may be another connection's by now, which has not subscribed yet: that one comes again.
        """
        for fd, (who, epoch) in list(self._source.items()):
            if who == peer and epoch < before:
                del self._source[fd]
                cut(fd, self.endpoints)

    def _count_refused(self, fd: int, size: int, address: str) -> None:
        refused = self._refused.pop(fd, 0) + size
        if refused > _REFUSED_BYTES:
            if cut(fd, self.endpoints):  # else it has been cut, and this had come before
                self._events.rejected("broadcast", "too_many_refused", 1)
                self._gate.shut(peer_host(address), trio.current_time() + PENALTY)
                # What its neighbours have sent is in libzmq as well, and is judged one by one.
                for other in self.crowd.beside(fd) - self._source.keys() - {fd}:
                    cut(other, self.endpoints)
            self._refused[fd] = refused
            return
        self._refused[fd] = refused
        if len(self._refused) > _CONNECTIONS:
            del self._refused[next(iter(self._refused))]

    # -- subscribing -----------------------------------------------------------

    def subscribe(self, body: bytes) -> None:
        """Say it to every publisher; libzmq repeats it to those that are connected later."""
        self.xsub.send((b"\1" + body,))

    def unsubscribe(self, body: bytes) -> None:
        """Take it back."""
        self.xsub.send((b"\0" + body,))

    def connect(self, peer: NodeId, endpoint: str) -> None:
        """Connect the XSUB to a peer, in place of an earlier connection."""
        self.disconnect(peer)
        self._endpoint_of[peer] = endpoint
        if needs_resolving(endpoint):
            self._nursery.start_soon(self._resolve, peer, endpoint, name=f"resolve {endpoint}")
        else:
            self._connect(endpoint)

    def _connect(self, endpoint: str) -> None:
        # A node that restarted is another peer at the same endpoint. Afresh, and once.
        self._disconnect(endpoint)
        try:
            connect(self.xsub.raw, endpoint)
        except zmq.ZMQError:  # EINVAL: no endpoint at all
            self._events.rejected("broadcast", "bad_endpoint", 1)
        self.xsub.settle()

    @trio.lowlevel.enable_ki_protection
    async def _resolve(self, peer: NodeId, endpoint: str) -> None:
        try:
            address = await resolve(endpoint)
        except OSError:
            self._events.rejected("broadcast", "no_such_host", 1)
            return
        if not self.xsub.closed and self._endpoint_of.get(peer) == endpoint:
            self._endpoint_of[peer] = address
            self._connect(address)

    def disconnect(self, peer: NodeId) -> None:
        """Disconnect from a peer, unless another one is at the same endpoint."""
        endpoint = self._endpoint_of.pop(peer, None)
        if endpoint is not None and endpoint not in self._endpoint_of.values():
            self._disconnect(endpoint)

    def _disconnect(self, endpoint: str) -> None:
        try:
            self._take_whole(self.xsub.raw.recv_multipart(zmq.NOBLOCK))
        except zmq.Again:
            pass
        try:
            self.xsub.raw.disconnect(endpoint)
        except zmq.ZMQError:  # ENOENT: not connected
            pass
        self.xsub.settle()

    def _take_whole(self, parts: list[bytes]) -> None:
        """Keep a message for the next drain: this is in the middle of something else."""
        if len(parts) == 2:
            self._ahead.append((parts[0], parts[1]))
            self.xsub.rouse()
        else:
            self._events.rejected("broadcast", "bad_frames", 1)

    def _drain_frames(self) -> bool:
        receive, suspects = self.xsub.raw.recv, self.publishers.suspects
        frames, self._ahead = self._ahead, []
        size = 0
        malformed = 0
        more = True
        for number in range(_BURST):
            if number and not self.xsub.readable():
                more = False
                break
            try:
                first = last = receive(_NOBLOCK, copy=False)
            except zmq.Again:
                more = False
                break
            parts = 1
            while last.more:
                last = receive(_NOBLOCK, copy=False)
                parts += 1
            if parts != 2:
                malformed += 1
                continue
            if suspects:
                self.publishers.gave(descriptor(last))
            # What is large is opened where libzmq has put it.
            frame = last.bytes if len(last) < _VIEW_FROM else cast("bytes", last.buffer)
            frames.append((first.bytes, frame))
            size += len(frame)
            if size >= _BURST_BYTES:
                break
        if malformed:
            self._events.rejected("broadcast", "bad_frames", malformed)
        if frames:
            self._events.broadcast_received(frames)
        return more or bool(self._ahead)
