"""What the network alone takes between this machine and a peer's, beside which ``bench`` puts its figures.

A TCP connection to the peer's port, which one round trip of two kernels opens, and an ICMP echo (RFC 792, RFC 4443),
which the peer's kernel answers by itself.  Either may not be had: a firewall drops pings, and a system may keep them to root.
"""

from __future__ import annotations

import secrets
import socket
import statistics
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio

__all__ = ["Floor", "floor"]

_TRIES: Final = 10
_PATIENCE: Final = 1.0  # seconds for each
_ECHO: Final = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence number
_REQUEST: Final = {socket.AF_INET: 8, socket.AF_INET6: 128}
_REPLY: Final = {socket.AF_INET: 0, socket.AF_INET6: 129}


@dataclass(frozen=True, slots=True)
class Floor:
    """Medians in seconds; None: not to be had."""

    tcp: float | None = None
    ping: float | None = None


async def floor(endpoints: tuple[str, ...]) -> Floor:
    """Measure to the first of a peer's ``tcp://`` endpoints that answers."""
    for endpoint in endpoints:
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        if not endpoint.startswith("tcp://") or "%" in host:
            continue
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        tcp = await _median(partial(_connect, host, int(port), family))
        if tcp is not None:
            return Floor(tcp, await _median(partial(_ping, host, family)))
    return Floor()


async def _median(once: Callable[[], Awaitable[float]]) -> float | None:
    times = []
    for _ in range(_TRIES):
        try:
            with trio.fail_after(_PATIENCE):
                times.append(await once())
        except (OSError, trio.TooSlowError):  # OSError: also no right to send an echo
            return None
    return statistics.median(times)


async def _connect(host: str, port: int, family: socket.AddressFamily) -> float:
    with trio.socket.socket(family) as bare:
        began = time.perf_counter()
        await bare.connect((host, port))
        return time.perf_counter() - began


async def _ping(host: str, family: socket.AddressFamily) -> float:
    protocol = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
    try:
        echo = trio.socket.socket(
            family, socket.SOCK_DGRAM, protocol
        )  # for users, where the system lets them
    except PermissionError:
        echo = trio.socket.socket(family, socket.SOCK_RAW, protocol)  # for root
    token = secrets.token_bytes(16)
    with echo:
        began = time.perf_counter()
        await echo.sendto(_request(family, token), (host, 0))
        while True:
            answer = await echo.recv(2048)
            taken = time.perf_counter() - began
            # A raw socket of IPv4 gives the IP header, too, and every echo of this machine.
            kind = answer[-len(token) - _ECHO.size] if len(answer) >= len(token) + _ECHO.size else -1
            if kind == _REPLY[family] and answer.endswith(token):
                return taken


def _request(family: socket.AddressFamily, token: bytes) -> bytes:
    """An echo request. For IPv6 the kernel fills the checksum in, which covers the addresses, too."""
    head = _ECHO.pack(_REQUEST[family], 0, 0, 0, 1)
    total = sum(struct.unpack(f"!{(len(head) + len(token)) // 2}H", head + token))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return _ECHO.pack(_REQUEST[family], 0, ~total & 0xFFFF, 0, 1) + token
