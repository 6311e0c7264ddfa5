"""Requests and replies: the words that the two sides share.

``caller`` asks, ``responder`` answers.  A request goes over the direct link of the responder that was
chosen, carries the time that is left, and names its replies by number:

    caller                                        responder
      Request(number, topic, value, budget) -->     its handler runs, for at most the budget
                 <-- Reply(number, value)             one, or many while the caller's window lasts
      Credit(number, replies) -->                    the window moves on
      Cancel(number) -->                             nobody waits any more
                 <-- Error(number, type, text)        the handler raised, or one of ``REFUSALS``

A request to this node's own responder takes the same way without the wire.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from mesh.config import Config
from mesh.core.codec import encode_value
from mesh.core.types import NodeId
from mesh.errors import MeshError, MessageTooLarge
from mesh.node.message import Message, Origin, Peer, read_value

__all__ = [
    "BUSY",
    "DUPLICATE",
    "NOT_ALLOWED",
    "NOT_SERVED",
    "REFUSALS",
    "STOPPED",
    "Handler",
    "Network",
    "Reply",
    "Request",
    "cost",
    "encode",
]

# Type names of errors that no handler raised. No class name of any language begins with "@".
NOT_SERVED: Final = "@NoResponders"
"""No handler has seen it: another responder may be asked."""
BUSY: Final = "@Busy"
"""Likewise: this caller has too many requests there already."""
DUPLICATE: Final = "@Duplicate"
"""A request of this number is being served."""
STOPPED: Final = "@Stopped"
"""The responder ended while its handler was at it."""

NOT_ALLOWED: Final = "@NotAuthorized"
"""A rule of the responder's denies it to this caller; the text names the rule. No handler has seen it."""

REFUSALS: Final = (NOT_SERVED, BUSY, NOT_ALLOWED)


class Network(Protocol):
    """What requests need of the node."""

    config: Config

    def peer(self, node: NodeId) -> Peer: ...
    def peer_load(self, node: NodeId) -> int: ...
    async def send(self, peer: NodeId, message: Any) -> None: ...
    def send_nowait(self, peer: NodeId, message: Any) -> bool: ...


@dataclass(frozen=True, slots=True)
class Request:
    """What a handler gets. ``data`` is the bytes, ``value`` the decoded value."""

    topic: str
    data: bytes
    headers: Mapping[str, str]
    sender: Peer
    kind: int = field(repr=False)

    @property
    def value(self) -> Any:
        """What was sent. Raises ``ValueEncodingError`` for bytes that no ``request`` of ours would have sent."""
        return read_value(self.kind, self.data)


class Reply(Message):
    """One reply of ``request_many``: a ``Message``, or the error that the responder raised.

    ``error`` is None for a value; reading ``value`` of a reply with an error raises it.
    """

    __slots__ = ("error",)

    def __init__(self, origin: Origin, data: bytes, error: MeshError | None = None) -> None:
        super().__init__(origin, data, 0)
        self.error = error

    @property
    def value(self) -> Any:
        if self.error is not None:
            raise self.error
        return super().value


Handler = Callable[[Request], Awaitable[Any] | AsyncGenerator[Any, None]]
"""An async function of a ``Request`` whose result is the reply, or an async generator function."""


def cost(data: bytes | None) -> int:
    """What a reply that is not the last takes of the caller's window: one, and one for each whole MiB that it has."""
    return 1 if data is None else 1 + (len(data) >> 20)


def encode(value: Any, config: Config) -> tuple[int, bytes]:
    """A value of a request or reply. Raises ``ValueEncodingError``, ``MessageTooLarge``."""
    kind, data = encode_value(value)
    if len(data) > config.limits.value_bytes:
        raise MessageTooLarge(len(data), config.limits.value_bytes)
    return kind, data
