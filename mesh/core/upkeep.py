"""The messages of the direct plane with which peers keep a mesh: authenticated members over CURVE.

Attach and goodbye, keepalives and probes for others, interests, sealing keys, records and gossip, revocations and
certificates.  The specification is ``docs/design/wire.md``.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from mesh.core.shapes import (
    ID16,
    NAME,
    TOKEN32,
    Table,
    array,
    boolean,
    each,
    octets,
    optional,
    sized,
    text,
    uint,
)

__all__ = [
    "UPKEEP",
    "AttachMessage",
    "CertificateMessage",
    "CertificateWantedMessage",
    "GoodbyeMessage",
    "GossipMessage",
    "InterestEntry",
    "InterestsMessage",
    "InterestsWantedMessage",
    "KeyAnnouncement",
    "KeyMessage",
    "KeyWantedMessage",
    "PingMessage",
    "PingRequestMessage",
    "PongMessage",
    "RecordMessage",
    "RevocationsMessage",
    "UpkeepMessage",
    "VouchMessage",
]


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


UpkeepMessage = (
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
)


_KEY_ANNOUNCEMENT = array(sized(8), text(256), uint, uint, TOKEN32, uint)

# A pattern is judged by ``interest``, which knows wildcards.
_INTEREST = array(uint, text(1), text(256), NAME, uint, uint)


def _node_pair(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and all(map(octets, value))


UPKEEP: Final[Table] = {
    16: (
        AttachMessage,
        (sized(8), optional(sized(8)), TOKEN32, uint, uint, uint, uint, _KEY_ANNOUNCEMENT),
    ),
    17: (GoodbyeMessage, (boolean, text(256))),
    18: (PingMessage, (uint, uint, ID16)),
    19: (PongMessage, (uint, uint, ID16, uint)),
    20: (InterestsMessage, (uint, uint, each(_INTEREST, 4096), each(uint, 4096), boolean)),
    21: (InterestsWantedMessage, (uint,)),
    22: (KeyMessage, (_KEY_ANNOUNCEMENT,)),
    23: (KeyWantedMessage, (sized(8),)),
    24: (RecordMessage, (octets,)),
    25: (GossipMessage, (each(_node_pair, 256),)),
    26: (RevocationsMessage, (octets, uint, TOKEN32)),
    27: (CertificateWantedMessage, (uint,)),
    28: (CertificateMessage, (octets,)),
    29: (PingRequestMessage, (uint, ID16)),
    30: (VouchMessage, (uint, ID16)),
}
"""Codes 16 to 31: code → message, forms of its fields."""
