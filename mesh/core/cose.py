"""COSE_Sign1 (RFC 9052 §4.2) in the one narrow profile that zeromesh signs with.

    signing:    map → deterministic CBOR → Sig_structure → Ed25519 → [protected, {}, payload, signature]
    verifying:  size → one CBOR item → exactly this profile → the map → (caller looks) → signature

The profile: untagged; the protected header is EdDSA (RFC 9053 §2.2) and a content type, compared
as bytes with the one it must be; no unprotected headers; payload a map with text keys.  The
encoding is deterministic (RFC 8949 §4.2.1) and checked to be so: one statement has one encoding.

Kinds are kept apart twice, by content type and by ``external_aad``, so that a signature
over a record can never be shown as one over a certificate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from mesh.core.codec import decode_strict, encode_canonical
from mesh.core.types import CredentialRejected, Reason, RemoteProtocolError

__all__ = ["Kind", "Statement", "parse", "sign"]

_ALGORITHM: Final = 1  # RFC 9052 table 3: "alg"
_CONTENT_TYPE: Final = 3  # "content type"
_EDDSA: Final = -8  # RFC 9053 table 2


@dataclass(frozen=True)
class Kind:
    """What is signed: its name, the most bytes it may have, and the reason for which a bad one is refused."""

    name: str
    limit: int
    reason: Reason

    @property
    def protected(self) -> bytes:
        """The protected header, encoded."""
        return encode_canonical({_ALGORITHM: _EDDSA, _CONTENT_TYPE: f"application/zeromesh-{self.name}+cbor"})

    @property
    def external_aad(self) -> bytes:
        return f"zeromesh {self.name} v1".encode()


class Statement(NamedTuple):
    """A signed map whose signature has not been looked at yet."""

    kind: Kind
    fields: dict[str, Any]
    to_be_signed: bytes
    signature: bytes

    def verify(self, public_key: bytes) -> None:
        """Check the signature. Raises ``CredentialRejected``."""
        try:
            Ed25519PublicKey.from_public_bytes(public_key).verify(self.signature, self.to_be_signed)
        except (InvalidSignature, ValueError):
            raise CredentialRejected(self.kind.reason, f"the {self.kind.name}'s signature") from None


def _to_be_signed(kind: Kind, payload: bytes) -> bytes:
    return encode_canonical(["Signature1", kind.protected, kind.external_aad, payload])


def sign(signer: Callable[[bytes], bytes], kind: Kind, fields: dict[str, Any]) -> bytes:
    """``fields`` as a COSE_Sign1 of this kind. ``signer`` makes the Ed25519 signature of bytes."""
    payload = encode_canonical(fields)
    return encode_canonical([kind.protected, {}, payload, signer(_to_be_signed(kind, payload))])


def _plain(value: Any) -> bool:
    """No tags, no floats: nothing whose encoding could be disputed."""
    if type(value) is dict:
        return all(type(key) is str for key in value) and all(map(_plain, value.values()))
    if type(value) is list:
        return all(map(_plain, value))
    return value is None or type(value) in (bool, int, str, bytes)


def parse(encoded: bytes, kind: Kind) -> Statement:
    """The form alone: nothing in the statement is to be believed before ``verify``.

    Raises ``CredentialRejected`` for whatever is not of exactly this profile and kind.
    """
    if len(encoded) > kind.limit:
        raise CredentialRejected(kind.reason, f"{len(encoded)} bytes, over {kind.limit}")
    try:
        parts = decode_strict(encoded)
        if type(parts) is not list or len(parts) != 4:
            raise CredentialRejected(kind.reason, "not a COSE_Sign1")
        protected, unprotected, payload, signature = parts
        if protected != kind.protected or unprotected != {} or type(payload) is not bytes:
            raise CredentialRejected(kind.reason, f"not a {kind.name}")
        if type(signature) is not bytes or len(signature) != 64:
            raise CredentialRejected(kind.reason, "signature size")
        fields = decode_strict(payload)
    except CredentialRejected:
        raise
    except RemoteProtocolError as error:
        raise CredentialRejected(kind.reason, error.detail) from None
    if type(fields) is not dict or not _plain(fields):
        raise CredentialRejected(kind.reason, "not a map with text keys and plain values")
    if encode_canonical(parts) != encoded or encode_canonical(fields) != payload:
        raise CredentialRejected(kind.reason, "not deterministic CBOR")
    return Statement(kind, fields, _to_be_signed(kind, payload), signature)
