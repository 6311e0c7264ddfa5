"""Tokens for the web gateway: ``tokens.json`` in the home, with hashes in place of the tokens.

    mesh token create → 32 random bytes → shown once; SHA-256 of it, what it allows, when it ends → the file
    a client's token → SHA-256 → compared with all of them, each in constant time

A token has 256 bits of chance, so that a plain hash is enough (nothing about it can be guessed).  Readers notice a
changed file by its stamp: what was created or revoked counts at once, in a daemon that runs too.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mesh.errors import CredentialError
from mesh.home.store import PrivateFolder, damaged

__all__ = ["MAX_TOKENS", "Token", "TokenFile"]

MAX_TOKENS: Final = 1000
"""Compared one by one, all of them take a tenth of a millisecond each time."""

_FILE: Final = "tokens.json"
_PREFIX: Final = "zmt_"  # what a scanner for leaked secrets can look for


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token. ``expires`` is in Unix seconds, 0: never."""

    id: str
    name: str
    scopes: tuple[str, ...]
    created: int
    expires: int
    digest: str


class TokenFile:
    """The tokens of one home. ``clock`` gives Unix seconds."""

    def __init__(self, home: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._folder = PrivateFolder(home)
        self._clock = clock
        self._stamp: tuple[int, int] | None = (0, 0)
        self._tokens: tuple[Token, ...] = ()

    def all(self) -> tuple[Token, ...]:
        """The tokens that count now. Raises ``CredentialError``."""
        stamp = self._folder.stamp(_FILE)
        if stamp != self._stamp:
            self._tokens = self._read()
            self._stamp = stamp
        now = self._clock()
        if any(0 < token.expires <= now for token in self._tokens):
            return tuple(token for token in self._tokens if not 0 < token.expires <= now)
        return self._tokens

    def find(self, token: str) -> Token | None:
        """The entry of this token, if it counts."""
        digest = _digest(token)
        found = None
        for each in self.all():
            if hmac.compare_digest(each.digest, digest):
                found = each
        return found

    def create(self, name: str, scopes: Sequence[str], lifetime: float | None) -> str:
        """A new token. ``lifetime`` is in seconds, None: for ever. This is the only time that it can be seen."""
        token = _PREFIX + secrets.token_urlsafe(32)
        now = int(self._clock())
        expires = 0 if lifetime is None else now + max(1, int(lifetime))
        with self._folder.locked():
            tokens = [each for each in self._read() if not 0 < each.expires <= now]
            if len(tokens) >= MAX_TOKENS:
                raise CredentialError(f"there are {MAX_TOKENS} tokens already: revoke some", path=self._path)
            entry = Token(secrets.token_hex(4), name, tuple(scopes), now, expires, _digest(token))
            self._write([*tokens, entry])
        return token

    def revoke(self, identifier: str) -> Token:
        """Take the token with this id (or the name of just one) out. Raises ``CredentialError`` if there is none."""
        with self._folder.locked():
            tokens = self._read()
            found = [each for each in tokens if each.id == identifier] or [
                each for each in tokens if each.name == identifier
            ]
            if len(found) != 1:
                what = "several tokens have" if found else "no token has"
                raise CredentialError(f"{what} the id or name {identifier!r} (see mesh token list)")
            self._write([each for each in tokens if each is not found[0]])
        return found[0]

    # -- the file ---------------------------------------------------------------------------

    @property
    def _path(self) -> str:
        return str(self._folder.path / _FILE)

    def _read(self) -> tuple[Token, ...]:
        value = self._folder.read(_FILE)
        if value is None:
            return ()
        try:
            return tuple(_token(each) for each in value["tokens"])
        except (KeyError, TypeError, ValueError):
            raise damaged(self._folder.path / _FILE, "its list of tokens is not one") from None

    def _write(self, tokens: Sequence[Token]) -> None:
        listed = [
            {
                "id": each.id,
                "name": each.name,
                "scopes": list(each.scopes),
                "created": each.created,
                "expires": each.expires,
                "sha256": each.digest,
            }
            for each in tokens
        ]
        self._folder.write(_FILE, {"tokens": listed})


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def _token(value: dict[str, Any]) -> Token:
    token = Token(
        value["id"],
        value["name"],
        tuple(value["scopes"]),
        value["created"],
        value["expires"],
        value["sha256"],
    )
    texts = (token.id, token.name, token.digest, *token.scopes)
    if not all(type(each) is str for each in texts) or not all(
        type(each) is int for each in (token.created, token.expires)
    ):
        raise ValueError
    return token
