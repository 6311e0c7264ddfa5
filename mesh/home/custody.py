"""Who has the CA's key: under a passphrase or not, and from one machine to another.

    wrap, unwrap      the key in its file, under a passphrase or in clear
    unlock, lock      the wrapped key in this process's memory
    hand_over         → the key, the CA's books and the newest revocation list, sealed in a file for one member; from
                      then on this home says that the other one has it
    take_over         ← that file, in the home of the member that it is for

A file can be taken over once: it begins a *term*, and a home that has known that term or a later one refuses it.
While the file is under way nobody is the CA.  If it never arrives, the home that made it may take it
back, which begins a later term.  Each term begins with a revocation list of its own, of the same members, which the
mesh passes on: so the home that made the file hears that it arrived.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mesh.core.identity import SigningKey, verify_revocations
from mesh.core.types import CredentialRejected
from mesh.errors import CredentialError
from mesh.home.authority import first_list, read_lists, remove_lists, write_lists
from mesh.home.cakey import Custodian, NoCaKey, numbers_from
from mesh.home.credentials import Credentials, make
from mesh.home.wrapping import WrongPassphrase, check_passphrase, unwrap, wrap

if TYPE_CHECKING:
    from mesh.home.home import Home

__all__ = ["Custody"]

_WHAT: Final = "zeromesh CA, handed over"
_MAX_BYTES: Final = 16 << 20  # a thousand members and their certificates are some 300 KiB


class Custody:
    """The CA key of a home. What writes waits for the home's lock; every failure is a ``CredentialError``."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._folder = home._folder
        self._ca = home._ca

    def _held(self) -> tuple[Credentials, Custodian]:
        """Raises ``NoCaKey``."""
        credentials = self._home.credentials(create=False)
        custodian = self._ca.look(credentials.ca_public_key)
        if not custodian.here:
            raise NoCaKey(credentials.mesh_name, custodian, str(self._home.path))
        return credentials, custodian

    def unlock(self, passphrase: str) -> None:
        """Have the key in memory from now on. Raises ``WrongPassphrase``. Takes the better part of a second."""
        credentials, _ = self._held()
        self._ca.unlock(credentials.ca_public_key, passphrase)
        self._home.credentials(create=False)  # which renews our own certificate, if it is due

    def lock(self) -> None:
        """Forget the key, if it is wrapped."""
        self._ca.lock()

    def wrap(self, passphrase: str) -> None:
        """Put the key under a passphrase; the one that is there already must be taken off first."""
        check_passphrase(passphrase)
        with self._folder.locked():
            credentials, custodian = self._held()
            if custodian.state == "wrapped":
                raise CredentialError("the CA key is wrapped already: `mesh ca unwrap` first")
            self._ca.write(self._key(credentials), custodian.term, passphrase)

    def unwrap(self, passphrase: str) -> None:
        """Put the key in clear into its file again. Raises ``WrongPassphrase``."""
        with self._folder.locked():
            credentials, custodian = self._held()
            if custodian.state == "clear":
                raise CredentialError("the CA key is not wrapped")
            self._ca.unlock(credentials.ca_public_key, passphrase)
            self._ca.write(self._key(credentials), custodian.term)
            self._ca.lock()

    def _key(self, credentials: Credentials) -> SigningKey:
        key = self._ca.get(credentials.ca_public_key)
        assert key is not None, "the key is here"
        return key

    # -- from one home to another ----------------------------------------------------

    def hand_over(self, file: Path, member: str, passphrase: str) -> tuple[str, str]:
        """Seal the CA into ``file`` for a member (its id or name), and hold it no longer. Who that is: id, name.

        A wrapped key's passphrase is the file's as well. The file must not exist; it is read back before the key goes.
        """
        check_passphrase(passphrase)
        with self._folder.locked():
            credentials, custodian = self._held()
            to = self._home.find_member(member)
            if to.id == credentials.certificate.member:
                raise CredentialError(
                    f"{to.name} is this machine: name the member that shall hold the CA key"
                )
            if to.revoked:
                raise CredentialError(f"{to.name} has been revoked")
            self._ca.unlock(credentials.ca_public_key, passphrase)
            key = self._key(credentials)
            # Written down first: should this end in the middle, what is issued here has other numbers than
            # what the file's holder issues, and another file than this has yet another term.
            self._ca.begin_term(credentials.ca_public_key, custodian.term + 1)
            term = custodian.term + 2
            header = {
                "what": _WHAT,
                "mesh": credentials.mesh.hex(),
                "mesh_name": credentials.mesh_name,
                "from": credentials.certificate.member.hex(),
                "to": to.id.hex(),
                "to_name": to.name,
                "term": term,
            }
            body = {
                "seed": key.seed.hex(),
                "secret": credentials.secret.hex(),
                "secret_epoch": credentials.secret_epoch,
                "revocations": credentials.revocations_bytes.hex(),
                "lists": read_lists(self._folder),
            }
            sealed = wrap(json.dumps(body).encode(), passphrase, _about(header), self._home._rng)
            _write_new(file, json.dumps({**header, **sealed}, indent=1).encode() + b"\n")
            _open(_read(file), passphrase)
            self._ca.give_away(credentials.ca_public_key, term, (to.id.hex(), to.name), self._home._clock())
            remove_lists(self._folder)
            return to.id.hex(), to.name

    def take_over(self, file: Path, passphrase: str, *, take_back: bool = False) -> str:
        """Hold the CA that ``file`` has for this home's member, wrapped with the file's passphrase; who had it.

        With ``take_back`` it is the home that made the file, and the file was never taken over.
        """
        value = _read(file)
        with self._folder.locked():
            credentials = self._home.credentials(create=False)
            if value["mesh"] != credentials.mesh.hex():
                raise CredentialError(
                    f"it is the CA of mesh {value['mesh_name']!r}, and this home is a member of "
                    f"{credentials.mesh_name!r}: join that mesh first",
                    path=str(file),
                )
            term = self._judge(value, credentials, take_back, file)
            body = _open(value, passphrase)
            try:
                key = SigningKey.from_seed(bytes.fromhex(body["seed"]))
                newest = self._newest(credentials, body, key, term)
                if key.public != credentials.ca_public_key:
                    raise ValueError("seed")
                lists = body["lists"]
            except (KeyError, TypeError, ValueError, CredentialError, CredentialRejected):
                raise _no_file(file) from None
            self._home._write(newest)
            write_lists(self._folder, lists)
            self._ca.write(key, term, passphrase)  # which is what makes this home the CA: the last step
            return str(value["from"])

    def _judge(self, value: dict[str, Any], credentials: Credentials, take_back: bool, file: Path) -> int:
        """The term that begins. Raises ``CredentialError``."""
        custodian = self._ca.look(credentials.ca_public_key)
        mine = credentials.certificate.member.hex()
        if custodian.here:
            raise CredentialError("this home holds the CA key already")
        if take_back:
            if value["from"] != mine or custodian.state != "moved" or value["term"] != custodian.term:
                raise CredentialError(
                    "only the last file that this home made can be taken back", path=str(file)
                )
            listed = credentials.revocations
            if listed is not None and listed.version > numbers_from(value["term"]):
                raise CredentialError(f"{value['to_name']} has taken it over already", path=str(file))
            return int(value["term"]) + 1
        if value["to"] != mine:
            raise CredentialError(
                f"it is for {value['to_name']} ({value['to']}), and this home is {credentials.certificate.name} ({mine})",
                path=str(file),
            )
        if value["term"] <= custodian.term:
            raise CredentialError(
                "it has been used: the CA key was here since, and is elsewhere now", path=str(file)
            )
        return int(value["term"])

    @staticmethod
    def _newest(credentials: Credentials, body: dict[str, Any], key: SigningKey, term: int) -> Credentials:
        """Ours, with the first revocation list of the new term: what the file says, or what we have if that is newer."""
        listed = verify_revocations(bytes.fromhex(body["revocations"]), credentials.ca_public_key)
        secret, epoch = bytes.fromhex(body["secret"]), int(body["secret_epoch"])
        mine = credentials.revocations
        if mine is not None and mine.version >= listed.version:
            listed, secret, epoch = mine, credentials.secret, credentials.secret_epoch
        if not listed.fits(secret) or listed.secret_epoch != epoch:
            raise ValueError("secret")
        version = max(listed.version, numbers_from(term)) + 1
        return make(
            credentials.mesh_name,
            credentials.ca_public_key,
            credentials.key,
            credentials.certificate_bytes,
            secret,
            epoch,
            first_list(key, secret, epoch, version, listed.members),
            made_here=credentials.made_here,
        )


# -- the file -----------------------------------------------------------------------


def _about(header: dict[str, Any]) -> str:
    return json.dumps(header, sort_keys=True)


_HEADER: Final = {
    "what": str,
    "mesh": str,
    "mesh_name": str,
    "from": str,
    "to": str,
    "to_name": str,
    "term": int,
}


def _no_file(file: Path) -> CredentialError:
    return CredentialError("this is no file of `mesh ca export`, or it is damaged", path=str(file))


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            value = json.loads(stream.read(_MAX_BYTES))
    except OSError as error:
        raise CredentialError(f"cannot be read: {error.strerror or error}", path=str(file)) from None
    except (ValueError, RecursionError):
        raise _no_file(file) from None
    if not isinstance(value, dict) or value.get("what") != _WHAT:
        raise _no_file(file)
    if any(type(value.get(name)) is not kind for name, kind in _HEADER.items()):
        raise _no_file(file)
    return {**value, "file": str(file)}


def _open(value: dict[str, Any], passphrase: str) -> dict[str, Any]:
    header = {name: value[name] for name in _HEADER}
    try:
        body = json.loads(unwrap(value, passphrase, _about(header)))
    except WrongPassphrase as error:
        raise WrongPassphrase(error.reason, path=value["file"]) from None
    except (KeyError, TypeError, ValueError):
        raise _no_file(Path(value["file"])) from None
    if not isinstance(body, dict):
        raise _no_file(Path(value["file"]))
    return body


def _write_new(file: Path, data: bytes) -> None:
    """All of it, on the disk, in a file that was not there."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(descriptor)
        except OSError:
            file.unlink(missing_ok=True)
            raise
        folder = os.open(file.absolute().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError:
        raise CredentialError("the file exists already: choose another name", path=str(file)) from None
    except OSError as error:
        raise CredentialError(f"cannot be written: {error.strerror or error}", path=str(file)) from None
