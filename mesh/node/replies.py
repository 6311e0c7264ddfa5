"""Where a handler's replies go: over the link of the peer that asked, or straight back to our own caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import trio

from mesh.core.messages import ErrorMessage, ReplyMessage
from mesh.core.types import NodeId
from mesh.errors import MeshError

__all__ = ["ReplyLink", "Shortcut"]


class Sender(Protocol):
    async def send(self, peer: NodeId, message: Any) -> None: ...
    def send_nowait(self, peer: NodeId, message: Any) -> bool: ...


class ReplyLink:
    """Back over the link of the peer that asked."""

    __slots__ = ("_board", "_peer")

    def __init__(self, board: Sender, peer: NodeId) -> None:
        self._board = board
        self._peer = peer

    async def send(self, message: ReplyMessage | ErrorMessage) -> None:
        try:
            await self._board.send(self._peer, message)
        except MeshError:
            pass  # PeerGone, NodeClosed: nobody waits for it any more

    def send_nowait(self, message: ReplyMessage | ErrorMessage) -> None:
        self._board.send_nowait(self._peer, message)


class Shortcut:
    """Likewise for a request of our own."""

    __slots__ = ("send_nowait",)

    def __init__(self, reply: Callable[[Any], None]) -> None:
        self.send_nowait = reply

    async def send(self, message: ReplyMessage | ErrorMessage) -> None:
        await trio.lowlevel.checkpoint()
        self.send_nowait(message)
