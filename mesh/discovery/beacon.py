"""The beacon: what a node says of itself to a network where anybody listens. Pure.

One layout serves the scout's datagrams and the TXT record of mDNS::

    magic "ZB" | format 1 | kind 1 | node id 16 | protocol range: low 1, high 1
    | count 1 | endpoints … | zeros (a question's padding) | MAC 16

An endpoint is ``4`` + address 4 + port 2, ``6`` + address 16 + port 2 (big-endian), or
``t`` + length 1 + UTF-8 text for a host name or an ``ipc://`` path. The MAC is HMAC-SHA256
(RFC 2104) cut to 16 bytes, under the mesh's beacon key, over everything before it; it is
checked first and in constant time, so that nothing of a stranger's is parsed. Neither mesh,
member, service nor topic is named; those who don't hold the key see an id that lasts as
long as the process, and its endpoints.

A beacon carries no time and proves no freshness: it can be recorded and sent again by
anybody. That is all right, because it is a *hint*. Whom one reaches there is settled by
certificates and link keys, and what a hint may cost is bounded wherever one is taken.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from mesh.core.types import PROTOCOL_VERSIONS, NodeId, Reason, RemoteProtocolError
from mesh.discovery.endpoints import host_address, split_tcp, tcp
from mesh.errors import ConfigError

__all__ = ["BEACON_BYTES", "Beacon", "Kind", "decode", "encode", "read_txt", "to_txt"]

BEACON_BYTES: Final = 400
"""The longest beacon: eight IPv6 endpoints and two long texts; one datagram on any link."""

_HEAD: Final = struct.Struct(">2sBB16sBBB")
_MAGIC: Final = b"ZB"
_FORMAT: Final = 1
_MAC_BYTES: Final = 16
_LABEL: Final = b"zeromesh beacon v1"
_ENDPOINTS: Final = 16  # more than any node may advertise (Limits.addresses_per_node)

_TXT_VERSION: Final = b"txtvers=1"  # RFC 6763 §6.7
_TXT_PIECE: Final = 240  # characters of base64 in one string: with its key below 255
_TXT_BYTES: Final = 1300  # RFC 6763 §6.2: a TXT record should fit one packet


class Kind(IntEnum):
    """What a beacon is for. A question is answered, the others aren't."""

    QUESTION = 1
    ANSWER = 2
    RECORD = 3  # in a TXT record


_KINDS: Final = frozenset(int(kind) for kind in Kind)


@dataclass(frozen=True, slots=True)
class Beacon:
    """A node's id, its intro endpoints (likeliest first) and the protocol versions it speaks."""

    node: NodeId
    intros: tuple[str, ...]
    versions: tuple[int, int] = PROTOCOL_VERSIONS


@lru_cache(maxsize=16)  # a node repeats itself, on every interface
def encode(beacon: Beacon, kind: Kind, key: bytes) -> bytes:
    """The beacon as bytes, at most ``BEACON_BYTES``; endpoints that don't fit are left out.

    A question always has that length, so that no answer is longer than what was asked:
    a forged sender's address turns nobody into an amplifier. Raises ``ConfigError`` for an
    endpoint that is none.
    """
    room = BEACON_BYTES - _MAC_BYTES - _HEAD.size
    body, count = b"", 0
    for endpoint in beacon.intros[:_ENDPOINTS]:
        packed = _pack_endpoint(endpoint)
        if len(body) + len(packed) <= room:
            body += packed
            count += 1
    low, high = beacon.versions
    message = _HEAD.pack(_MAGIC, _FORMAT, kind, beacon.node, low, high, count) + body
    if kind is Kind.QUESTION:
        message = message.ljust(BEACON_BYTES - _MAC_BYTES, b"\0")
    return message + _mac(message, key)


@lru_cache(maxsize=256)  # and is heard on every interface
def decode(data: bytes, key: bytes) -> tuple[Kind, Beacon]:
    """The kind and content of received bytes.

    Raises ``RemoteProtocolError(BAD_HINT)`` whose ``detail`` is one of a few fixed words, fit to
    count by: ``size``, ``magic``, ``mac`` (another mesh's, or forged), ``form``.
    """
    if not _HEAD.size + _MAC_BYTES <= len(data) <= BEACON_BYTES:
        raise _bad("size")
    if not data.startswith(_MAGIC):
        raise _bad("magic")
    message, mac = data[:-_MAC_BYTES], data[-_MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(message, key)):
        raise _bad("mac")
    _, version, kind, node, low, high, count = _HEAD.unpack_from(message)
    if version != _FORMAT or kind not in _KINDS or not 1 <= low <= high or count > _ENDPOINTS:
        raise _bad("form")
    if kind == Kind.QUESTION and len(data) != BEACON_BYTES:
        raise _bad("size")
    intros, rest = [], message[_HEAD.size :]
    for _ in range(count):
        endpoint, rest = _take_endpoint(rest)
        intros.append(endpoint)
    if rest.strip(b"\0") or (rest and kind != Kind.QUESTION):
        raise _bad("form")
    return Kind(kind), Beacon(NodeId(node), tuple(intros), (low, high))


def _mac(message: bytes, key: bytes) -> bytes:
    return hmac.new(key, _LABEL + message, hashlib.sha256).digest()[:_MAC_BYTES]


def _bad(detail: str) -> RemoteProtocolError:
    return RemoteProtocolError(Reason.BAD_HINT, detail)


def _pack_endpoint(endpoint: str) -> bytes:
    parts, address = split_tcp(endpoint), host_address(endpoint)
    if parts is not None and address is not None and not getattr(address, "scope_id", None):
        return str(address.version).encode() + address.packed + struct.pack(">H", parts[1])
    text = endpoint.encode()
    if not _is_text(endpoint) or len(text) > 255:
        raise ConfigError(f"{endpoint!r} cannot be announced", key="listen")
    return b"t" + bytes([len(text)]) + text


def _take_endpoint(data: bytes) -> tuple[str, bytes]:
    """The first endpoint and what follows it."""
    for mark, size, family in ((b"4", 4, IPv4Address), (b"6", 16, IPv6Address)):
        if data.startswith(mark):
            if len(data) < 3 + size:
                raise _bad("form")
            address = family(data[1 : 1 + size])
            (port,) = struct.unpack_from(">H", data, 1 + size)
            if port == 0 or address.is_unspecified or address.is_multicast:
                raise _bad("form")
            return tcp(str(address), port), data[3 + size :]
    if len(data) < 2 or not data.startswith(b"t") or len(data) < 2 + data[1]:
        raise _bad("form")
    try:
        endpoint = data[2 : 2 + data[1]].decode()
    except UnicodeDecodeError:
        raise _bad("form") from None
    if not _is_text(endpoint):
        raise _bad("form")
    return endpoint, data[2 + data[1] :]


def _is_text(endpoint: str) -> bool:
    if not endpoint.isprintable():
        return False
    parts = split_tcp(endpoint)
    return (parts is not None and parts[1] != 0) or (endpoint.startswith("ipc://") and len(endpoint) > 6)


# -- the TXT record -------------------------------------------------------------


def to_txt(data: bytes) -> bytes:
    """A TXT record's content (RFC 1035 §3.3.14: strings with a length before each).

    After ``txtvers=1`` the beacon as unpadded base64url under ``b0=``, ``b1=`` …
    """
    text = base64.urlsafe_b64encode(data).rstrip(b"=")
    strings = [_TXT_VERSION]
    for number, start in enumerate(range(0, len(text), _TXT_PIECE)):
        strings.append(b"b%d=" % number + text[start : start + _TXT_PIECE])
    return b"".join(bytes([len(string)]) + string for string in strings)


def read_txt(record: bytes) -> bytes:
    """The beacon's bytes in a TXT record. Keys that this version doesn't know are passed over.

    Raises ``RemoteProtocolError(BAD_HINT, "txt")``.
    """
    if len(record) > _TXT_BYTES:
        raise _bad("txt")
    pieces: dict[bytes, bytes] = {}
    while record:
        length = record[0]
        string, record = record[1 : 1 + length], record[1 + length :]
        key, _, value = string.partition(b"=")
        if len(string) != length or key in pieces:
            raise _bad("txt")
        pieces[key] = value
    if pieces.get(b"txtvers") != b"1":
        raise _bad("txt")
    text = b"".join(pieces.get(b"b%d" % number, b"") for number in range(3))
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise _bad("txt") from None
