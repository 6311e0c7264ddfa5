"""Endpoints as text: taken apart, put together, and checked. Pure.

ZeroMQ writes an endpoint as ``tcp://host:port`` or ``ipc://path``. Everything in
``mesh.discovery`` that must look inside one does so here. The same few endpoints are looked at
on and on, with each datagram and each hint: what was found out of the latest is remembered.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

__all__ = [
    "DEFAULT_PORT",
    "Host",
    "host_address",
    "is_local",
    "is_wildcard",
    "likeliest_first",
    "split_tcp",
    "tcp",
]

_REMEMBERED: Final = 1024  # endpoints: a few for each peer; about 200 KiB

DEFAULT_PORT: Final = 7400
"""The intro port of a node that was told where to listen; seeds that name no port mean it."""

Host = IPv4Address | IPv6Address


def split_tcp(endpoint: str) -> tuple[str, int] | None:
    """Host (without brackets) and port of a ``tcp://`` endpoint; None for anything else."""
    if not endpoint.startswith("tcp://"):
        return None
    host, colon, port = endpoint[len("tcp://") :].rpartition(":")
    # `isdigit` alone would let other scripts' digits through, and int() would read them.
    if not colon or not host or not (port.isascii() and port.isdigit()) or len(port) > 5 or int(port) > 65535:
        return None
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return None
    return host, int(port)


def tcp(host: str, port: int) -> str:
    """The endpoint of this host and port, IPv6 in brackets."""
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


@lru_cache(_REMEMBERED)
def host_address(endpoint: str) -> Host | None:
    """The IP address in a ``tcp://`` endpoint; None for a name, a wildcard or another transport."""
    parts = split_tcp(endpoint)
    if parts is None:
        return None
    try:
        return ip_address(parts[0])
    except ValueError:
        return None


def is_wildcard(host: str) -> bool:
    """Whether a bound host means every interface."""
    return host in {"*", "0.0.0.0", "::"}  # noqa: S104 - compared with, not bound to


@lru_cache(_REMEMBERED)
def is_local(endpoint: str) -> bool:
    """Whether only processes of this machine can reach it: loopback, and whatever isn't TCP."""
    parts = split_tcp(endpoint)
    if parts is None or parts[0] == "localhost":
        return True
    address = host_address(endpoint)
    return address is not None and address.is_loopback


@lru_cache(_REMEMBERED)
def likeliest_first(intros: tuple[str, ...], source: str) -> tuple[str, ...]:
    """The endpoints at ``source`` first: a datagram from there has just come through."""
    there = tcp(source, 0).removesuffix("0")
    return tuple(sorted(intros, key=lambda endpoint: not endpoint.startswith(there)))
