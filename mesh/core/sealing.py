"""Values sealed for the members of a mesh, wherever they are kept: in a broker, a file, a database.

    header   "ZS" | version 1 | 0 | epoch of the mesh secret, u32 | salt, 16 | counter, u64        (32 bytes, big endian)
    sealed   AES-256-GCM(key, nonce, aad = header, CBOR [topic, kind, data]) with its tag of 16 bytes

    key      HKDF-SHA256(mesh secret, salt = "zeromesh v1", info = "sealed value" | salt, 32)
    nonce    4 zero bytes | counter

A salt is random for each process and secret, its counter begins at 0 and is never used twice: a restart begins with
another salt, so that nothing has to be remembered.  ``kind`` is 0 for bytes, 1 for CBOR, as on the wire.

Whoever knows the mesh secret of that epoch opens it: it says that *a* member sealed it, not which.  The mesh
secret changes when a member is removed.  A vault keeps the latest few that it was told; those that were
before its time it does not know.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from itertools import count
from typing import Any, Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mesh.core.codec import decode_strict, decode_value, encode_canonical, encode_value
from mesh.core.keys import derive
from mesh.core.types import RandomBytes, RemoteProtocolError
from mesh.errors import CredentialError

__all__ = ["SealedValue", "Vault"]

_HEADER: Final = struct.Struct(">2sBBI16sQ")
_MAGIC: Final = b"ZS"
_VERSION: Final = 1
_TAG: Final = 16
_EPOCHS: Final = 8
"""Secrets that a vault remembers: as many removals may lie between sealing and opening while a node runs."""


class SealedValue(NamedTuple):
    """What was sealed, and the topic that it was sealed for."""

    topic: str
    value: Any


@lru_cache(maxsize=256)  # salts of as many sealing processes are opened without deriving their keys again
def _cipher(secret: bytes, salt: bytes) -> AESGCM:
    return AESGCM(derive(secret, b"sealed value" + salt))


class Vault:
    """Seals values, and opens those that members of the same mesh have sealed."""

    def __init__(self, secret: bytes, epoch: int, rng: RandomBytes) -> None:
        self._rng = rng
        self._secrets: dict[int, bytes] = {}
        self.rekey(secret, epoch)

    def rekey(self, secret: bytes, epoch: int) -> None:
        """Seal under this mesh secret from now on."""
        self._secrets[epoch] = secret
        while len(self._secrets) > _EPOCHS:
            del self._secrets[min(self._secrets)]
        # In one piece: a value that is being sealed in another thread is sealed under the old or under the new.
        self._now = epoch, secret, self._rng(16), count()

    def seal(self, topic: str, value: Any) -> bytes:
        """The value as sealed bytes, 48 and a few longer. Raises ``ValueEncodingError``."""
        kind, data = encode_value(value)
        epoch, secret, salt, numbers = self._now
        header = _HEADER.pack(_MAGIC, _VERSION, 0, epoch, salt, next(numbers))
        nonce = bytes(4) + header[-8:]
        return header + _cipher(secret, salt).encrypt(nonce, encode_canonical([topic, kind, data]), header)

    def open(self, sealed: bytes) -> SealedValue:
        """What ``seal`` was given. Raises ``CredentialError``: it is nothing sealed, was changed, or we have no key."""
        if len(sealed) < _HEADER.size + _TAG:
            raise CredentialError("these bytes are no sealed value")
        header = sealed[: _HEADER.size]
        magic, version, zero, epoch, salt, _ = _HEADER.unpack(header)
        if (magic, version, zero) != (_MAGIC, _VERSION, 0):
            raise CredentialError("these bytes are no sealed value")
        secret = self._secrets.get(epoch)
        if secret is None:
            known = ", ".join(map(str, self._secrets))
            raise CredentialError(
                f"it is sealed under the mesh secret {epoch}, and only {known} is known here"
            )
        try:
            plain = _cipher(secret, salt).decrypt(bytes(4) + header[-8:], sealed[_HEADER.size :], header)
        except InvalidTag:
            raise CredentialError("another mesh has sealed it, or it was changed") from None
        try:
            topic, kind, data = decode_strict(plain)
            return SealedValue(topic, decode_value(kind, data))
        except (RemoteProtocolError, ValueError, TypeError) as error:
            raise CredentialError(f"a member sealed what is no value: {error}") from None
