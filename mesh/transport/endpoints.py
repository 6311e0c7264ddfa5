"""Endpoints of the transport: what to bind, what was bound, where to connect, who is there.

``tcp://host:P`` to listen on names three sockets: intro P, direct P + 1, broadcast P + 2, or
three free ports if P is 0.  ``ipc:///path`` names ``path.intro``, ``path.direct``, ``path.broadcast``.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
import stat
from pathlib import Path
from typing import Final

import trio
import zmq

from mesh.errors import TransportError

__all__ = [
    "PLANES",
    "bind",
    "connect",
    "is_own_unix_peer",
    "needs_resolving",
    "peer_host",
    "plane_endpoints",
    "release",
    "resolve",
    "without_zone",
]

PLANES: Final = ("intro", "direct", "broadcast")

_TCP: Final = re.compile(r"tcp://(?P<host>\*|\[[^\]\s]+\]|[^:/\s\[\]]+):(?P<port>[0-9]{1,5})")
_CREDENTIALS: Final = re.compile(r".*:(?P<uid>\d+):\d*:\d*", re.DOTALL)

_WHY: Final = {
    errno.EADDRINUSE: "address already in use: stop what listens there, or choose another port (0: any free one)",
    errno.EADDRNOTAVAIL: "this machine has no such address: use * for all of them",
    errno.ENODEV: "this machine has no such address or interface: use * for all of them",
    errno.EACCES: "permission denied: ports below 1024 need privileges; choose a higher one",
    errno.ENAMETOOLONG: "the path is too long for a Unix socket: choose a shorter folder",
    errno.ENOENT: "no such folder",
}


def plane_endpoints(listen: str) -> tuple[str, str, str]:
    """The endpoints to bind for one listen endpoint: intro, direct, broadcast. Raises ``TransportError``."""
    if listen.startswith("ipc://"):
        path = listen[6:]
        if not path.startswith("/") or "\0" in path:
            raise TransportError(listen, "an ipc endpoint is ipc:// and an absolute path")
        return f"{listen}.intro", f"{listen}.direct", f"{listen}.broadcast"
    match = _TCP.fullmatch(listen)
    if match is None:
        raise TransportError(listen, "a listen endpoint is tcp://HOST:PORT, tcp://*:PORT or ipc:///PATH")
    host, port = match["host"], int(match["port"])
    if port > 65533:
        raise TransportError(listen, "three ports from this one must be below 65536")
    intro, direct, broadcast = (f"tcp://{host}:{port + n if port else 0}" for n in range(3))
    return intro, direct, broadcast


def bind(raw: zmq.Socket[bytes], endpoint: str) -> str:
    """Bind and answer the endpoint with its real port. Raises ``TransportError`` that says what to do."""
    path = Path(endpoint[6:]) if endpoint.startswith("ipc://") else None
    try:
        if path is not None:
            _make_room(path)
        raw.setsockopt(zmq.IPV6, _wants_ipv6(endpoint))
        raw.bind(endpoint)
        if path is not None:
            path.chmod(0o600)
            return endpoint
    except TransportError:  # an OSError too, and it says all there is to say
        raise
    except OSError as error:
        raise TransportError(endpoint, _WHY.get(error.errno or 0) or os.strerror(error.errno or 0)) from None
    except zmq.ZMQError as error:
        number = error.errno or 0
        raise TransportError(endpoint, _WHY.get(number) or error.strerror.lower()) from None
    bound = raw.getsockopt(zmq.LAST_ENDPOINT)
    assert isinstance(bound, bytes)
    port = bound.rstrip(b"\0").decode().rpartition(":")[2]
    return f"{endpoint.rpartition(':')[0]}:{port}"


def release(endpoint: str) -> None:
    """Remove a Unix socket that ``bind`` made, which libzmq does not. To be called before closing it:
    afterwards another node may be there."""
    if endpoint.startswith("ipc://"):
        Path(endpoint[6:]).unlink(missing_ok=True)


def _make_room(path: Path) -> None:
    """Remove a socket that nobody listens on any more: libzmq would unlink a living one too."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Between bind and chmod, and on systems that ignore a socket's mode, only the folder protects it.
    if stat.S_IMODE(path.parent.stat().st_mode) & 0o077:
        raise TransportError(
            f"ipc://{path}", f"others can reach into {path.parent}: chmod 700 it, or choose another"
        )
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise TransportError(f"ipc://{path}", "a file that is no socket is in the way")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        else:
            raise TransportError(f"ipc://{path}", "address already in use: another node listens there")


def _host(endpoint: str) -> str:
    match = _TCP.fullmatch(endpoint)
    return match["host"].strip("[]") if match else ""


def _is_numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(without_zone(host))
    except ValueError:
        return False
    return True


def _wants_ipv6(endpoint: str) -> int:
    """1 for IPv6 and for wildcards (dual stack; libzmq falls back where the machine has no IPv6)."""
    host = _host(endpoint)
    return int(host == "*" or ":" in host)


async def resolve(endpoint: str) -> str:
    """The endpoint with an address instead of a host name. Raises ``OSError`` (no such host).

    libzmq would ask the resolver on its only I/O thread, and every link would wait.
    """
    host = _host(endpoint)
    if not host or _is_numeric(host):
        return endpoint
    port = endpoint.rpartition(":")[2]
    found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
    address = str(found[0][4][0])
    return f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}"


def needs_resolving(endpoint: str) -> bool:
    """Whether the endpoint's host is a name."""
    host = _host(endpoint)
    return bool(host) and not _is_numeric(host)


def connect(raw: zmq.Socket[bytes], endpoint: str) -> None:
    """Connect to an endpoint with a numeric host. Raises ``zmq.ZMQError`` if it is none."""
    raw.setsockopt(zmq.IPV6, _wants_ipv6(endpoint))
    raw.connect(endpoint)


# -- who is at the other end ---------------------------------------------------


def without_zone(host: str) -> str:
    """An IPv6 address without its zone (``%eth0``)."""
    return host.partition("%")[0]


def peer_host(address: str) -> str:
    """libzmq's peer address as a host: IPv4 is not written as IPv6; "" for Unix sockets and the unknown."""
    host = address.removeprefix("::ffff:") if "." in address else address
    return host if _is_numeric(host) else ""


def is_own_unix_peer(address: str) -> bool:
    """Whether libzmq's peer address is that of a Unix socket's other end, run by this user or by root.

    libzmq puts ``host:uid:gid:pid`` there from SO_PEERCRED.
    """
    if _is_numeric(address):
        return False
    match = _CREDENTIALS.fullmatch(address)
    return match is not None and int(match["uid"]) in (os.getuid(), 0)
