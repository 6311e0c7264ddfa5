"""Somebody on the path: a connection between two nodes leads through here, is recorded, and may be meddled with.

node → ``Tap`` (where the other is said to listen) → the other node.  What passes is kept as it came, up to a bound.  On the
broadcast plane, which has no CURVE, what a publisher sends is cut into messages (ZMTP, RFC 37), and ``meddle`` says what goes on
instead of each.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import trio

__all__ = ["GREETING", "Message", "Tap", "messages", "packed"]

Message = list[bytes]
KEPT = 8 << 20
GREETING = 64


def messages(buffer: bytearray) -> list[Message]:
    """Take whole messages off the front of a stream of ZMTP frames; commands are messages of one frame, as they are."""
    found: list[Message] = []
    while True:
        at, parts, command = 0, [], False
        while True:
            if len(buffer) < at + 2:
                return found
            flags = buffer[at]
            head = 9 if flags & 2 else 2
            if len(buffer) < at + head:
                return found
            size = int.from_bytes(buffer[at + 1 : at + head], "big")
            if len(buffer) < at + head + size:
                return found
            command = bool(flags & 4)
            parts.append(
                bytes(buffer[at : at + head + size] if command else buffer[at + head : at + head + size])
            )
            at += head + size
            if not flags & 1:
                break
        del buffer[:at]
        found.append([b"", *parts] if command else parts)


def packed(message: Message) -> bytes:
    """A message as frames; what ``messages`` found to be a command, as it was."""
    if message[0] == b"" and len(message) == 2:
        return message[1]
    last = len(message) - 1
    return b"".join(
        bytes([2 | (number < last)]) + len(part).to_bytes(8, "big") + part
        for number, part in enumerate(message)
    )


class Tap:
    """One plane of one node. ``outbound`` is what that node's peers sent to it, connection by connection,
    ``inbound`` what it answered."""

    def __init__(self, listener: trio.SocketListener, *, cut: bool) -> None:
        self._listener = listener
        self._cut = cut
        port = listener.socket.getsockname()[1]
        self.endpoint = f"tcp://127.0.0.1:{port}"
        self.target = ""
        self.meddle: Callable[[Message], list[Message]] | None = None
        self.outbound: list[bytearray] = []
        self.inbound: list[bytearray] = []
        self.size = 0

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            await trio.serve_listeners(self._pass, [self._listener], handler_nursery=nursery)

    async def _pass(self, stream: trio.SocketStream) -> None:
        host, _, port = self.target[6:].rpartition(":")
        if not port:
            return
        outbound, inbound = bytearray(), bytearray()
        self.outbound.append(outbound)
        self.inbound.append(inbound)
        try:
            async with await trio.open_tcp_stream(host, int(port)) as other, trio.open_nursery() as nursery:
                nursery.start_soon(partial(self._copy, stream, other, outbound, cut=False))
                await self._copy(other, stream, inbound, cut=self._cut)
                nursery.cancel_scope.cancel()
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # one of the two went away, and so do we

    async def _copy(
        self, source: trio.SocketStream, to: trio.SocketStream, kept: bytearray, *, cut: bool
    ) -> None:
        greeting, rest = GREETING if cut else 0, bytearray()
        while data := await source.receive_some(65536):
            if self.size < KEPT:
                kept += data
                self.size += len(data)
            first, greeting = data[:greeting], max(0, greeting - len(data))
            if not cut:
                await to.send_all(data)
                continue
            rest += data[len(first) :]
            whole = [first]
            for message in messages(rest):
                command = message[0] == b""
                whole += map(packed, [message] if command or self.meddle is None else self.meddle(message))
            await to.send_all(b"".join(whole))
        await to.send_eof()

    def said(self) -> bytes:
        """Everything that passed here, both ways."""
        return b"|".join([*self.outbound, *self.inbound])
