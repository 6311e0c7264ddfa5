"""The CA's key in its file, in one of three states.

    clear    {"seed": …}                    as ``init`` writes it
    wrapped  {"wrapped": {…}}               under a passphrase (``wrapping``); locked until this process is given it
    moved    {"moved": {to, name, at}}      given to another member's home (``custody``)

With each stands the mesh that it is of (``public_key``) and its *term*: each change of hands begins
another, and numbers of certificates and revocation lists are made of it (``numbers_from``).  A key that was
unlocked is kept in memory, and counts for as long as the file stays what it was.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple

from mesh.core.identity import SigningKey
from mesh.core.types import RandomBytes, mesh_id
from mesh.errors import CredentialError
from mesh.home.store import PrivateFolder, damaged
from mesh.home.wrapping import unwrap, wrap

__all__ = ["CaKey", "CaLocked", "Custodian", "NoCaKey", "numbers_from"]

_FILE: Final = "ca.json"
_TERM_BITS: Final = 32

State = Literal["none", "clear", "wrapped", "moved"]


class CaLocked(CredentialError):
    """The CA key is wrapped, and this process was not given its passphrase."""

    def __init__(self) -> None:
        super().__init__(
            "the CA key is wrapped, and this process has not been given its passphrase "
            "(`mesh ca unlock` gives it to the daemon)"
        )


class NoCaKey(CredentialError):
    """Not this home holds the CA key."""

    def __init__(self, mesh_name: str, custodian: Custodian, path: str) -> None:
        where = "do this on the machine that made the mesh"
        if custodian.state == "moved":
            day = datetime.fromtimestamp(custodian.moved_at, UTC).strftime("%Y-%m-%d")
            where = f"it was given to {custodian.moved_to[1]} on {day}: do this there"
        super().__init__(f"the CA key of mesh {mesh_name!r} is not in this home: {where}", path=path)


class Custodian(NamedTuple):
    """Who has the key, as this home knows. ``locked``: it is here and cannot be used.

    ``moved_to`` is a member's id and name, ``moved_at`` Unix seconds.
    """

    state: State
    locked: bool = False
    term: int = 0
    moved_to: tuple[str, str] = ("", "")
    moved_at: int = 0

    @property
    def here(self) -> bool:
        return self.state in ("clear", "wrapped")


def numbers_from(term: int) -> int:
    """The last number before those of this term, for certificates and for revocation lists.

    So two holders of the key, which there should never be, make no two different things with one number, and the later
    holder's are the higher ones.
    """
    return term << _TERM_BITS


class CaKey:
    """The key of one home. Whoever writes holds the folder's lock."""

    def __init__(self, folder: PrivateFolder, rng: RandomBytes) -> None:
        self._folder = folder
        self._rng = rng
        self._unlocked: tuple[dict[str, Any], SigningKey] | None = None  # what the file said, and the key

    def _read(self, ca_public_key: bytes) -> dict[str, Any] | None:
        """The file, if it is of this mesh."""
        value = self._folder.read(_FILE)
        if value is None:
            return None
        try:
            public = bytes.fromhex(value["public_key"]) if "public_key" in value else self._seed(value).public
            known = sum(kind in value for kind in ("seed", "wrapped", "moved"))
            if known != 1 or type(value.get("term", 0)) is not int:
                raise ValueError
        except (KeyError, TypeError, ValueError, CredentialError):
            raise self._damaged() from None
        return value if public == ca_public_key else None

    @staticmethod
    def _seed(value: dict[str, Any]) -> SigningKey:
        return SigningKey.from_seed(bytes.fromhex(value["seed"]))

    def _damaged(self) -> CredentialError:
        return damaged(self._folder.path / _FILE, "the seed is missing or not what it must be")

    def look(self, ca_public_key: bytes) -> Custodian:
        """Where the key of this mesh is."""
        value = self._read(ca_public_key)
        if value is None:
            return Custodian("none")
        term = value.get("term", 0)
        if "seed" in value:
            return Custodian("clear", term=term)
        if "wrapped" in value:
            unlocked = self._unlocked is not None and self._unlocked[0] == value["wrapped"]
            return Custodian("wrapped", not unlocked, term)
        try:
            moved = value["moved"]
            to = (str(moved["to"]), str(moved["name"]))
            return Custodian("moved", term=term, moved_to=to, moved_at=int(moved["at"]))
        except (KeyError, TypeError, ValueError):
            raise self._damaged() from None

    def get(self, ca_public_key: bytes) -> SigningKey | None:
        """The key; None if it is not here. Raises ``CaLocked``."""
        value = self._read(ca_public_key)
        if value is None or "moved" in value:
            return None
        if "wrapped" in value:
            if self._unlocked is None or self._unlocked[0] != value["wrapped"]:
                raise CaLocked
            return self._unlocked[1]
        return self._check(ca_public_key, value)

    def _check(self, ca_public_key: bytes, value: dict[str, Any]) -> SigningKey:
        try:
            key = self._seed(value)
        except (KeyError, TypeError, ValueError, CredentialError):
            raise self._damaged() from None
        if key.public != ca_public_key:
            raise self._damaged()
        return key

    def unlock(self, ca_public_key: bytes, passphrase: str) -> SigningKey | None:
        """The key, from now on for ``get`` too; None if it is not here.

        Raises ``WrongPassphrase``. Takes the better part of a second of a core, and 64 MiB.
        """
        value = self._read(ca_public_key)
        if value is None or "wrapped" not in value:
            return self.get(ca_public_key)
        try:
            seed = unwrap(value["wrapped"], passphrase, _about(ca_public_key))
        except (KeyError, TypeError, ValueError):
            raise self._damaged() from None
        key = self._check(ca_public_key, {"seed": seed.hex()})
        self._unlocked = (value["wrapped"], key)
        return key

    def lock(self) -> None:
        """Forget what was unlocked."""
        self._unlocked = None

    # -- writing -----------------------------------------------------------------

    def write(self, key: SigningKey, term: int = 0, passphrase: str | None = None) -> None:
        """Keep the key here, wrapped if there is a passphrase."""
        if passphrase is None:
            kept: dict[str, Any] = {"seed": key.seed.hex()}
        else:
            kept = {"wrapped": wrap(key.seed, passphrase, _about(key.public), self._rng)}
            self._unlocked = (kept["wrapped"], key)
        self._write(key.public, term, kept)

    def begin_term(self, ca_public_key: bytes, term: int) -> None:
        """Go on in this term."""
        value = self._read(ca_public_key)
        assert value is not None, "the key is here"
        kept: dict[str, Any] = {kind: value[kind] for kind in ("seed", "wrapped") if kind in value}
        self._write(ca_public_key, term, kept)

    def give_away(self, ca_public_key: bytes, term: int, to: tuple[str, str], now: float) -> None:
        """From now on a member's home has the key, in this term. Nothing of it stays here."""
        self._unlocked = None
        self._write(ca_public_key, term, {"moved": {"to": to[0], "name": to[1], "at": int(now)}})

    def _write(self, ca_public_key: bytes, term: int, kept: dict[str, Any]) -> None:
        self._folder.write(_FILE, {"public_key": ca_public_key.hex(), "term": term, **kept})

    def remove(self) -> None:
        """This home is no CA any more."""
        self._unlocked = None
        self._folder.remove(_FILE)


def _about(ca_public_key: bytes) -> str:
    return f"CA key of mesh {mesh_id(ca_public_key).hex()}"
