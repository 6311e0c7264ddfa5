"""Blinded tags: what libzmq filters broadcast frames by, showing no names on the wire.

A topic ``a/b/c`` becomes a chain of 8-byte tags, one for each path that leads to it::

    "D"  t(a)  t(a/b)  t(a/b/c)  0x00        t(path) = BLAKE2b-64(path, key = tag key)

and a pattern the beginning of such chains: its levels before the first wildcard, with the final
zero if it has none.  So libzmq's prefix match serves patterns, and the core's own match stops what
a prefix lets through by chance.  A *barrier* is a tag of its own kind: ``"B"``, 8 random bytes, the
subscriber's interests version.

A subscription travels with its subscriber's id and a MAC::

    node id 16 | token epoch u32 | MAC 16 | tag       (big-endian)
    MAC = HMAC-SHA256(token, "zeromesh subscription v1" | node id | token epoch | tag), first 16 bytes

under a token (32 bytes) that the subscriber gave each peer over their direct link.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import Final, NamedTuple

from mesh.core.keys import derive
from mesh.core.topic import Pattern
from mesh.core.types import NodeId, Reason, RemoteProtocolError

__all__ = [
    "SCOPED_TAG",
    "SubscriptionBody",
    "TagKey",
    "barrier_tag",
    "parse_barrier",
    "parse_subscription",
    "scoped_tag",
    "subscription_body",
    "verify_subscription",
]

_DATA: Final = b"D"
_SCOPED: Final = b"S"

SCOPED_TAG: Final = 9
"""Bytes of what the tags of a scope begin with."""
_BARRIER: Final = struct.Struct(">c8sQ")
_END: Final = b"\0"
_TAG_BYTES: Final = (
    8  # 2⁻⁶⁴ for two paths to meet by chance; and if they do, the core's match tells them apart
)

_PREFIX_LEVELS: Final = 120
"""Levels of a pattern that its prefix shows at most, so that the subscription fits in the
1 KiB that a broadcast socket takes in (a topic of one-letter levels has up to 128). A shorter prefix
only lets more through."""

_BODY: Final = struct.Struct(">16sI16s")
_CONTEXT: Final = b"zeromesh subscription v1"


class TagKey:
    """Makes tags under one epoch of the mesh secret (32 bytes)."""

    __slots__ = ("_hash",)

    def __init__(self, secret: bytes) -> None:
        self._hash = hashlib.blake2b(key=derive(secret, b"tags"), digest_size=_TAG_BYTES)

    def chain(self, topic: str) -> bytes:
        """What stands in front of every frame of ``topic``."""
        return _DATA + self._tags(topic.split("/")) + _END

    def prefix(self, pattern: str) -> bytes:
        """What to subscribe for ``pattern``. Raises ``TopicError`` for a bad one."""
        parsed = Pattern.parse(pattern)
        levels = parsed.prefix_levels[:_PREFIX_LEVELS]
        whole = parsed.exact and len(levels) == len(parsed.levels)
        return _DATA + self._tags(levels) + (_END if whole else b"")

    def _tags(self, levels: list[str] | tuple[str, ...]) -> bytes:
        path = self._hash.copy()
        tags = []
        for index, level in enumerate(levels):
            path.update((f"/{level}" if index else level).encode())
            tags.append(path.digest())  # of the path so far; the hash goes on from here
        return b"".join(tags)


def scoped_tag(key_id: bytes) -> bytes:
    """What the tags of all frames begin with that are sealed with the key of a scope."""
    return _SCOPED + key_id


def barrier_tag(nonce: bytes, version: int) -> bytes:
    """The tag of a barrier: 8 fresh random bytes, and the version of the subscriber's interests."""
    return _BARRIER.pack(b"B", nonce, version)


def parse_barrier(tag: bytes) -> tuple[bytes, int] | None:
    """(nonce, interests version), or None if it is not the tag of a barrier."""
    if len(tag) != _BARRIER.size or tag[:1] != b"B":
        return None
    _, nonce, version = _BARRIER.unpack(tag)
    return nonce, version


class SubscriptionBody(NamedTuple):
    """A subscription as it came, its MAC not verified yet. ``epoch`` is the token's."""

    node: NodeId
    epoch: int
    mac: bytes
    tag: bytes


def _mac(token: bytes, node: bytes, epoch: int, tag: bytes) -> bytes:
    text = b"".join((_CONTEXT, node, epoch.to_bytes(4, "big"), tag))
    return hmac.digest(token, text, "sha256")[:16]


def subscription_body(node: NodeId, token_epoch: int, token: bytes, tag: bytes) -> bytes:
    """What ``node`` sends to subscribe ``tag``, or to take it back."""
    return _BODY.pack(node, token_epoch, _mac(token, node, token_epoch, tag)) + tag


def parse_subscription(body: bytes) -> SubscriptionBody:
    """Read a body. Raises ``RemoteProtocolError(BAD_SUBSCRIPTION)`` if it is too short to have a tag."""
    if len(body) <= _BODY.size:
        raise RemoteProtocolError(Reason.BAD_SUBSCRIPTION, f"{len(body)} bytes")
    node, epoch, mac = _BODY.unpack_from(body)
    return SubscriptionBody(NodeId(node), epoch, mac, body[_BODY.size :])


def verify_subscription(body: SubscriptionBody, token: bytes) -> bool:
    """Whether the MAC was made with ``token``; in constant time."""
    return hmac.compare_digest(_mac(token, body.node, body.epoch, body.tag), body.mac)
