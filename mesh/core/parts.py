"""Messages of the direct plane that do not fit a frame: in parts, and what keeps its place behind them.

Sending: a message → ``place_of`` it (one request, one topic of directed batches, one repair): what has the same place
waits behind its parts, everything else passes them by.  Receiving: each ``Part`` → ``Parts.take`` → the message, with the
last one.  One over our limit is refused at its first part, and who waits for it is told at once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Final, NamedTuple

from mesh.core.chunks import Assembly, Piece, Pool
from mesh.core.codec import CODES, decode_direct
from mesh.core.effects import Effect, SendDirect
from mesh.core.messages import (
    CancelMessage,
    CreditMessage,
    DirectedMessage,
    ErrorMessage,
    PartMessage,
    RepairedMessage,
    ReplyMessage,
    RequestMessage,
)
from mesh.core.types import NodeId, Reason, RemoteProtocolError

__all__ = ["TOO_LARGE", "Parts", "Place", "place_of"]

TOO_LARGE: Final = "@MessageTooLarge"
"""Type name of the error that answers a request, or stands for a reply, over the receiver's limit."""

_DIRECTED: Final = CODES[DirectedMessage]
_REQUEST: Final = CODES[RequestMessage]
_REPLY: Final = CODES[ReplyMessage]
_REPAIRED: Final = CODES[RepairedMessage]


class Place(NamedTuple):
    """Where a message stands in order: ``code`` and ``about`` are what its parts say of it."""

    code: int
    about: int
    key: Hashable


def place_of(message: Any) -> Place | None:
    """None for control messages, which pass by everything."""
    match message:
        case DirectedMessage():
            return Place(_DIRECTED, 0, _topic_of(message.batch))
        case RequestMessage() | CancelMessage() | CreditMessage():
            return Place(_REQUEST, message.number, None)
        case ReplyMessage() | ErrorMessage():
            return Place(_REPLY, message.number, None)
        case RepairedMessage():
            return Place(_REPAIRED, 0, (message.number, message.topic))
    return None


def _topic_of(batch: bytes) -> bytes:
    """The topic of a batch that we encoded: the text behind its array's head (RFC 8949 §3)."""
    size = batch[1] & 0x1F
    start = 2
    if size >= 24:
        start = 2 + (1 << size - 24)
        size = int.from_bytes(batch[2:start], "big")
    return batch[start : start + size]


class Parts:
    """What every peer sends us in parts."""

    def __init__(
        self, largest: int, pool: Pool, effects: list[Effect], reject: Callable[[Reason], None]
    ) -> None:
        self._largest = largest
        self._effects = effects
        self._reject = reject
        self._assembly: Assembly[int, tuple[int, int]] = Assembly(
            largest, pool, lambda *_: reject(Reason.INCOMPLETE)
        )

    def take(self, peer: NodeId, part: PartMessage, clock: float) -> Any:
        """One part. The message, if it was the last (of a reply over our limit, the error that stands for it);
        else None. Raises ``RemoteProtocolError``."""
        number, code, about, total, offset, data = part
        if code not in (_DIRECTED, _REQUEST, _REPLY, _REPAIRED):
            raise RemoteProtocolError(Reason.BAD_MESSAGE, f"messages of code {code} do not come in parts")
        if total > self._largest:
            self._reject(Reason.TOO_LARGE)
            return None if offset else self._too_large(peer, code, about, total)
        pieces = self._assembly.take(peer, number, 0, (code, about), Piece(total, offset, data), clock)
        if pieces is None:
            return None
        message = decode_direct(b"".join(pieces))
        place = place_of(message)
        if place is None or (CODES[type(message)], place.about) != (code, about):
            raise RemoteProtocolError(Reason.BAD_MESSAGE, "not the message that its parts named")
        return message

    def _too_large(self, peer: NodeId, code: int, about: int, total: int) -> ErrorMessage | None:
        """Tell who waits for it."""
        text = f"{total} bytes are over the limit of {self._largest} bytes"
        error = ErrorMessage(about, TOO_LARGE, text, 0)
        if code == _REQUEST:
            self._effects.append(SendDirect(peer, error))
        elif code == _REPLY:
            self._effects.append(SendDirect(peer, CancelMessage(about)))
            return error
        return None

    def drop(self, peer: NodeId, clock: float) -> None:
        """Its link is over, or a new one."""
        self._assembly.drop(peer, clock)

    def deadline(self) -> float:
        return self._assembly.deadline()

    def timer(self, clock: float) -> None:
        """Give up what makes no progress."""
        self._assembly.timer(clock)
