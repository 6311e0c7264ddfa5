"""The invitation as text: what ``mesh invite`` prints and ``mesh join`` reads.

    version 1 | secret 16 | mesh id 16 | count 1 | endpoint hints | checksum 4   → Crockford base32, grouped

A hint is one intro endpoint: ``4`` IPv4 address, ``6`` IPv6 address, or the length-prefixed host
name behind ``1``; then the port (big-endian).  The checksum is the first 4 bytes of SHA-256 of all before
it: it finds typing mistakes, and proves nothing.

Reading is forgiving where people are not exact: letter case, spaces, dashes anywhere, O for 0, I and
L for 1.  Each mistake has its own words.
"""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass, field
from typing import Final

from mesh.core.fields import check_endpoint
from mesh.core.types import MeshId
from mesh.errors import CredentialError

__all__ = ["MAX_HINTS", "Invitation", "decode_token", "encode_token"]

MAX_HINTS: Final = 4
"""Endpoints in a token: a few interfaces of one machine, and it stays within two lines."""

_VERSION: Final = 1
_FIXED: Final = 1 + 16 + 16 + 1
_CHECKSUM: Final = 4
_MAX_CHARACTERS: Final = 2048  # four of the longest host names are some 1,700
_GROUP: Final = 6

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford: no I, L, O, U
_VALUES: Final = {character: value for value, character in enumerate(_ALPHABET)} | {"O": 0, "I": 1, "L": 1}

_IPV4: Final = 4
_IPV6: Final = 6
_NAME: Final = 1


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a token says: the shared secret (16 bytes), which mesh, and where to knock.

    ``endpoints`` are intro endpoints, ``tcp://host:port``, at most four.
    """

    secret: bytes = field(repr=False)
    mesh: MeshId
    endpoints: tuple[str, ...] = ()


def encode_token(invitation: Invitation) -> str:
    """The token. Raises ``CredentialError`` for an endpoint that means nothing on another machine."""
    if len(invitation.secret) != 16 or len(invitation.mesh) != 16:
        raise CredentialError("an invitation's secret and mesh id have 16 bytes each")
    if len(invitation.endpoints) > MAX_HINTS:
        raise CredentialError(f"an invitation names at most {MAX_HINTS} endpoints")
    body = bytes([_VERSION]) + invitation.secret + invitation.mesh + bytes([len(invitation.endpoints)])
    body += b"".join(map(_pack_hint, invitation.endpoints))
    text = _to_base32(body + hashlib.sha256(body).digest()[:_CHECKSUM])
    return "-".join(text[i : i + _GROUP] for i in range(0, len(text), _GROUP))


def decode_token(text: str) -> Invitation:
    """The invitation. Raises ``CredentialError`` saying what is wrong with the token."""
    data = _from_base32("".join(text.split()).replace("-", ""))
    if len(data) < _FIXED + _CHECKSUM:
        raise CredentialError("the token is too short: was a part of it left out?")
    body, checksum = data[:-_CHECKSUM], data[-_CHECKSUM:]
    if hashlib.sha256(body).digest()[:_CHECKSUM] != checksum:
        raise CredentialError("the token's checksum is wrong: was it mistyped, or a part of it left out?")
    if body[0] != _VERSION:
        raise CredentialError(f"the token is of version {body[0]}, and this program reads version {_VERSION}")
    return Invitation(
        secret=body[1:17], mesh=MeshId(body[17:33]), endpoints=_unpack_hints(body[33], body[34:])
    )


# -- hints --------------------------------------------------------------------


def _pack_hint(endpoint: str) -> bytes:
    wrong = check_endpoint(endpoint)
    if wrong is not None or not endpoint.startswith("tcp://"):
        raise CredentialError(
            f"{endpoint!r} cannot stand in a token: {wrong or 'another machine needs tcp://'}"
        )
    host, _, port = endpoint[6:].rpartition(":")
    tail = int(port).to_bytes(2, "big")
    if host.startswith("["):
        if "%" in host:
            raise CredentialError(f"{endpoint!r} cannot stand in a token: its zone is this machine's own")
        return bytes([_IPV6]) + ipaddress.IPv6Address(host[1:-1]).packed + tail
    try:
        return bytes([_IPV4]) + ipaddress.IPv4Address(host).packed + tail
    except ValueError:
        name = host.encode()
        return bytes([_NAME, len(name)]) + name + tail


def _unpack_hints(count: int, data: bytes) -> tuple[str, ...]:
    endpoints = []
    at = 0
    for _ in range(count):
        kind = data[at] if at < len(data) else 0
        size = {_IPV4: 4, _IPV6: 16, _NAME: data[at + 1] if at + 1 < len(data) else 0}.get(kind, 0)
        at += 2 if kind == _NAME else 1
        raw, port = data[at : at + size], int.from_bytes(data[at + size : at + size + 2], "big")
        at += size + 2
        if kind == _IPV4 and len(raw) == 4:
            host = str(ipaddress.IPv4Address(raw))
        elif kind == _IPV6 and len(raw) == 16:
            host = f"[{ipaddress.IPv6Address(raw)}]"
        else:
            host = raw.decode("ascii", errors="replace")
        endpoints.append(f"tcp://{host}:{port}")
    if at != len(data) or count > MAX_HINTS or any(map(check_endpoint, endpoints)):
        raise CredentialError("the token's endpoints cannot be read")
    return tuple(endpoints)


# -- Crockford base32 ---------------------------------------------------------


def _to_base32(data: bytes) -> str:
    padding = -len(data) * 8 % 5
    number = int.from_bytes(data, "big") << padding
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(len(data) * 8 + padding - 5, -1, -5))


def _from_base32(text: str) -> bytes:
    if not text:
        raise CredentialError("the token is empty")
    if len(text) > _MAX_CHARACTERS:
        raise CredentialError("this is too long to be a token")
    number = 0
    for position, character in enumerate(text, 1):
        value = _VALUES.get(character.upper())
        if value is None:
            raise CredentialError(
                f"{character!r} (character {position}) cannot be in a token: was it mistyped?"
            )
        number = number << 5 | value
    spare = len(text) * 5 % 8
    if spare >= 5 or number & (1 << spare) - 1:
        # Bits that no whole byte accounts for: the encoder leaves fewer than five, all zero.
        raise CredentialError("the token's length is wrong: was it mistyped, or a part of it left out?")
    return (number >> spare).to_bytes(len(text) * 5 // 8, "big")
