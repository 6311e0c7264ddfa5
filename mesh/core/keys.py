"""One way to make keys from keys: HKDF-SHA256 (RFC 5869) under the project's salt.

    mesh id ──► intro key pair (CURVE server key of every node's intro socket)
            └─► beacon key     (MACs of mDNS records and scout datagrams)
    mesh secret, sealing chains, … ──► whatever ``info`` names

Each use has an ``info`` of its own, so that no two keys of the mesh are ever equal or tell
anything of each other.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mesh.core.types import MeshId

__all__ = ["SALT", "beacon_key", "derive", "intro_key_pair"]

SALT: Final = b"zeromesh v1"
"""HKDF's salt everywhere: keys of another version of the protocol have nothing in common with these."""


def derive(secret: bytes, info: bytes, length: int = 32) -> bytes:
    """HKDF-SHA256 (RFC 5869): ``length`` bytes (at most 8160) from ``secret``, for the use ``info``."""
    return HKDF(algorithm=SHA256(), length=length, salt=SALT, info=info).derive(secret)


@lru_cache(maxsize=8)
def intro_key_pair(mesh: MeshId) -> tuple[bytes, bytes]:
    """(public, secret) of the intro sockets' CURVE server key (RFC 25), raw, 32 bytes each.

    Everybody who knows the mesh id has it: it keeps introductions from those who do not,
    and says nothing of who is at the other end. Certificates do that.
    """
    secret = derive(mesh, b"intro curve key")
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw(), secret


def beacon_key(mesh: MeshId) -> bytes:
    """The 32-byte key of the MACs in mDNS records and scout datagrams."""
    return derive(mesh, b"beacon")
