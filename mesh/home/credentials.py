"""What a member holds, and its one file: ``credentials.json``.

Everything that must be true together (key, certificate, mesh secret, revocations) is in one file, so that
one rename changes it.  Reading checks it as strictly as a peer would, but for the time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mesh.core.fields import check_name
from mesh.core.identity import Certificate, Revocations, SigningKey, read_certificate, verify_revocations
from mesh.core.types import CredentialRejected, MeshId, mesh_id
from mesh.errors import CredentialError
from mesh.home.store import damaged

__all__ = ["Credentials", "from_file", "to_file"]

_FIELDS: Final = ("ca_public_key", "seed", "certificate", "secret", "revocations")


@dataclass(frozen=True, slots=True)
class Credentials:
    """This member of this mesh. What is secret doesn't show in ``repr``.

    ``revocations`` is None as long as none has arrived; ``made_here`` tells that the mesh was made by first
    use and not by ``init`` or ``join``.
    """

    mesh_name: str
    ca_public_key: bytes
    key: SigningKey
    certificate_bytes: bytes = field(repr=False)
    certificate: Certificate
    secret: bytes = field(repr=False)
    secret_epoch: int
    revocations_bytes: bytes = field(repr=False)
    revocations: Revocations | None
    made_here: bool = False

    @property
    def mesh(self) -> MeshId:
        """The mesh's id."""
        return mesh_id(self.ca_public_key)


def make(
    mesh_name: str,
    ca_public_key: bytes,
    key: SigningKey,
    certificate: bytes,
    secret: bytes,
    secret_epoch: int,
    revocations: bytes,
    *,
    made_here: bool = False,
) -> Credentials:
    """Credentials from their parts.

    Raises ``CredentialRejected`` for what the CA did not sign, ``CredentialError`` for another key's certificate.
    """
    credentials = Credentials(
        mesh_name=mesh_name,
        ca_public_key=ca_public_key,
        key=key,
        certificate_bytes=certificate,
        certificate=read_certificate(certificate, ca_public_key),
        secret=secret,
        secret_epoch=secret_epoch,
        revocations_bytes=revocations,
        revocations=verify_revocations(revocations, ca_public_key) if revocations else None,
        made_here=made_here,
    )
    if credentials.certificate.public_key != key.public:
        raise CredentialError("the certificate is for another key")
    return credentials


def to_file(credentials: Credentials) -> dict[str, Any]:
    return {
        "mesh_name": credentials.mesh_name,
        "made_here": credentials.made_here,
        "ca_public_key": credentials.ca_public_key.hex(),
        "seed": credentials.key.seed.hex(),
        "certificate": credentials.certificate_bytes.hex(),
        "secret": credentials.secret.hex(),
        "secret_epoch": credentials.secret_epoch,
        "revocations": credentials.revocations_bytes.hex(),
    }


def from_file(value: dict[str, Any], path: Path) -> Credentials:
    """The credentials in the file's object. Raises ``CredentialError`` naming the file."""
    try:
        raw = {name: bytes.fromhex(value[name]) for name in _FIELDS}
        mesh_name, epoch = value["mesh_name"], value["secret_epoch"]
    except (KeyError, TypeError, ValueError):
        raise damaged(path, "a field is missing or not what it must be") from None
    if check_name(mesh_name) or type(epoch) is not int or epoch < 0 or len(raw["secret"]) != 32:
        raise damaged(path, "a field is not what it must be")
    try:
        return make(
            mesh_name,
            raw["ca_public_key"],
            SigningKey.from_seed(raw["seed"]),
            raw["certificate"],
            raw["secret"],
            epoch,
            raw["revocations"],
            made_here=value.get("made_here") is True,
        )
    except (CredentialRejected, CredentialError) as error:
        raise damaged(path, str(error)) from None
