"""What a program receives: messages, and the peers and events it can watch.

A ``Message`` is a view on the batch that it came in: everything that is the same
for all messages of a batch stands once, in an ``Origin``, and a value is decoded when it is
first asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mesh.core.codec import decode_value
from mesh.core.messages import RAW, Batch
from mesh.core.types import RemoteProtocolError
from mesh.errors import ValueEncodingError

__all__ = [
    "Message",
    "MessagesLost",
    "Origin",
    "Peer",
    "PeerEvent",
    "PeerJoined",
    "PeerLeft",
    "PeerRecovered",
    "PeerSuspected",
    "read_value",
]

_NO_HEADERS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Peer:
    """A member's running node, as it was when asked for.

    ``id`` is the node's id (32 hex digits; new with each start), ``member`` the
    member's; ``endpoints`` are its intro endpoints; ``rtt`` is the smoothed
    round-trip time in seconds, None until measured.
    """

    id: str
    name: str
    member: str
    endpoints: tuple[str, ...]
    state: Literal["alive", "suspect", "left"]
    rtt: float | None


def read_value(kind: int, data: bytes) -> Any:
    """A received value. Raises ``ValueEncodingError`` if another implementation sent what we refuse."""
    if kind == RAW:
        return data
    try:
        return decode_value(kind, data)
    except RemoteProtocolError as error:
        raise ValueEncodingError("CBOR", error.detail) from None


class Origin:
    """What the messages of one batch have in common."""

    __slots__ = ("apart", "first", "headers", "kinds", "sender", "timestamp", "topic")

    def __init__(self, batch: Batch, sender: Peer, *, apart: bool = False) -> None:
        self.topic = batch.topic
        self.first = batch.sequence
        self.timestamp = batch.timestamp
        self.kinds = batch.kinds
        self.headers = batch.headers
        self.sender = sender
        self.apart = apart  # it was sent to us alone: its numbers are not those of the topic


class Message:
    """One message. ``value`` is what was published, ``data`` its bytes."""

    __slots__ = ("_index", "_origin", "_value", "data")

    _value: Any

    def __init__(self, origin: Origin, data: bytes, index: int) -> None:
        self._origin = origin
        self._index = index
        self.data = data

    @property
    def topic(self) -> str:
        return self._origin.topic

    @property
    def kind(self) -> int:
        """How ``data`` is to be read: 0 raw bytes, 1 CBOR."""
        kinds = self._origin.kinds
        return kinds if isinstance(kinds, int) else kinds[self._index]

    @property
    def value(self) -> Any:
        """What was published: ``bytes`` untouched, everything else decoded from CBOR (once).

        Raises ``ValueEncodingError`` for bytes that no ``publish`` of ours would have sent.
        """
        try:
            return self._value  # not there before it is first asked for
        except AttributeError:
            self._value = read_value(self.kind, self.data)
            return self._value

    @property
    def headers(self) -> Mapping[str, str]:
        """Text to text; empty if there are none."""
        headers = self._origin.headers
        return _NO_HEADERS if headers is None else headers.get(self._index, _NO_HEADERS)

    @property
    def sender(self) -> Peer:
        """The peer that published it, as it was known on arrival."""
        return self._origin.sender

    @property
    def sequence(self) -> int:
        """Its number among the sender's messages on this topic, from 0."""
        return self._origin.first + self._index

    @property
    def timestamp(self) -> float:
        """When the sender's batch was begun: seconds since the Unix epoch by the sender's clock."""
        return self._origin.timestamp / 1e6

    def __repr__(self) -> str:
        shown = repr(self.data if len(self.data) <= 40 else self.data[:40] + b"...")
        return f"<Message {self.topic} #{self.sequence} from {self.sender.name}: {shown}>"


@dataclass(frozen=True, slots=True)
class PeerEvent:
    """Something about a peer changed. ``why`` is in words."""

    peer: Peer
    why: str = ""


class PeerJoined(PeerEvent):
    """The peer was introduced, and both directions and both planes work."""


class PeerSuspected(PeerEvent):
    """The peer is silent and a probe is unanswered."""


class PeerRecovered(PeerEvent):
    """A suspect was heard again."""


class PeerLeft(PeerEvent):
    """The peer said goodbye, stayed silent for too long, or was cut off."""


@dataclass(frozen=True, slots=True)
class MessagesLost(PeerEvent):
    """Messages of ``peer`` on ``topic`` will never come: ``count`` of them, from number ``first`` on.

    ``why`` is ``"network"`` (a link or a full pipe lost them, and the publisher is not reliable), ``"not_kept"``
    (a reliable publisher's ring had moved on) or ``"publisher_gone"`` (it left before it could repair).
    """

    topic: str = ""
    first: int = 0
    count: int = 0
