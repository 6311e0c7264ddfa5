"""Every message of the wire, as named tuples, with the form each field must have.

A message travels as one CBOR array: its code, then its fields in the order in
which they stand here (``mesh.core.codec`` turns one into the other).  A
receiver ignores fields that follow the ones it knows, so that a later version
may append.  The tables ``INTRO`` and ``DIRECT`` say which code is which
message on which plane; the specification is ``docs/design/wire.md``.

Values of a program (``data``) are opaque bytes here.  ``kind`` says how to
read them: ``RAW`` (bytes, untouched) or ``CBOR``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from mesh.core.topic import is_valid_topic

__all__ = [
    "CBOR",
    "DIRECT",
    "INTRO",
    "PLAIN",
    "RAW",
    "AttachMessage",
    "Batch",
    "CancelMessage",
    "CertificateMessage",
    "CertificateWantedMessage",
    "Chunk",
    "CreditMessage",
    "CutOffMessage",
    "DirectMessage",
    "DirectedMessage",
    "ErrorMessage",
    "GoodbyeMessage",
    "GossipMessage",
    "HelloMessage",
    "InterestEntry",
    "InterestsMessage",
    "InterestsWantedMessage",
    "IntroMessage",
    "JoinChallengeMessage",
    "JoinGrantMessage",
    "JoinHelloMessage",
    "JoinProofMessage",
    "KeyAnnouncement",
    "KeyMessage",
    "KeyWantedMessage",
    "PartMessage",
    "PingMessage",
    "PingRequestMessage",
    "PongMessage",
    "PositionsMessage",
    "RecordMessage",
    "RefuseMessage",
    "RepairMessage",
    "RepairedMessage",
    "ReplyMessage",
    "RequestMessage",
    "RevocationsMessage",
    "Tail",
    "VouchMessage",
    "WelcomeMessage",
    "WindowMessage",
    "WindowWantedMessage",
    "forms",
]

RAW: Final = 0
CBOR: Final = 1

Headers = Mapping[str, str]
Form = Callable[[Any], bool]


# -- forms: what a field must look like ---------------------------------------


def _uint(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 64


def _bool(value: Any) -> bool:
    return value is True or value is False


def _kind(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 1  # 1.0 and True equal 1, and are not it


def _bytes(value: Any) -> bool:
    return type(value) is bytes


def _all_bytes(value: Any) -> bool:
    # One look at each type, without a call for each: a batch has up to 512.
    return type(value) is list and set(map(type, value)) <= {bytes}


def _sized(size: int) -> Form:
    def check(value: Any) -> bool:
        return type(value) is bytes and len(value) == size

    return check


def _text(limit: int) -> Form:
    def check(value: Any) -> bool:
        return type(value) is str and len(value) <= limit

    return check


def _headers(value: Any) -> bool:
    if value is None:
        return True
    if type(value) is not dict or len(value) > 64:
        return False
    return all(type(k) is str and type(v) is str for k, v in value.items())


def _versions(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and all(map(_uint, value)) and value[0] <= value[1]


def _each(form: Form, most: int) -> Form:
    def check(value: Any) -> bool:
        return type(value) is list and len(value) <= most and all(map(form, value))

    return check


def _optional(form: Form) -> Form:
    def check(value: Any) -> bool:
        return value is None or form(value)

    return check


_id16 = _sized(16)
_token32 = _sized(32)
_known_topic = lru_cache(maxsize=4096)(is_valid_topic)  # the same few come again and again


def _topic(value: Any) -> bool:
    return type(value) is str and _known_topic(value)


_name = _text(64)
_millis = _uint


# -- intro plane: anyone who knows the mesh id may speak ------------------------


class HelloMessage(NamedTuple):
    """The dialler introduces itself: its versions, certificate and signed node record."""

    versions: list[int]
    certificate: bytes
    record: bytes


class WelcomeMessage(NamedTuple):
    """The answer to a hello that was accepted. ``version`` is the one to speak."""

    version: int
    certificate: bytes
    record: bytes


class RefuseMessage(NamedTuple):
    """The answer to a hello or join that was not accepted, and why, in clear."""

    reason: str
    text: str
    versions: list[int]


class JoinHelloMessage(NamedTuple):
    """A newcomer with a token: which invitation, a fresh nonce, its key, the name it wishes."""

    invitation: bytes
    nonce: bytes
    public_key: bytes
    name: str


class JoinChallengeMessage(NamedTuple):
    """The inviter proves that it knows the secret, and shows the CA key."""

    nonce: bytes
    ca_public_key: bytes
    proof: bytes


class JoinProofMessage(NamedTuple):
    """The newcomer proves that it knows the secret, and (``signature``) that it holds its key."""

    proof: bytes
    signature: bytes


class JoinGrantMessage(NamedTuple):
    """The certificate and mesh secret, sealed under a key made from the token's secret."""

    sealed: bytes


IntroMessage = (
    HelloMessage
    | WelcomeMessage
    | RefuseMessage
    | JoinHelloMessage
    | JoinChallengeMessage
    | JoinProofMessage
    | JoinGrantMessage
)


# -- direct plane: authenticated members over CURVE ------------------------------


class KeyAnnouncement(NamedTuple):
    """A sealing key, handed to one who may read: the chain of ``epoch``, never an older one."""

    key_id: bytes
    scope: str
    cipher: int
    epoch: int
    chain: bytes
    counter: int


class InterestEntry(NamedTuple):
    """One subscription or service of a peer.

    ``number`` names it for as long as it stands; ``kind`` is ``"s"`` for a
    subscription or ``"r"`` for a responder; ``group`` is empty for none; ``mode`` is
    0, or by how many messages publishers may be ahead of it before they wait for it.
    """

    number: int
    kind: str
    pattern: str
    group: str
    history: int
    mode: int


class AttachMessage(NamedTuple):
    """First word on a direct link, each way.

    ``session`` names this life of the link, ``answers`` the session of the other
    side's attach that this one has seen (None at first); ``token`` is the key for
    the MACs of the sender's broadcast subscriptions in ``token_epoch``; ``secret_epoch``
    the mesh secret the sender's tags are made with; ``interests`` the version of its
    interests (which follow); ``revocations`` the version of the list that it holds.
    """

    session: bytes
    answers: bytes | None
    token: bytes
    token_epoch: int
    secret_epoch: int
    revocations: int
    interests: int
    key: list[Any]


class GoodbyeMessage(NamedTuple):
    """The sender leaves, or ends this link. ``leaving`` tells which."""

    leaving: bool
    text: str


class PingMessage(NamedTuple):
    """A question to a silent peer, with the sender's interests version and digest."""

    token: int
    interests: int
    digest: bytes


class PongMessage(NamedTuple):
    token: int
    interests: int
    digest: bytes
    load: int


class PingRequestMessage(NamedTuple):
    """The sender does not hear ``node`` any more: ask it, and say so if it answers."""

    token: int
    node: bytes


class VouchMessage(NamedTuple):
    """``node`` has answered the sender since it was asked to ask: the answer to a PingRequest, if there is one."""

    token: int
    node: bytes


class InterestsMessage(NamedTuple):
    """A page of changes from version ``base`` to ``version``.

    ``base`` 0 means that the receiver forgets what it knew first. The change
    counts when ``last`` is true.
    """

    base: int
    version: int
    added: list[list[Any]]
    removed: list[int]
    last: bool


class InterestsWantedMessage(NamedTuple):
    """The receiver's picture of the sender's interests is wrong: send all."""

    version: int


class KeyMessage(NamedTuple):
    key: list[Any]


class KeyWantedMessage(NamedTuple):
    key_id: bytes


class RecordMessage(NamedTuple):
    """The sender's own node record changed (an address came or went)."""

    record: bytes


class GossipMessage(NamedTuple):
    """Other nodes that the sender knows: pairs of certificate and node record."""

    nodes: list[list[bytes]]


class RevocationsMessage(NamedTuple):
    """The CA's signed list, and the mesh secret that goes with its version."""

    revocations: bytes
    secret_epoch: int
    secret: bytes


class CertificateWantedMessage(NamedTuple):
    """The sender's certificate ends then (Unix seconds): who holds the CA key may send it a new one."""

    expires: int


class CertificateMessage(NamedTuple):
    """The receiver's new certificate, from who holds the CA key; or the sender's own."""

    certificate: bytes


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


DirectMessage = (
    AttachMessage
    | GoodbyeMessage
    | PingMessage
    | PongMessage
    | PingRequestMessage
    | VouchMessage
    | InterestsMessage
    | InterestsWantedMessage
    | KeyMessage
    | KeyWantedMessage
    | RecordMessage
    | GossipMessage
    | RevocationsMessage
    | CertificateWantedMessage
    | CertificateMessage
    | DirectedMessage
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


# -- the payload of sealed and directed batches ---------------------------------


class Batch(NamedTuple):
    """Consecutive messages of one publisher on one topic.

    ``sequence`` is the first one's number, ``timestamp`` microseconds since the
    Unix epoch; ``kinds`` is RAW or CBOR for all of them, or a byte string with one
    kind each; ``headers`` maps an index to that message's headers, None if there are none.
    """

    topic: str
    sequence: int
    timestamp: int
    kinds: int | bytes
    values: list[bytes]
    headers: Mapping[int, Headers] | None


class Chunk(NamedTuple):
    """What stands in front of a piece of a batch that does not fit a frame.

    The batch has one message, numbered ``sequence``, and as a whole ``total`` bytes; the piece is those from ``offset``
    on.
    """

    topic: str
    sequence: int
    total: int
    offset: int


class Tail(NamedTuple):
    """The publisher has published nothing on ``topic`` for a moment: ``next`` is the number that comes next.

    ``kept`` is the oldest number it keeps, None if it keeps none.
    """

    topic: str
    next: int
    kept: int | None


# -- the tables ---------------------------------------------------------------

_key_announcement_forms: tuple[Form, ...] = (_sized(8), _text(256), _uint, _uint, _token32, _uint)


def _key_announcement(value: Any) -> bool:
    return (
        type(value) is list
        and len(value) >= 6
        and all(form(item) for form, item in zip(_key_announcement_forms, value, strict=False))
    )


# A pattern is judged by ``interest``, which knows wildcards.
_interest_forms: tuple[Form, ...] = (_uint, _text(1), _text(256), _name, _uint, _uint)


def _interest_entry(value: Any) -> bool:
    return (
        type(value) is list
        and len(value) >= 6
        and all(form(item) for form, item in zip(_interest_forms, value, strict=False))
    )


def _node_pair(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and all(map(_bytes, value))


_position_forms: tuple[Form, ...] = (_uint, _topic, _uint, _optional(_uint), _uint)


def _position(value: Any) -> bool:
    return (
        type(value) is list
        and len(value) >= 5
        and all(form(item) for form, item in zip(_position_forms, value, strict=False))
    )


def _taken(value: Any) -> bool:
    return type(value) is list and len(value) >= 2 and _topic(value[0]) and _uint(value[1])


INTRO: Final[dict[int, tuple[type[Any], tuple[Form, ...]]]] = {
    1: (HelloMessage, (_versions, _bytes, _bytes)),
    2: (WelcomeMessage, (_uint, _bytes, _bytes)),
    3: (RefuseMessage, (_text(64), _text(256), _versions)),
    4: (JoinHelloMessage, (_sized(8), _id16, _token32, _name)),
    5: (JoinChallengeMessage, (_id16, _token32, _token32)),
    6: (JoinProofMessage, (_token32, _sized(64))),
    7: (JoinGrantMessage, (_bytes,)),
}
"""Intro plane: code → message, forms of its fields."""

DIRECT: Final[dict[int, tuple[type[Any], tuple[Form, ...]]]] = {
    16: (
        AttachMessage,
        (_sized(8), _optional(_sized(8)), _token32, _uint, _uint, _uint, _uint, _key_announcement),
    ),
    17: (GoodbyeMessage, (_bool, _text(256))),
    18: (PingMessage, (_uint, _uint, _id16)),
    19: (PongMessage, (_uint, _uint, _id16, _uint)),
    20: (InterestsMessage, (_uint, _uint, _each(_interest_entry, 4096), _each(_uint, 4096), _bool)),
    21: (InterestsWantedMessage, (_uint,)),
    22: (KeyMessage, (_key_announcement,)),
    23: (KeyWantedMessage, (_sized(8),)),
    24: (RecordMessage, (_bytes,)),
    25: (GossipMessage, (_each(_node_pair, 256),)),
    26: (RevocationsMessage, (_bytes, _uint, _token32)),
    27: (CertificateWantedMessage, (_uint,)),
    28: (CertificateMessage, (_bytes,)),
    29: (PingRequestMessage, (_uint, _id16)),
    30: (VouchMessage, (_uint, _id16)),
    32: (DirectedMessage, (_name, _bytes)),
    33: (RequestMessage, (_uint, _topic, _kind, _bytes, _headers, _millis, _uint, _bool)),
    34: (ReplyMessage, (_uint, _kind, _optional(_bytes), _headers, _bool, _uint)),
    35: (ErrorMessage, (_uint, _text(256), _text(4096), _uint)),
    36: (CancelMessage, (_uint,)),
    37: (CreditMessage, (_uint, _uint)),
    40: (PositionsMessage, (_uint, _each(_position, 4096), _bool)),
    41: (RepairMessage, (_uint, _topic, _uint, _uint, _uint)),
    42: (RepairedMessage, (_uint, _topic, _uint, _optional(_bytes), _bool)),
    43: (PartMessage, (_uint, _uint, _uint, _uint, _uint, _bytes)),
    48: (WindowMessage, (_uint, _uint, _uint, _each(_taken, 4096))),
    49: (WindowWantedMessage, (_uint,)),
    50: (CutOffMessage, (_uint,)),
}
"""Direct plane: code → message, forms of its fields."""


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
        and _known_topic(topic)
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


def _batch_headers(value: Any) -> bool:
    # A list of pairs on the wire: a CBOR map may have text and byte-string keys only.
    return value is None or (
        type(value) is list
        and all(type(p) is list and len(p) == 2 and _uint(p[0]) and _headers(p[1]) for p in value)
    )


forms: Final[dict[type[Any], tuple[Form, ...]]] = {
    Batch: (_topic, _uint, _uint, lambda v: _kind(v) or _bytes(v), _all_bytes, _batch_headers),
    Tail: (_topic, _uint, _optional(_uint)),
    Chunk: (_topic, _uint, _uint, _uint),
}
