"""What an attacker's program does: ZMTP (RFC 37) by hand over a plain socket."""

from __future__ import annotations

import trio

GREETING = b"\xff" + bytes(8) + b"\x7f" + bytes([3, 1])


async def connect(endpoint: str) -> trio.SocketStream:
    """A plain connection to a ``tcp://`` endpoint."""
    host, _, port = endpoint[6:].rpartition(":")
    return await trio.open_tcp_stream(host.strip("[]"), int(port))


async def greet(stream: trio.SocketStream, mechanism: bytes) -> None:
    """Exchange greetings as a client of this mechanism."""
    await stream.send_all(GREETING + mechanism.ljust(20, b"\0") + b"\0" + bytes(31))
    got = b""
    while len(got) < 64:
        got += await stream.receive_some(64 - len(got)) or b"\0" * 64


async def null_handshake(stream: trio.SocketStream, socket_type: bytes) -> None:
    """The whole NULL handshake."""
    await greet(stream, b"NULL")
    body = b"\x05READY\x0bSocket-Type" + len(socket_type).to_bytes(4, "big") + socket_type
    await stream.send_all(bytes([4, len(body)]) + body)
    await stream.receive_some(4096)


def short_frame(body: bytes, *, more: bool = False) -> bytes:
    return bytes([int(more), len(body)]) + body


def long_frame(declared: int, body: bytes, *, more: bool = False) -> bytes:
    """A frame that says it is ``declared`` bytes."""
    return bytes([2 | int(more)]) + declared.to_bytes(8, "big") + body


async def closed_by_peer(stream: trio.SocketStream) -> None:
    """Return when the other side has closed."""
    try:
        while await stream.receive_some(4096):
            pass
    except trio.BrokenResourceError:
        pass
