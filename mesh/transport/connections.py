"""Looking at and cutting single connections beneath a libzmq socket.

libzmq tells each message's file descriptor and reports handshakes to a monitor, but closes no
connection on request.  ``shutdown(2)`` on the descriptor does: libzmq sees the end of the stream and
frees all that the connection held.
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
from collections.abc import Callable, Collection
from typing import Any, Final

import trio
import zmq

from mesh.transport.zmqsocket import ZmqSocket

__all__ = ["CONNECTIONS", "HANDSHAKE_FAILURES", "Monitor", "begun", "cut", "descriptor", "user_property"]

HANDSHAKE_FAILURES: Final = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
CONNECTIONS: Final = zmq.EVENT_ACCEPTED | zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED
"""A connection begins, either way, and ends."""
_BURST: Final = 64
_EVENT: Final = struct.Struct(
    "=HI"
)  # zmq_socket_monitor(3): the event, its value; the next frame is the address
_names = itertools.count()


def user_property(frame: zmq.Frame, name: str) -> str:
    """A property of the connection that a message came from (``User-Id``, ``Peer-Address``); "" without."""
    try:
        return str(frame.get(name))
    except zmq.ZMQError:  # EINVAL: libzmq made this message itself, or the property is not there
        return ""


def descriptor(frame: zmq.Frame) -> int:
    """The file descriptor of the connection that a message came from; -1 if it came from none."""
    try:
        return int(frame.get(zmq.SRCFD))
    except zmq.ZMQError:
        return -1


def cut(fd: int, endpoints: Collection[str]) -> bool:
    """Shut the connection ``fd`` down if it is one of a socket bound to ``endpoints``; whether it was.

    The number may have been given to another file since: only a socket whose local end is
    one of ours is touched.
    """
    try:
        with socket.socket(fileno=os.dup(fd)) as connection:
            name = connection.getsockname()
            ours = any(_ends_at(endpoint, connection, name) for endpoint in endpoints)
            if ours:
                connection.shutdown(socket.SHUT_RDWR)
            return ours
    except OSError:  # it is closed already, or no socket
        return False


def begun(event: int, fd: int, endpoint: str) -> bool:
    """Whether ``fd`` still is the connection that an ``EVENT_ACCEPTED`` or ``EVENT_CONNECTED`` told of.

    Reports come late on a busy machine. The connection may be over by then, and its number that of a file which is
    none of libzmq's: another thread's socket, which nobody here may touch.
    """
    try:
        with socket.socket(fileno=os.dup(fd)) as connection:
            end = connection.getsockname() if event == zmq.EVENT_ACCEPTED else connection.getpeername()
            return _ends_at(endpoint, connection, end)
    except OSError:  # it is closed already, no socket, or not connected
        return False


def _ends_at(endpoint: str, connection: socket.socket, end: Any) -> bool:
    """Whether an endpoint can be this end of a connection: a stream, with the same port or path."""
    if connection.type != socket.SOCK_STREAM:
        return False
    if connection.family == socket.AF_UNIX:
        return endpoint == f"ipc://{end}"
    return endpoint.startswith("tcp://") and endpoint.rpartition(":")[2] == str(end[1])


class Monitor:
    """What libzmq tells of a socket's connections. Make it before the socket binds or connects.

    libzmq 4.3 sends its reports blocking, from the I/O thread that serves every socket of the context, and
    goes on until a closed socket has lingered out. With nobody at the other end of the PAIR, or with
    its queue full, that thread stands still, and with it the node. So reports end before their reader does
    (``ZmqSocket.unwatch``), and the queue has no bound: a report is some hundred bytes, costs who
    causes it a TCP connection, and is read at once.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], watched: ZmqSocket, events: int) -> None:
        address = f"inproc://monitor.{next(_names)}"
        self._watched = watched
        watched.watch(address, events)
        raw: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        raw.setsockopt(zmq.LINGER, 0)
        raw.setsockopt(zmq.RCVHWM, 0)
        raw.connect(address)
        self._pair = ZmqSocket(raw)

    @trio.lowlevel.enable_ki_protection
    async def run(self, happened: Callable[[int, int, str], None]) -> None:
        """Call ``happened(event, value, endpoint)`` until cancelled; then close."""

        def drain() -> bool:
            for _ in range(_BURST):
                if self._pair.closed:
                    break
                try:
                    report, endpoint = self._pair.raw.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    return False
                event, value = _EVENT.unpack(report)
                happened(event, value, endpoint.decode(errors="replace"))
            return True

        try:
            await self._pair.pump(drain)
        finally:
            self.close()

    def close(self) -> None:
        """No more reports. Idempotent."""
        self._watched.unwatch()
        self._pair.close()
