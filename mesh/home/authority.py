"""What only the machine with the CA key does: members, invitations, revocations.

    members.json      every key it certified     issue, revoke
    invitations.json  what may still be redeemed invite, a wrong proof, a redemption

Each call takes the folder's lock, reads, changes, writes.  A file that was left by another mesh (the
home has joined a new one since) counts as not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from mesh.core.fields import MAX_REVOKED, MAX_ROLES, check_name, check_role
from mesh.core.identity import (
    Certificate,
    Revocations,
    SigningKey,
    issue_certificate,
    issue_revocations,
    read_certificate,
    secret_hash,
)
from mesh.core.join import MAX_ATTEMPTS, Grant, OpenInvitation, Proven, invitation_id
from mesh.core.token import Invitation, encode_token
from mesh.core.types import MemberId, MeshId, RandomBytes, member_id, mesh_id
from mesh.errors import CredentialError
from mesh.home.cakey import CaKey, numbers_from
from mesh.home.credentials import Credentials, make
from mesh.home.store import PrivateFolder, damaged

__all__ = ["CERTIFICATE_LIFETIME", "Authority", "Member"]

CERTIFICATE_LIFETIME: Final = 365 * 86400
"""Seconds. Long enough that a machine in a cupboard is not forgotten, and an end to what was never revoked."""

MAX_LIFETIME: Final = 30 * 86400  # of an invitation: longer, and it is a password on a slip of paper
MAX_USES: Final = 1000
MAX_INVITATIONS: Final = (
    1024  # remembered: members with a rule for it may ask for some, and each newcomer reads them all
)
_REMEMBERED: Final = 86400  # an expired invitation still says that it expired

_MEMBERS: Final = "members.json"
_INVITATIONS: Final = "invitations.json"


@dataclass(frozen=True, slots=True)
class Member:
    """One who was certified. Times are Unix seconds."""

    id: MemberId
    public_key: bytes
    name: str
    roles: tuple[str, ...]
    expires: int
    serial: int
    revoked: bool = False


def remove_lists(folder: PrivateFolder) -> None:
    """What an earlier mesh left, or one whose CA is elsewhere now. The lock must be held."""
    folder.remove(_MEMBERS)
    folder.remove(_INVITATIONS)


def read_lists(folder: PrivateFolder) -> dict[str, Any]:
    """Both lists as they stand in their files, to be taken to another home."""
    return {name: folder.read(name) for name in (_MEMBERS, _INVITATIONS)}


def write_lists(folder: PrivateFolder, lists: Mapping[str, Any]) -> None:
    """What ``read_lists`` gave. The lock must be held."""
    for name in (_MEMBERS, _INVITATIONS):
        value = lists[name]
        if value is None:
            folder.remove(name)
        else:
            folder.write(name, {key: each for key, each in value.items() if key != "format"})


class Authority:
    """The CA of the mesh that ``credentials`` belong to, in the same folder.

    ``credentials`` follow what is done here: a revocation makes new ones, and the caller writes them.
    What needs the key itself raises ``CaLocked`` before it changes anything.
    """

    def __init__(self, folder: PrivateFolder, ca: CaKey, credentials: Credentials, rng: RandomBytes) -> None:
        self._folder = folder
        self._ca = ca
        self._term = ca.look(credentials.ca_public_key).term
        self._rng = rng
        self.credentials = credentials

    def _key(self) -> SigningKey:
        key = self._ca.get(self.credentials.ca_public_key)
        assert key is not None, "the key is here"
        return key

    # -- members ---------------------------------------------------------------

    def members(self) -> tuple[Member, ...]:
        """Everyone who was certified, the first one first."""
        members, _ = self._read_members()
        return tuple(members.values())

    def issue(self, public_key: bytes, name: str, roles: tuple[str, ...], now: float) -> bytes:
        """A certificate for this key, for a year. Raises ``CredentialError`` if the key was revoked."""
        with self._folder.locked():
            key = self._key()
            members, serial = self._read_members()
            member = member_id(public_key)
            if self._revoked(member) or (member in members and members[member].revoked):
                raise CredentialError("this key has been revoked: join again with a new one")
            expires = int(now) + CERTIFICATE_LIFETIME
            encoded = issue_certificate(
                key,
                public_key=public_key,
                name=name,
                roles=roles,
                not_before=int(now),
                expires=expires,
                serial=serial,
            )
            members[member] = Member(member, public_key, name, roles, expires, serial)
            self._write_members(members, serial + 1)
            return encoded

    def certify_again(self, certificate: Certificate, now: float) -> bytes | None:
        """A new certificate for the holder of one that ends soon; None if it may not have one.

        Name and roles are those that stand in our own list, not those that it shows.
        """
        with self._folder.locked():
            members, _ = self._read_members()
            known = members.get(certificate.member)
            if known is None or known.revoked:
                return None
            return self.issue(known.public_key, known.name, known.roles, now)

    def revoke(self, member: MemberId, now: float) -> Credentials:
        """Cut a member off: a new list and a new mesh secret, in credentials that the caller writes."""
        with self._folder.locked():
            if member == self.credentials.key.member_id:
                raise CredentialError("this machine's own membership cannot be revoked: it holds the CA key")
            if self._revoked(member):
                return self.credentials
            self._key()  # before anything is written
            members, serial = self._read_members()
            if member in members:
                members[member] = replace(members[member], revoked=True)
                self._write_members(members, serial)
            before = self.credentials.revocations
            listed = set(before.members) if before is not None else set()
            if len(listed) >= MAX_REVOKED:
                # Whose certificate has expired needs no place in the list. It is not renewed either:
                # ``members.json`` remembers.
                listed -= {
                    each.id for each in members.values() if each.revoked and each.expires < now - 86400
                }
            if len(listed) >= MAX_REVOKED:
                raise CredentialError(
                    f"{MAX_REVOKED} members are revoked already: start a new mesh with `mesh init`"
                )
            secret = self._rng(32)
            epoch = self.credentials.secret_epoch + 1
            version = max(0 if before is None else before.version, numbers_from(self._term)) + 1
            self.credentials = self._with_list(version, frozenset(listed | {member}), secret, epoch)
            return self.credentials

    def _revoked(self, member: MemberId) -> bool:
        listed = self.credentials.revocations
        return listed is not None and member in listed.members

    def _with_list(
        self, version: int, members: frozenset[MemberId], secret: bytes, epoch: int
    ) -> Credentials:
        encoded = first_list(self._key(), secret, epoch, version, members)
        old = self.credentials
        return make(
            old.mesh_name,
            old.ca_public_key,
            old.key,
            old.certificate_bytes,
            secret,
            epoch,
            encoded,
            made_here=old.made_here,
        )

    def _read_members(self) -> tuple[dict[MemberId, Member], int]:
        """Members by id, and the next serial number."""
        path = self._folder.path / _MEMBERS
        value = self._folder.read(_MEMBERS)
        own = self.credentials.certificate
        if value is None or value.get("mesh") != self.credentials.mesh.hex():
            first = Member(own.member, own.public_key, own.name, own.roles, own.expires, own.serial)
            return {first.id: first}, self._serial(own.serial + 1)
        try:
            members = [self._member(each) for each in value["members"]]
            return {member.id: member for member in members}, self._serial(int(value["next_serial"]))
        except (KeyError, TypeError, ValueError, OverflowError):
            raise damaged(path, "a field is missing or not what it must be") from None

    def _serial(self, following: int) -> int:
        return max(following, numbers_from(self._term) + 1)

    def _member(self, value: Any) -> Member:
        public_key = bytes.fromhex(value["public_key"])
        member = member_id(public_key)
        if check_name(value["name"]) or any(map(check_role, value["roles"])):
            raise ValueError("name or role")
        return Member(
            id=member,
            public_key=public_key,
            name=value["name"],
            roles=tuple(value["roles"]),
            expires=int(value["expires"]),
            serial=int(value["serial"]),
            revoked=value["revoked"] is True or self._revoked(member),
        )

    def _write_members(self, members: dict[MemberId, Member], next_serial: int) -> None:
        self._folder.write(
            _MEMBERS,
            {
                "mesh": self.credentials.mesh.hex(),
                "next_serial": next_serial,
                "members": [
                    {
                        "id": each.id.hex(),
                        "public_key": each.public_key.hex(),
                        "name": each.name,
                        "roles": list(each.roles),
                        "expires": each.expires,
                        "serial": each.serial,
                        "revoked": each.revoked,
                    }
                    for each in members.values()
                ],
            },
        )

    # -- invitations -----------------------------------------------------------

    def invite(
        self, uses: int, lifetime: float, roles: tuple[str, ...], endpoints: tuple[str, ...], now: float
    ) -> Invitation:
        """A new invitation. Raises ``CredentialError`` for what it cannot be."""
        if not 1 <= uses <= MAX_USES:
            raise CredentialError(f"an invitation has 1 to {MAX_USES} uses")
        if not 0 < lifetime <= MAX_LIFETIME:
            raise CredentialError(f"an invitation lives for at most {MAX_LIFETIME // 86400} days")
        wrong = next(filter(None, map(check_role, roles)), None)
        if wrong or len(roles) > MAX_ROLES or len(set(roles)) != len(roles):
            raise CredentialError(wrong or f"at most {MAX_ROLES} roles, each once")
        invitation = Invitation(self._rng(16), self.credentials.mesh, endpoints)
        encode_token(invitation)  # which says what is wrong with an endpoint, before anything is written
        stored = OpenInvitation(
            id=invitation_id(invitation.secret),
            secret=invitation.secret,
            expires=now + lifetime,
            uses=uses,
            roles=roles,
        )
        with self._folder.locked():
            kept = [each for each in self._read_invitations() if each.expires > now - _REMEMBERED]
            if len(kept) >= MAX_INVITATIONS:
                raise CredentialError(
                    f"{len(kept)} invitations are remembered already: wait until some have expired"
                )
            self._write_invitations([*kept, stored])
        return invitation

    def invitations(self) -> tuple[OpenInvitation, ...]:
        """All invitations that are remembered, also those that are used up or have expired."""
        return tuple(self._read_invitations())

    def find_invitation(self, named: bytes) -> OpenInvitation | None:
        return next((each for each in self._read_invitations() if each.id == named), None)

    def withdraw(self, named: bytes) -> bool:
        """Take an invitation back. False if there is no such one."""
        with self._folder.locked():
            invitations = self._read_invitations()
            kept = [each for each in invitations if each.id != named]
            if len(kept) != len(invitations):
                self._write_invitations(kept)
            return len(kept) != len(invitations)

    def failed_attempt(self, named: bytes) -> None:
        """Somebody who named this invitation did not know its secret."""
        with self._folder.locked():
            self._write_invitations(
                replace(each, attempts=max(0, each.attempts - 1)) if each.id == named else each
                for each in self._read_invitations()
            )

    def redeem(self, proven: Proven, now: float) -> Grant:
        """Spend a use and certify the newcomer.

        Raises ``CredentialError`` if somebody else was quicker, or the key was revoked.
        """
        with self._folder.locked():
            self._key()  # before a use is spent
            invitations = self._read_invitations()
            found = next((each for each in invitations if each.id == proven.invitation.id), None)
            if found is None or found.expires < now or found.attempts <= 0:
                raise CredentialError("the invitation is no longer good: ask for a new one")
            if proven.public_key not in found.used_by:
                if found.uses <= 0:
                    raise CredentialError("the invitation has been used: ask for a new one")
                # Written before the certificate is made: a crash between the two costs the newcomer
                # another try with the same key, and never gives anybody a second use.
                spent = replace(found, uses=found.uses - 1, used_by=found.used_by | {proven.public_key})
                self._write_invitations(spent if each is found else each for each in invitations)
            certificate = self.issue(proven.public_key, proven.name, found.roles, now)
            mine = self.credentials
            return Grant(
                mesh_name=mine.mesh_name,
                ca_public_key=mine.ca_public_key,
                certificate=certificate,
                secret=mine.secret,
                secret_epoch=mine.secret_epoch,
                revocations=mine.revocations_bytes,
            )

    def _read_invitations(self) -> list[OpenInvitation]:
        value = self._folder.read(_INVITATIONS)
        if value is None or value.get("mesh") != self.credentials.mesh.hex():
            return []
        try:
            return [_invitation(each) for each in value["invitations"]]
        except (KeyError, TypeError, ValueError, OverflowError):
            path: Path = self._folder.path / _INVITATIONS
            raise damaged(path, "a field is missing or not what it must be") from None

    def _write_invitations(self, invitations: Iterable[OpenInvitation]) -> None:
        self._folder.write(
            _INVITATIONS,
            {
                "mesh": self.credentials.mesh.hex(),
                "invitations": [
                    {
                        "id": each.id.hex(),
                        "secret": each.secret.hex(),
                        "expires": each.expires,
                        "uses": each.uses,
                        "attempts": each.attempts,
                        "roles": list(each.roles),
                        "used_by": sorted(key.hex() for key in each.used_by),
                    }
                    for each in invitations
                ],
            },
        )


def first_list(
    ca: SigningKey,
    secret: bytes,
    epoch: int = 1,
    version: int = 1,
    members: frozenset[MemberId] = frozenset(),
) -> bytes:
    """A signed revocation list that goes with this mesh secret; by default a new mesh's, of nobody."""
    mesh: MeshId = mesh_id(ca.public)
    return issue_revocations(ca, Revocations(mesh, version, members, epoch, secret_hash(secret, epoch)))


def renewed(credentials: Credentials, certificate: bytes) -> Credentials:
    """The same credentials with a newer certificate of their key."""
    return replace(
        credentials,
        certificate_bytes=certificate,
        certificate=read_certificate(certificate, credentials.ca_public_key),
    )


def _invitation(value: Any) -> OpenInvitation:
    secret = bytes.fromhex(value["secret"])
    if len(secret) != 16:
        raise ValueError("secret")
    return OpenInvitation(
        id=invitation_id(secret),
        secret=secret,
        expires=float(value["expires"]),
        uses=int(value["uses"]),
        attempts=min(MAX_ATTEMPTS, int(value["attempts"])),
        roles=tuple(map(str, value["roles"])),
        used_by=frozenset(map(bytes.fromhex, value["used_by"])),
    )
