"""Whether this machine can multicast at all, asked once."""

from __future__ import annotations

import functools
import os
import socket
import struct

import pytest


@functools.cache
def why_no_multicast() -> str | None:
    """A datagram to a group on loopback must come back; why it doesn't, in one line."""
    group, port = "239.255.90.78", 20000 + os.getpid() % 20000
    try:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hears,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sends,
        ):
            hears.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            hears.bind(("", port))
            loopback = struct.pack("=4s4si", socket.inet_aton(group), bytes(4), socket.if_nametoindex("lo"))
            hears.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, loopback)
            hears.settimeout(1.0)
            sends.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, loopback)
            sends.sendto(b"there", (group, port))
            hears.recv(16)
    except OSError as error:
        return f"multicast on loopback does not come back: {error}"
    return None


@pytest.fixture
def multicast() -> None:
    if reason := why_no_multicast():
        pytest.skip(f"NO MULTICAST, so neither scout nor mDNS is tested: {reason}")
