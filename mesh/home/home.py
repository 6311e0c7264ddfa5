"""``Home``: the folder in which a user's membership lives.

    ~/.local/share/zeromesh/       MESH_HOME, else the platform's user data folder; 0700, files 0600
        credentials.json           key, certificate, mesh secret, revocations (``credentials``)
        ca.json members.json invitations.json          on the CA's machine (``authority``)
        daemon.json daemon.lock    where the daemon of this home listens, while one runs
        lock                       held by whoever changes something

First use makes a mesh of its own, so that the programs of one user on one machine find each other with no
set-up.  ``init`` and ``join`` replace such a mesh as long as nobody else was let into it;
any other membership is given up only by moving the folder away.

Calls are synchronous and touch the disk; those that write wait for the lock for a bounded time.
Failures are ``CredentialError`` naming the file.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

import platformdirs

from mesh.core.fields import check_name
from mesh.core.identity import Certificate, SigningKey, issue_certificate, verify_revocations
from mesh.core.join import Grant, Joined, OpenInvitation, Proven
from mesh.core.renewal import is_due
from mesh.core.token import Invitation
from mesh.core.types import CredentialRejected, MemberId, RandomBytes, Reason
from mesh.errors import CredentialError
from mesh.home import daemonfile
from mesh.home.authority import (
    CERTIFICATE_LIFETIME,
    Authority,
    Member,
    first_list,
    remove_lists,
    renewed,
)
from mesh.home.cakey import CaKey, Custodian, NoCaKey
from mesh.home.credentials import Credentials, from_file, make, to_file
from mesh.home.store import PrivateFolder

__all__ = ["Home", "default_home"]

_CREDENTIALS: Final = "credentials.json"


def default_home() -> Path:
    """``MESH_HOME``, else the platform's folder for a user's data."""
    named = os.environ.get("MESH_HOME")
    return Path(named).expanduser() if named else platformdirs.user_data_path("zeromesh", appauthor=False)


def host_name() -> str:
    """This machine's name as the name of a member."""
    name = socket.gethostname().split(".")[0][:40]
    return name if check_name(name) is None else "node"


class Home:
    """One home folder. Making the object touches nothing. ``clock`` gives Unix seconds."""

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        clock: Callable[[], float] = time.time,
        rng: RandomBytes = os.urandom,
    ) -> None:
        self.path = (default_home() if path is None else Path(path).expanduser()).absolute()
        self._folder = PrivateFolder(self.path)
        self._ca = CaKey(self._folder, rng)
        self._clock = clock
        self._rng = rng

    def __repr__(self) -> str:
        return f"Home({str(self.path)!r})"

    def __fspath__(self) -> str:
        return str(self.path)

    # -- who we are ------------------------------------------------------------

    def credentials(
        self, create: bool = True, *, mesh_name: str | None = None, name: str | None = None
    ) -> Credentials:
        """This home's membership; with ``create``, made on first use as a mesh of its own.

        ``name`` and ``mesh_name`` are for that (default: this machine's name). A mesh that is there
        already must have the ``mesh_name`` if one is given.  Where the CA key is at hand, a certificate that
        is about to expire is renewed.
        """
        credentials = self._read()
        if credentials is None:
            if not create:
                raise CredentialError(
                    "not a member of a mesh: `mesh init` makes one, `mesh join TOKEN` joins one",
                    path=str(self.path),
                )
            with self._folder.locked():
                credentials = self._read()  # another process may have been quicker
                if credentials is None:
                    credentials = self._found(mesh_name, name, made_here=True)
        if mesh_name is not None and credentials.mesh_name != mesh_name:
            raise CredentialError(
                f"this home is a member of mesh {credentials.mesh_name!r}, not of {mesh_name!r}: "
                "choose another home for that one",
                path=str(self.path),
            )
        return self._renew(credentials)

    def stamp(self) -> tuple[int, int] | None:
        """Something that changes when the credentials do (a revocation, a renewal, a join): for who watches."""
        return self._folder.stamp(_CREDENTIALS)

    @property
    def custodian(self) -> Custodian:
        """Where the CA key of this home's mesh is, as far as this home knows."""
        credentials = self._read()
        return Custodian("none") if credentials is None else self._ca.look(credentials.ca_public_key)

    @property
    def is_ca(self) -> bool:
        """Whether this home holds the CA key of its mesh (it may be locked): only such a one invites and revokes."""
        return self.custodian.here

    def init(self, mesh_name: str | None = None, name: str | None = None) -> Credentials:
        """Make a new mesh with this home as its CA and first member."""
        with self._folder.locked():
            self._make_room(self._read())
            return self._found(mesh_name, name, made_here=False)

    def _read(self) -> Credentials | None:
        value = self._folder.read(_CREDENTIALS)
        return None if value is None else from_file(value, self.path / _CREDENTIALS)

    def _write(self, credentials: Credentials) -> Credentials:
        self._folder.write(_CREDENTIALS, to_file(credentials))
        return credentials

    def _found(self, mesh_name: str | None, name: str | None, *, made_here: bool) -> Credentials:
        """A new mesh. The lock is held; its CA key is written first, and counts for nothing without the rest."""
        mesh_name = host_name() if mesh_name is None else mesh_name
        name = host_name() if name is None else name
        for each in (mesh_name, name):
            wrong = check_name(each)
            if wrong is not None:
                raise CredentialError(f"{each!r} cannot be a name: {wrong}")
        now = int(self._clock())
        ca, member, secret = SigningKey(self._rng(32)), SigningKey(self._rng(32)), self._rng(32)
        certificate = issue_certificate(
            ca,
            public_key=member.public,
            name=name,
            roles=("admin",),
            not_before=now,
            expires=now + CERTIFICATE_LIFETIME,
            serial=1,
        )
        self._ca.write(ca)
        remove_lists(self._folder)
        return self._write(
            make(
                mesh_name,
                ca.public,
                member,
                certificate,
                secret,
                1,
                first_list(ca, secret),
                made_here=made_here,
            )
        )

    def _make_room(self, credentials: Credentials | None, joining: bytes = b"") -> None:
        """Refuse to give up a membership that anybody may count on."""
        if credentials is None:
            return
        holds = self._ca.look(credentials.ca_public_key).here
        if not holds and credentials.ca_public_key == joining:
            return  # joining the same mesh again: a new certificate
        if credentials.made_here and holds:
            authority = Authority(self._folder, self._ca, credentials, self._rng)
            if len(authority.members()) == 1 and not authority.invitations():
                return  # made by first use, and nobody else was let in
        raise CredentialError(
            f"this home is a member of mesh {credentials.mesh_name!r} already: "
            f"to start over, move {self.path} away or choose another home",
            path=str(self.path),
        )

    def _renew(self, credentials: Credentials) -> Credentials:
        if not is_due(credentials.certificate, self._clock()):
            return credentials
        custodian = self._ca.look(credentials.ca_public_key)
        if not custodian.here or custodian.locked:
            return credentials  # its peers, and `mesh id`, say that it has expired
        try:
            with self._authority() as authority:
                own = authority.credentials.certificate
                certificate = authority.issue(own.public_key, own.name, own.roles, self._clock())
                return self._write(renewed(authority.credentials, certificate))
        except CredentialError:
            if self._clock() >= credentials.certificate.expires:
                raise
            return credentials  # a home that cannot be written now: there are days left to do it

    # -- joining ---------------------------------------------------------------

    def new_key(self) -> SigningKey:
        """A fresh member key, to join with; ``store_grant`` keeps it."""
        return SigningKey(self._rng(32))

    def check_can_join(self, mesh_ca: bytes = b"") -> None:
        """Raise ``CredentialError`` if this home is bound to a mesh already: before a token is spent."""
        self._make_room(self._read(), mesh_ca)

    def store_grant(self, key: SigningKey, joined: Joined) -> Credentials:
        """Become the member that ``key`` was certified as."""
        grant = joined.grant
        with self._folder.locked():
            self._make_room(self._read(), grant.ca_public_key)
            credentials = self._write(
                make(
                    grant.mesh_name,
                    grant.ca_public_key,
                    key,
                    grant.certificate,
                    grant.secret,
                    grant.secret_epoch,
                    grant.revocations,
                )
            )
            self._ca.remove()
            remove_lists(self._folder)
            return credentials

    def store_revocations(self, encoded: bytes, secret: bytes) -> Credentials:
        """A revocation list with its mesh secret has come from a peer; kept if it is newer than ours.

        Raises ``CredentialRejected`` if it is not the CA's.
        """
        with self._folder.locked():
            credentials = self.credentials(create=False)
            listed = verify_revocations(encoded, credentials.ca_public_key)
            if not listed.fits(secret):
                raise CredentialRejected(Reason.BAD_CERTIFICATE, "the mesh secret is not the CA's")
            mine = credentials.revocations
            if mine is not None and listed.version <= mine.version:
                return credentials
            return self._write(
                make(
                    credentials.mesh_name,
                    credentials.ca_public_key,
                    credentials.key,
                    credentials.certificate_bytes,
                    secret,
                    listed.secret_epoch,
                    encoded,
                    made_here=credentials.made_here,
                )
            )

    def store_certificate(self, encoded: bytes) -> Credentials:
        """A newer certificate of ours; kept if it is. Raises ``CredentialRejected`` if it is not the CA's."""
        with self._folder.locked():
            credentials = self.credentials(create=False)
            after = renewed(credentials, encoded)
            if after.certificate.public_key != credentials.key.public:
                raise CredentialRejected(Reason.BAD_CERTIFICATE, "of another key")
            if after.certificate.serial <= credentials.certificate.serial:
                return credentials
            return self._write(after)

    # -- what the CA does --------------------------------------------------------

    @contextmanager
    def _authority(self) -> Iterator[Authority]:
        with self._folder.locked():
            credentials = self._read()
            if credentials is None:
                credentials = self.credentials(create=False)  # which says what to do
            custodian = self._ca.look(credentials.ca_public_key)
            if not custodian.here:
                raise NoCaKey(credentials.mesh_name, custodian, str(self.path))
            yield Authority(self._folder, self._ca, credentials, self._rng)

    def members(self) -> tuple[Member, ...]:
        """Everyone whom the CA certified; on other machines, this one alone."""
        credentials = self.credentials(create=False)
        if not self._ca.look(credentials.ca_public_key).here:
            own = credentials.certificate
            listed = credentials.revocations
            revoked = listed is not None and own.member in listed.members
            return (
                Member(own.member, own.public_key, own.name, own.roles, own.expires, own.serial, revoked),
            )
        with self._authority() as authority:
            return authority.members()

    def find_member(self, text: str) -> Member:
        """The member that a person means: an id, the beginning of one, or a name.

        Raises ``CredentialError`` if there is none, or more than one.
        """
        members = self.members()
        found = [each for each in members if each.id.hex() == text.lower()]
        found = found or [each for each in members if each.name == text]
        if not found and len(text) >= 4:
            found = [each for each in members if each.id.hex().startswith(text.lower())]
        if len(found) > 1:
            # Of several with one name, the one that still counts is meant, if it is one.
            standing = [each for each in found if not each.revoked]
            found = standing if len(standing) == 1 else found
        if len(found) > 1:
            ids = ", ".join(each.id.hex() for each in found)
            raise CredentialError(f"{text!r} may be any of {ids}: say which by its id")
        if not found:
            raise CredentialError(f"there is no member {text!r} (`mesh members` lists them)")
        return found[0]

    def issue(self, public_key: bytes, name: str, roles: tuple[str, ...] = ()) -> bytes:
        """A certificate for this member key (Ed25519, 32 bytes), for a year."""
        with self._authority() as authority:
            return authority.issue(public_key, name, roles, self._clock())

    def certify_again(self, certificate: Certificate) -> bytes | None:
        """A new certificate for a member whose one ends soon; None if it is no member any more."""
        with self._authority() as authority:
            return authority.certify_again(certificate, self._clock())

    def revoke(self, member: MemberId) -> Credentials:
        """Cut a member off: new revocation list, new mesh secret. Idempotent."""
        with self._authority() as authority:
            before = authority.credentials
            after = authority.revoke(member, self._clock())
            return before if after is before else self._write(after)

    def invite(
        self,
        *,
        uses: int = 1,
        lifetime: float = 3600.0,
        roles: tuple[str, ...] = (),
        endpoints: tuple[str, ...] = (),
    ) -> Invitation:
        """A new invitation, for ``encode_token``. ``lifetime`` in seconds, ``endpoints`` of intro sockets."""
        with self._authority() as authority:
            return authority.invite(uses, lifetime, roles, endpoints, self._clock())

    def invitations(self) -> tuple[OpenInvitation, ...]:
        """The invitations that are remembered, also those that no longer hold."""
        with self._authority() as authority:
            return authority.invitations()

    def withdraw(self, invitation: bytes) -> bool:
        """Take back the invitation with this id. False if there is none."""
        with self._authority() as authority:
            return authority.withdraw(invitation)

    def find_invitation(self, invitation: bytes) -> OpenInvitation | None:
        """The invitation with this id, as it stands now."""
        with self._authority() as authority:
            return authority.find_invitation(invitation)

    def failed_attempt(self, invitation: bytes) -> None:
        """Somebody who named this invitation did not know its secret: one attempt less."""
        with self._authority() as authority:
            authority.failed_attempt(invitation)

    def redeem(self, proven: Proven) -> Grant:
        """Spend a use of the invitation and certify the newcomer."""
        with self._authority() as authority:
            return authority.redeem(proven, self._clock())

    # -- the daemon of this home -----------------------------------------------------

    def claim_daemon(self) -> AbstractContextManager[None]:
        """Be the daemon of this home for the length of the block, and forget its endpoints after it.

        Raises ``CredentialError`` if one runs already.
        """
        return daemonfile.claim(self._folder)

    def announce_daemon(self, endpoints: Iterable[str]) -> None:
        """The daemon's intro endpoints, for the other nodes of this home. Called inside ``claim_daemon``."""
        daemonfile.announce(self._folder, endpoints)

    def daemon_endpoints(self) -> tuple[str, ...]:
        """Where the daemon of this home is introduced to; nothing if none runs."""
        return daemonfile.endpoints(self._folder)
