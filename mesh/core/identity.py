"""Who is who: certificates, node records, the revocation list.

    CA key  --signs-->  Certificate(member key, name, roles)     who belongs to the mesh
    member key  --signs-->  NodeRecord(link key, addresses)      which process speaks for a member
    CA key  --signs-->  Revocations(members, secret hash)        who no longer belongs

``issue_*``/``sign_*`` make the bytes, ``verify_*`` turn bytes into the object or raise
``CredentialRejected`` with the reason.  A field is looked at only within its bounds; keys of the map
that a reader does not know are ignored (and covered by the signature), so that a later version may add some.
``now`` is wall-clock Unix seconds.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mesh.core import cose
from mesh.core.fields import CERTIFICATE, FORMAT, RECORD, REVOCATIONS, Forms, what_is_wrong
from mesh.core.types import (
    Address,
    CredentialRejected,
    MemberId,
    MeshId,
    NodeId,
    Reason,
    member_id,
    mesh_id,
    node_id,
)
from mesh.errors import CredentialError

__all__ = [
    "CLOCK_TOLERANCE",
    "Certificate",
    "NodeRecord",
    "Revocations",
    "SigningKey",
    "issue_certificate",
    "issue_revocations",
    "read_certificate",
    "secret_hash",
    "sign_record",
    "verify_certificate",
    "verify_record",
    "verify_revocations",
]

CLOCK_TOLERANCE: Final = 120.0
"""Seconds by which two machines' clocks may differ: a laptop that has just woken is that far off until
its time service has caught up, and a minute or two of longer life gives a holder nothing."""

# A Hello carries one certificate and one record in a frame of 4 KiB.
_CERTIFICATE: Final = cose.Kind("certificate", 1280, Reason.BAD_CERTIFICATE)
_RECORD: Final = cose.Kind("record", 2048, Reason.BAD_RECORD)
_REVOCATIONS: Final = cose.Kind("revocations", 20 << 10, Reason.BAD_CERTIFICATE)


# -- keys ---------------------------------------------------------------------


class SigningKey:
    """An Ed25519 key pair (RFC 8032) of a member or a CA, from its 32-byte seed."""

    __slots__ = ("_key", "member_id", "public", "seed")

    public: bytes
    member_id: MemberId
    seed: bytes

    def __init__(self, seed: bytes) -> None:
        if len(seed) != 32:
            raise CredentialError("an Ed25519 seed has 32 bytes")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.seed = seed
        self.public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.member_id = member_id(self.public)

    @classmethod
    def from_seed(cls, seed: bytes) -> SigningKey:
        """The key pair of this seed (32 bytes). Raises ``CredentialError`` for another length."""
        return cls(seed)

    def sign(self, data: bytes) -> bytes:
        """The 64-byte signature of ``data``."""
        return self._key.sign(data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SigningKey) and self.public == other.public

    def __hash__(self) -> int:
        return hash(self.public)

    def __repr__(self) -> str:
        return f"SigningKey({self.member_id.hex()})"  # never the seed


# -- making and reading what is signed ---------------------------------------


def _make(signer: SigningKey, kind: cose.Kind, forms: Forms, fields: dict[str, Any]) -> bytes:
    fields = {"v": FORMAT, **fields}
    wrong = what_is_wrong(fields, forms)
    if wrong is not None:
        raise CredentialError(f"cannot sign this {kind.name}: {wrong}")
    encoded = cose.sign(signer.sign, kind, fields)
    if len(encoded) > kind.limit:
        raise CredentialError(f"this {kind.name} has {len(encoded)} bytes, over the limit of {kind.limit}")
    return encoded


def _read(encoded: bytes, kind: cose.Kind, forms: Forms, mesh: bytes, signer: bytes) -> dict[str, Any]:
    statement = cose.parse(encoded, kind)
    wrong = what_is_wrong(statement.fields, forms)
    if wrong is not None:
        raise CredentialRejected(kind.reason, wrong)
    if statement.fields["mesh"] != mesh:
        # Before the signature, which cannot verify either: so that the refusal says what is the matter.
        raise CredentialRejected(Reason.WRONG_MESH, f"a {kind.name} of another mesh")
    statement.verify(signer)
    return statement.fields


def _check_times(begins: int, ends: int, now: float) -> None:
    if now + CLOCK_TOLERANCE < begins:
        raise CredentialRejected(Reason.NOT_YET_VALID, f"valid in {begins - now:.0f} s")
    if now - CLOCK_TOLERANCE > ends:
        raise CredentialRejected(Reason.EXPIRED, f"expired {now - ends:.0f} s ago")


# -- certificates -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Certificate:
    """The CA's word that this key is a member of the mesh. Times are Unix seconds."""

    mesh: MeshId
    public_key: bytes
    name: str
    roles: tuple[str, ...]
    not_before: int
    expires: int
    serial: int

    @property
    def member(self) -> MemberId:
        return member_id(self.public_key)

    def check_times(self, now: float) -> None:
        """Raises ``CredentialRejected`` (NOT_YET_VALID, EXPIRED)."""
        _check_times(self.not_before, self.expires, now)


def issue_certificate(
    ca: SigningKey,
    *,
    public_key: bytes,
    name: str,
    roles: tuple[str, ...] = (),
    not_before: int,
    expires: int,
    serial: int,
) -> bytes:
    """A certificate for the member key ``public_key`` (Ed25519, 32 bytes), encoded.

    Raises ``CredentialError`` for a field out of its bounds.
    """
    fields = {
        "mesh": mesh_id(ca.public),
        "key": public_key,
        "name": name,
        "roles": list(roles),
        "from": not_before,
        "until": expires,
        "serial": serial,
    }
    return _make(ca, _CERTIFICATE, CERTIFICATE, fields)


def read_certificate(encoded: bytes, ca_public_key: bytes) -> Certificate:
    """Form, mesh and signature, whatever the time: for one's own certificate.

    Raises ``CredentialRejected`` (BAD_CERTIFICATE, WRONG_MESH).
    """
    fields = _read(encoded, _CERTIFICATE, CERTIFICATE, mesh_id(ca_public_key), ca_public_key)
    return Certificate(
        mesh=MeshId(fields["mesh"]),
        public_key=fields["key"],
        name=fields["name"],
        roles=tuple(fields["roles"]),
        not_before=fields["from"],
        expires=fields["until"],
        serial=fields["serial"],
    )


def verify_certificate(
    encoded: bytes, ca_public_key: bytes, now: float, revocations: Revocations | None = None
) -> Certificate:
    """The certificate, if the CA signed it and it is valid at ``now``.

    Raises ``CredentialRejected`` (BAD_CERTIFICATE, WRONG_MESH, NOT_YET_VALID, EXPIRED, REVOKED).
    """
    certificate = read_certificate(encoded, ca_public_key)
    certificate.check_times(now)
    if revocations is not None and certificate.member in revocations.members:
        raise CredentialRejected(Reason.REVOKED, certificate.name)
    return certificate


# -- node records -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A member's word that this process speaks for it, and where it is reached.

    ``incarnation`` is when the process began (Unix milliseconds), ``version`` counts its
    changes of address; ``versions`` is the protocol range it speaks; times are Unix seconds.
    """

    mesh: MeshId
    link_key: bytes
    name: str
    incarnation: int
    version: int
    addresses: tuple[Address, ...]
    issued: int
    expires: int
    versions: tuple[int, int]

    @property
    def node(self) -> NodeId:
        return node_id(self.link_key)

    def check_times(self, now: float) -> None:
        """Raises ``CredentialRejected`` (NOT_YET_VALID, EXPIRED)."""
        _check_times(self.issued, self.expires, now)


def sign_record(member_key: SigningKey, record: NodeRecord) -> bytes:
    """The record, signed and encoded. Raises ``CredentialError`` for a field out of its bounds."""
    fields = {
        "mesh": record.mesh,
        "link": record.link_key,
        "name": record.name,
        "life": record.incarnation,
        "version": record.version,
        "addresses": [list(address) for address in record.addresses],
        "from": record.issued,
        "until": record.expires,
        "speaks": list(record.versions),
    }
    return _make(member_key, _RECORD, RECORD, fields)


def verify_record(encoded: bytes, certificate: Certificate, now: float) -> NodeRecord:
    """The record, if the certificate's holder signed it and it is valid at ``now``.

    Raises ``CredentialRejected`` (BAD_RECORD, WRONG_MESH, NOT_YET_VALID, EXPIRED).
    """
    fields = _read(encoded, _RECORD, RECORD, certificate.mesh, certificate.public_key)
    _check_times(fields["from"], fields["until"], now)
    low, high = fields["speaks"]
    return NodeRecord(
        mesh=MeshId(fields["mesh"]),
        link_key=fields["link"],
        name=fields["name"],
        incarnation=fields["life"],
        version=fields["version"],
        addresses=tuple(Address._make(address) for address in fields["addresses"]),
        issued=fields["from"],
        expires=fields["until"],
        versions=(low, high),
    )


# -- revocations --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Revocations:
    """Who is cut off, and which mesh secret goes with that. The highest ``version`` wins.

    A member is revoked by its key: every certificate of that key, old or new, is refused.
    ``secret_hash`` proves that a secret is the CA's one of ``secret_epoch``, whoever passes it on.
    """

    mesh: MeshId
    version: int
    members: frozenset[MemberId]
    secret_epoch: int
    secret_hash: bytes

    def fits(self, secret: bytes) -> bool:
        """Whether this is the mesh secret that goes with the list."""
        return secret_hash(secret, self.secret_epoch) == self.secret_hash


def secret_hash(secret: bytes, epoch: int) -> bytes:
    """What the CA signs of a mesh secret. It tells nothing of one that has 32 random bytes."""
    return hashlib.sha256(b"zeromesh v1 secret" + epoch.to_bytes(8, "big") + secret).digest()


def issue_revocations(ca: SigningKey, revocations: Revocations) -> bytes:
    """The list, signed and encoded. Raises ``CredentialError`` for a field out of its bounds."""
    fields = {
        "mesh": revocations.mesh,
        "version": revocations.version,
        "members": b"".join(sorted(revocations.members)),
        "epoch": revocations.secret_epoch,
        "secret": revocations.secret_hash,
    }
    return _make(ca, _REVOCATIONS, REVOCATIONS, fields)


def verify_revocations(encoded: bytes, ca_public_key: bytes) -> Revocations:
    """The list, if the CA signed it. Raises ``CredentialRejected`` (BAD_CERTIFICATE, WRONG_MESH)."""
    fields = _read(encoded, _REVOCATIONS, REVOCATIONS, mesh_id(ca_public_key), ca_public_key)
    ids = fields["members"]
    return Revocations(
        mesh=MeshId(fields["mesh"]),
        version=fields["version"],
        members=frozenset(MemberId(ids[i : i + 16]) for i in range(0, len(ids), 16)),
        secret_epoch=fields["epoch"],
        secret_hash=fields["secret"],
    )
