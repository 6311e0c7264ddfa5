"""The messages of the direct plane that carry what programs say, and see to it that it arrives.

Directed batches, requests and replies; where streams stand, and repair of what is missing; parts of what does not fit a
frame; windows of subscriptions that are waited for.  The specification is ``docs/design/wire.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from mesh.core.batches import Headers
from mesh.core.shapes import (
    NAME,
    Table,
    array,
    boolean,
    each,
    headers,
    kind,
    known_topic,
    octets,
    optional,
    text,
    topic,
    uint,
)

__all__ = [
    "PLAIN",
    "TRAFFIC",
    "CancelMessage",
    "CreditMessage",
    "CutOffMessage",
    "DirectedMessage",
    "ErrorMessage",
    "PartMessage",
    "PositionsMessage",
    "RepairMessage",
    "RepairedMessage",
    "ReplyMessage",
    "RequestMessage",
    "TrafficMessage",
    "WindowMessage",
    "WindowWantedMessage",
]


class DirectedMessage(NamedTuple):
    """A batch for this peer alone: of ``publish(to=)``, or of a group delivery.

    ``batch`` is an encoded ``Batch``. ``group`` is empty for ``to=``.
    """

    group: str
    batch: bytes


class RequestMessage(NamedTuple):
    """``budget`` is what is left of the caller's time, in milliseconds.

    ``window`` is how many replies may be in flight before the caller grants
    more; ``many`` tells that it will take more than one.
    """

    number: int
    topic: str
    kind: int
    data: bytes
    headers: Headers | None
    budget: int
    window: int
    many: bool


class ReplyMessage(NamedTuple):
    """``last`` ends the request; ``data`` is None for the end of a stream without a value."""

    number: int
    kind: int
    data: bytes | None
    headers: Headers | None
    last: bool
    load: int


class ErrorMessage(NamedTuple):
    """The handler raised (``type_name`` is its exception's), or could not be run."""

    number: int
    type_name: str
    text: str
    load: int


class CancelMessage(NamedTuple):
    number: int


class CreditMessage(NamedTuple):
    number: int
    replies: int


class PositionsMessage(NamedTuple):
    """Where the streams of the sender stand as subscriptions of the receiver become live.

    ``version`` is that of the barrier that is answered behind it; each of ``positions`` is
    (number of the subscription, topic, next number, first number kept or None, first number that there is
    for this subscription).
    """

    version: int
    positions: list[list[Any]]
    last: bool


class RepairMessage(NamedTuple):
    """Messages of the receiver's that the sender misses: numbers from ``first`` up to ``end``.

    ``number`` is the subscription that misses them, 0 if all do; ``most`` the bytes of the largest batch that the
    receiver takes.
    """

    number: int
    topic: str
    first: int
    end: int
    most: int


class RepairedMessage(NamedTuple):
    """One kept batch again (None: there is none left). ``kept`` is the oldest number still kept; ``last``
    ends the answer, if not the hole. ``number`` is that of the question."""

    number: int
    topic: str
    kept: int
    batch: bytes | None
    last: bool


class PartMessage(NamedTuple):
    """A piece of a message that does not fit a frame: its bytes from ``offset`` on, of ``total``.

    ``number`` tells the messages apart that are under way at once; ``code`` is the message's, ``about`` the number
    of the request that it belongs to, 0 for others.
    """

    number: int
    code: int
    about: int
    total: int
    offset: int
    piece: bytes


class WindowMessage(NamedTuple):
    """How far a subscription of the sender's that publishers wait for has come.

    Of each topic in ``taken``, (topic, number), everything below the number is taken; from now on the receiver may be
    ``messages`` and ``bytes`` ahead. Without positions the window begins anew.
    """

    number: int
    messages: int
    bytes: int
    taken: list[list[Any]]


class WindowWantedMessage(NamedTuple):
    """The sender waits for subscription ``number`` of the receiver's: it asks how far that has come."""

    number: int


class CutOffMessage(NamedTuple):
    """The sender waits no more for subscription ``number`` of the receiver's."""

    number: int


TrafficMessage = (
    DirectedMessage
    | RequestMessage
    | ReplyMessage
    | ErrorMessage
    | CancelMessage
    | CreditMessage
    | PositionsMessage
    | RepairMessage
    | RepairedMessage
    | PartMessage
    | WindowMessage
    | WindowWantedMessage
    | CutOffMessage
)


_POSITION = array(uint, topic, uint, optional(uint), uint)
_TAKEN = array(topic, uint)

TRAFFIC: Final[Table] = {
    32: (DirectedMessage, (NAME, octets)),
    33: (RequestMessage, (uint, topic, kind, octets, headers, uint, uint, boolean)),
    34: (ReplyMessage, (uint, kind, optional(octets), headers, boolean, uint)),
    35: (ErrorMessage, (uint, text(256), text(4096), uint)),
    36: (CancelMessage, (uint,)),
    37: (CreditMessage, (uint, uint)),
    40: (PositionsMessage, (uint, each(_POSITION, 4096), boolean)),
    41: (RepairMessage, (uint, topic, uint, uint, uint)),
    42: (RepairedMessage, (uint, topic, uint, optional(octets), boolean)),
    43: (PartMessage, (uint, uint, uint, uint, uint, octets)),
    48: (WindowMessage, (uint, uint, uint, each(_TAKEN, 4096))),
    49: (WindowWantedMessage, (uint,)),
    50: (CutOffMessage, (uint,)),
}
"""Codes from 32 on: code → message, forms of its fields."""


_U64: Final = 1 << 64


def _plain_request(
    number: Any, topic: Any, kind: Any, data: Any, headers: Any, budget: Any, window: Any, many: Any
) -> bool:
    return (
        type(number) is type(kind) is type(budget) is type(window) is int
        and 0 <= kind <= 1
        and 0 <= number < _U64
        and 0 <= budget < _U64
        and 0 <= window < _U64
        and type(topic) is str
        and known_topic(topic)
        and type(data) is bytes
        and headers is None
        and type(many) is bool
    )


def _plain_reply(number: Any, kind: Any, data: Any, headers: Any, last: Any, load: Any) -> bool:
    return (
        type(number) is type(kind) is type(load) is int
        and 0 <= kind <= 1
        and 0 <= number < _U64
        and 0 <= load < _U64
        and type(data) is bytes
        and headers is None
        and type(last) is bool
    )


PLAIN: Final[dict[int, Callable[..., bool]]] = {33: _plain_request, 34: _plain_reply}
"""The two messages that a request's round trip waits for, as they nearly always are: what passes here passes the
forms above, in a third of the time; what does not is left to them."""
