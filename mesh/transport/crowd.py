"""How many connections each address has on a bound socket, and that none has too many.

libzmq reports a connection that begins and one that ends → counted by the other end's address → one beyond the room
for that address is shut down at once, before its handshake can be through.  So nobody can use up this process's files, or put on
a hundred connections at a time what is judged one connection after the other.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection

from mesh.transport.connections import cut
from mesh.transport.endpoints import peer_host, without_zone

__all__ = ["Crowd"]


class Crowd:
    """The connections of one socket. ``room(host)`` is how many an address may have; ``refused()`` is called for each beyond."""

    def __init__(self, room: Callable[[str], int], refused: Callable[[], None]) -> None:
        self._room = room
        self._refused = refused
        self._host_of: dict[int, str] = {}  # by file descriptor: no more than a process has files
        self._of: dict[str, set[int]] = {}
        self.endpoints: Collection[str] = ()

    def accepted(self, fd: int) -> None:
        """A new connection has this descriptor."""
        self.ended(fd)
        host = _other_end(fd)
        if not host:
            return  # a Unix socket: the folder says who may come
        together = self._of.setdefault(host, set())
        if len(together) >= self._room(host) and cut(fd, self.endpoints):
            self._refused()
        self._host_of[fd] = host
        together.add(fd)

    def ended(self, fd: int) -> None:
        """The connection with this descriptor is over."""
        host = self._host_of.pop(fd, "")
        together = self._of.get(host)
        if together is not None:
            together.discard(fd)
            if not together:
                del self._of[host]

    def beside(self, fd: int) -> set[int]:
        """The connections that come from the same address as this one, itself among them."""
        return set(self._of.get(self._host_of.get(fd, ""), ()))


def _other_end(fd: int) -> str:
    """The address at the other end, as ZAP is told it; "" if it has none, or is gone already."""
    try:
        with socket.socket(fileno=os.dup(fd)) as connection:
            if connection.family == socket.AF_UNIX:
                return ""
            return without_zone(peer_host(str(connection.getpeername()[0])))
    except OSError:  # closed already
        return ""
