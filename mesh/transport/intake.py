"""What a connection may take in before a whole message has come of it.

libzmq bounds a frame (MAXMSGSIZE), but not the frames of one message: it keeps them all until the last has come,
so a message that never ends would grow for ever, and nobody above libzmq hears of it.  The kernel knows:
``tcpi_bytes_received`` (Linux 4.1, ``tcp(7)``) is what a connection has taken in.

libzmq's monitor → ``happened``; the pump's whole messages → ``gave``; ``enforce``, every moment → the
connections that take too much are cut.  To ask which connection a message came from costs as much as taking it, so
``gave`` is only wanted while there are ``suspects``.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from dataclasses import dataclass
from typing import Final

import trio
import zmq

from mesh.transport.connections import begun

__all__ = ["Intake"]

_RECEIVED: Final = struct.Struct("=128xQ")
"""``struct tcp_info`` up to ``tcpi_bytes_received`` (linux/tcp.h)."""
_TCP_INFO: Final[int | None] = getattr(socket, "TCP_INFO", None) if sys.platform == "linux" else None


class Intake:
    """The connections of one kind. ``allowance`` is in bytes, ``lifetime`` in seconds.

    A connection that took in more than ``allowance`` is a suspect; one that stays a suspect, and takes in as much
    again, is overdrawn.  So is one that is older than ``lifetime`` when another comes.  Elsewhere than on Linux, and over
    Unix sockets, nothing is known and nothing is overdrawn but by age.
    """

    def __init__(self, allowance: int, lifetime: float = float("inf")) -> None:
        self._allowance = allowance
        self._lifetime = lifetime
        self._open: dict[int, _Connection] = {}  # oldest first
        self._cut = 0
        self.suspects: set[int] = set()
        self.restless = False
        """Whether a suspect took in more between the last two calls of ``enforce``."""

    def happened(self, event: int, fd: int, endpoint: str) -> None:
        """What a ``Monitor`` of ``CONNECTIONS`` tells."""
        self.closed(fd)
        if event != zmq.EVENT_DISCONNECTED:
            self.opened(fd, trio.current_time())
            if not begun(
                event, fd, endpoint
            ):  # asked last: what took the number in between has another inode
                self.closed(fd)

    def opened(self, fd: int, clock: float) -> None:
        """There is a connection of this descriptor."""
        self.closed(fd)
        self._open[fd] = _Connection(_inode(fd), clock)
        while self._open:
            oldest = next(iter(self._open))
            if clock - self._open[oldest].began <= self._lifetime:
                break
            self._shut_down(oldest)

    def closed(self, fd: int) -> None:
        """And now there is not. Idempotent."""
        self._open.pop(fd, None)
        self.suspects.discard(fd)

    def gave(self, fd: int) -> None:
        """A whole message came of it."""
        self.suspects.discard(fd)

    def enforce(self, clock: float) -> int:
        """Cut what is overdrawn; how many connections were cut since the last call."""
        self.restless = False
        for fd, connection in list(self._open.items()):
            if _inode(fd) != connection.inode:  # its end was not told: nobody listened any more
                self.closed(fd)
                continue
            received = _received(fd)
            if received - connection.judged > self._allowance:
                connection.judged = received
                if fd in self.suspects:
                    self._shut_down(fd)
                else:
                    self.suspects.add(fd)
            elif clock - connection.began > self._lifetime:
                self._shut_down(fd)
            if fd in self.suspects and received != connection.seen:
                self.restless = True
            connection.seen = received
        cut, self._cut = self._cut, 0
        return cut

    def _shut_down(self, fd: int) -> None:
        inode = self._open[fd].inode
        self.closed(fd)
        try:
            with socket.socket(fileno=os.dup(fd)) as connection:
                if _inode(connection.fileno()) == inode:
                    connection.shutdown(socket.SHUT_RDWR)
                    self._cut += 1
        except OSError:  # it is closed already, or no socket any more
            pass


@dataclass(slots=True)
class _Connection:
    inode: int  # tells it from a later file of the same number
    began: float
    judged: int = 0  # bytes
    seen: int = 0


def _inode(fd: int) -> int:
    try:
        return os.fstat(fd).st_ino
    except OSError:  # it is closed already
        return -1


def _received(fd: int) -> int:
    """Bytes that this connection has taken in so far; 0 where nobody knows."""
    if _TCP_INFO is None:
        return 0
    try:
        # With the family given, whatever it is, Python does not ask for it; what is asked here is the same for all.
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=fd)
    except OSError:
        return 0
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _RECEIVED.size)
    except OSError:  # closed since, or a Unix socket
        return 0
    finally:
        connection.detach()  # it is libzmq's
    received: int = _RECEIVED.unpack(info)[0] if len(info) == _RECEIVED.size else 0
    return received
