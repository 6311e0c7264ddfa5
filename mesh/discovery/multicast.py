"""A multicast group's two sockets in one address family, under Trio.

The *listener* is bound to the group and its fixed port, shared by every node of the
machine, and hears what is multicast. The *talker* has a port of its own; questions
leave through it, so answers, which are unicast to it, reach the node that asked and no
other one of the same machine.

What comes from beyond the link is not heard: nothing is sent further than one hop, the IPv4
listener is bound to the group (no unicast arrives there), and of IPv6 only
link-local senders count, whom no router forwards.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import trio

from mesh.discovery.endpoints import Host
from mesh.discovery.interfaces import Interface

__all__ = ["GROUP_IPV4", "GROUP_IPV6", "Multicast"]

GROUP_IPV4: Final = "239.255.90.77"
"""In the range that is administratively scoped to the local network (RFC 2365 §6.1)."""

GROUP_IPV6: Final = "ff12::8000:5a4d"
"""Link-local and transient (RFC 4291 §2.7); the group id from the dynamic range (RFC 3307 §4.3)."""

_IP_MULTICAST_ALL: Final = 49  # ip(7); Python 3.11 doesn't name them
_IPV6_MULTICAST_ALL: Final = 29


class Multicast:
    """One family's group. Make it with ``open``; ``close`` when done."""

    def __init__(self, version: int, port: int) -> None:
        self.version = version
        self._port = port
        self._joined: set[int] = set()
        self._family = socket.AF_INET if version == 4 else socket.AF_INET6
        listener = talker = None
        try:
            listener, talker = self._open_listener(), self._open_talker()
            self.listener = trio.socket.from_stdlib_socket(listener)
            self.talker = trio.socket.from_stdlib_socket(talker)
        except OSError:
            for each in (listener, talker):
                if each is not None:
                    each.close()
            raise

    @classmethod
    def open(cls, version: int, port: int) -> Multicast:
        """The group in IP version 4 or 6. Raises ``OSError`` where that can't be had."""
        return cls(version, port)

    def _open_listener(self) -> socket.socket:
        listener = socket.socket(self._family, socket.SOCK_DGRAM)
        try:
            # Several nodes of one machine, also of different users, listen at the same port.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "SO_REUSEPORT"):
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if self.version == 4:
                if sys.platform == "linux":  # only what this socket joined, not what any other did
                    listener.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
                listener.bind(("" if sys.platform == "win32" else GROUP_IPV4, self._port))
            else:
                if sys.platform == "linux":
                    listener.setsockopt(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind(("::", self._port))
        except OSError:
            listener.close()
            raise
        return listener

    def _open_talker(self) -> socket.socket:
        talker = socket.socket(self._family, socket.SOCK_DGRAM)
        try:
            if self.version == 4:
                talker.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
                talker.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
            else:
                talker.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                talker.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 1)
                talker.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)
            talker.bind(("", 0))
        except OSError:
            talker.close()
            raise
        return talker

    def close(self) -> None:
        """Close both sockets. Idempotent."""
        self.listener.close()
        self.talker.close()

    def join(self, interfaces: Iterable[Interface]) -> None:
        """Hear the group on these interfaces; those that were joined before stay joined.

        The kernel may forget a membership with its interface, so an index that is no longer
        there is forgotten here too. An interface that can't multicast is passed over.
        """
        present = {each.index for each in interfaces if (each.ipv4 if self.version == 4 else each.ipv6)}
        self._joined &= present
        for index in present - self._joined:
            try:
                if self.version == 4:
                    member = struct.pack("=4s4si", IPv4Address(GROUP_IPV4).packed, b"\0" * 4, index)
                    self.listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
                else:
                    member = struct.pack("=16si", IPv6Address(GROUP_IPV6).packed, index)
                    self.listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)
            except OSError as error:
                # Already a member: the interface was away, but not taken out of the system.
                if error.errno != errno.EADDRINUSE:
                    continue
            self._joined.add(index)

    async def send(self, data: bytes, interface: Interface) -> None:
        """Send to the group out of one interface. Raises ``OSError``. One task at a time."""
        if self.version == 4:
            out = struct.pack("=4s4si", b"\0" * 4, b"\0" * 4, interface.index)
            self.talker.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, out)
            await self.talker.sendto(data, (GROUP_IPV4, self._port))
        else:
            self.talker.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, interface.index)
            await self.talker.sendto(data, (GROUP_IPV6, self._port, 0, interface.index))

    @staticmethod
    def on_link(source: Host) -> bool:
        """Whether a datagram that the listener got can only have come from this link."""
        return source.version == 4 or source.is_link_local or source.is_loopback
