"""The words that the whole core shares: ids, addresses, rejection reasons, protocol errors.

Nothing here does anything; every other module of the core imports this one
and this one imports none of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple, NewType

__all__ = [
    "PROTOCOL_VERSIONS",
    "Address",
    "CredentialRejected",
    "MemberId",
    "MeshId",
    "NodeId",
    "RandomBytes",
    "Reason",
    "RemoteProtocolError",
    "member_id",
    "mesh_id",
    "node_id",
    "printable",
]

PROTOCOL_VERSIONS = (1, 1)
"""The lowest and the highest protocol version that this implementation speaks."""

NodeId = NewType("NodeId", bytes)
"""16 bytes: BLAKE2b-128 of the node's Curve25519 link key. One running process of a member."""

MemberId = NewType("MemberId", bytes)
"""16 bytes: BLAKE2b-128 of the member's Ed25519 public key."""

MeshId = NewType("MeshId", bytes)
"""16 bytes: the first half of SHA-256 of the CA's Ed25519 public key."""

RandomBytes = Callable[[int], bytes]
"""Where the core's random numbers come from: ``rng(n)`` gives n bytes (``os.urandom``, or seeded)."""


def node_id(link_key: bytes) -> NodeId:
    """The id of the node whose Curve25519 public link key (32 bytes) this is."""
    return NodeId(hashlib.blake2b(link_key, digest_size=16, person=b"zeromesh node").digest())


def member_id(public_key: bytes) -> MemberId:
    """The id of the member whose Ed25519 public key (32 bytes) this is."""
    return MemberId(hashlib.blake2b(public_key, digest_size=16, person=b"zeromesh member").digest())


def mesh_id(ca_public_key: bytes) -> MeshId:
    """The id of the mesh whose CA has this Ed25519 public key (32 bytes)."""
    return MeshId(hashlib.sha256(ca_public_key).digest()[:16])


def printable(text: str) -> str:
    """A peer's words for a log or a terminal: no line breaks and no control sequences, which could pretend to be ours."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


class Address(NamedTuple):
    """One way to reach a node: the ZeroMQ endpoints of its three sockets on one interface."""

    intro: str
    direct: str
    broadcast: str


class Reason(StrEnum):
    """Why a frame was rejected; each is counted by this name in ``statistics()``."""

    BAD_MAGIC = "bad_magic"
    BAD_LENGTH = "bad_length"
    BAD_VERSION = "bad_version"
    BAD_MESSAGE = "bad_message"  # not the CBOR, not the message, or not the field it must be
    UNKNOWN_KEY = "unknown_key"
    OLD_EPOCH = "old_epoch"
    FUTURE_EPOCH = "future_epoch"
    DUPLICATE = "duplicate"
    TOO_OLD = "too_old"  # below the replay window
    BAD_TAG = "bad_tag"  # the AEAD's authentication tag does not verify
    WRONG_OWNER = "wrong_owner"  # the key's owner is not the link it came over
    NOT_AUTHORIZED = "not_authorized"
    BAD_CERTIFICATE = "bad_certificate"
    BAD_RECORD = "bad_record"
    REVOKED = "revoked"
    WRONG_MESH = "wrong_mesh"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    VERSION_MISMATCH = "version_mismatch"
    BAD_SUBSCRIPTION = "bad_subscription"  # a subscription whose MAC does not verify
    TOO_MANY = "too_many"  # over a named bound
    UNEXPECTED = "unexpected"  # a valid message at a wrong time
    TOO_LARGE = "too_large"  # a piece of a value over this node's limit
    INCOMPLETE = "incomplete"  # a piece of a value of which others did not come
    BAD_HINT = "bad_hint"  # a discovery record or datagram that fails its MAC or form


class RemoteProtocolError(Exception):
    """A peer's bytes broke the protocol. It is counted under ``reason`` and never leaves the node."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail


class CredentialRejected(RemoteProtocolError):
    """A certificate, record or revocation list that does not prove what it claims."""
