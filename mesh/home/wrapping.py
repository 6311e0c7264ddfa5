"""A secret under a passphrase, as it stands in a file.

    passphrase  →  NFKC, UTF-8  →  Argon2id (RFC 9106, version 0x13)  →  32 bytes  →  AES-256-GCM

The salt is fresh whenever something is wrapped, so each key seals once and its nonce may be zero.  The parameters, the
salt and what the caller says of the secret (``about``) are authenticated with it: a file that was changed
does not open, and cannot be told from a wrong passphrase.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from mesh.core.types import RandomBytes
from mesh.errors import CredentialError

__all__ = ["COST", "LEAST_PASSPHRASE", "Cost", "WrongPassphrase", "check_passphrase", "unwrap", "wrap"]

LEAST_PASSPHRASE: Final = 8
"""Characters (NIST SP 800-63B-3 §5.1.1.2)."""

_MOST_PASSPHRASE: Final = 1024  # bytes: beyond, it is some other file
_MOST_MEMORY: Final = 2 << 20  # KiB: RFC 9106's first choice, and what a strange file may cost at most
_MOST_PASSES: Final = 64
_MOST_LANES: Final = 64
_SALT: Final = 16  # bytes (RFC 9106 §3.1 recommends as many)
_NONCE: Final = bytes(12)


class WrongPassphrase(CredentialError):
    """The passphrase does not open it."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one guess costs: passes, KiB of memory, lanes."""

    passes: int
    memory: int
    lanes: int


COST: Final = Cost(passes=3, memory=64 << 10, lanes=4)
"""RFC 9106 §4, the second recommended option, for where memory is short: the first one's 2 GiB are more than
many a small machine has, and a daemon holds them while it starts."""


def check_passphrase(passphrase: str) -> str:
    """A passphrase that something may be wrapped with from now on. Raises ``CredentialError``."""
    if len(passphrase) < LEAST_PASSPHRASE:
        raise CredentialError(f"a passphrase has at least {LEAST_PASSPHRASE} characters")
    return passphrase


def wrap(
    secret: bytes, passphrase: str, about: str, rng: RandomBytes, cost: Cost | None = None
) -> dict[str, Any]:
    """What stands in the file. ``about`` binds the secret to its place there."""
    cost = COST if cost is None else cost
    fields = {
        "kdf": "argon2id",
        "passes": cost.passes,
        "memory": cost.memory,
        "lanes": cost.lanes,
        "salt": rng(_SALT).hex(),
    }
    sealed = AESGCM(_key(passphrase, fields)).encrypt(_NONCE, secret, _context(fields, about))
    return {**fields, "sealed": sealed.hex()}


def unwrap(value: Mapping[str, Any], passphrase: str, about: str) -> bytes:
    """The secret. Raises ``WrongPassphrase``, ``ValueError`` for what ``wrap`` did not make."""
    fields = {name: value[name] for name in ("kdf", "passes", "memory", "lanes", "salt")}
    if fields["kdf"] != "argon2id":
        raise ValueError("kdf")
    for name, least, most in (
        ("passes", 1, _MOST_PASSES),
        ("lanes", 1, _MOST_LANES),
        ("memory", 8, _MOST_MEMORY),
    ):
        if type(fields[name]) is not int or not least <= fields[name] <= most:
            raise ValueError(name)
    sealed = bytes.fromhex(value["sealed"])
    try:
        return AESGCM(_key(passphrase, fields)).decrypt(_NONCE, sealed, _context(fields, about))
    except InvalidTag:
        raise WrongPassphrase("the passphrase is wrong (or the file was changed)") from None


def _key(passphrase: str, fields: Mapping[str, Any]) -> bytes:
    # Two keyboards may write one letter in two ways (NIST SP 800-63B-3 §5.1.1.2).
    text = unicodedata.normalize("NFKC", passphrase).encode(errors="surrogateescape")
    if len(text) > _MOST_PASSPHRASE:
        raise WrongPassphrase(f"a passphrase has at most {_MOST_PASSPHRASE} bytes")
    try:
        derivation = Argon2id(
            salt=bytes.fromhex(fields["salt"]),
            length=32,
            iterations=fields["passes"],
            lanes=fields["lanes"],
            memory_cost=fields["memory"],
        )
    except UnsupportedAlgorithm:
        raise CredentialError(
            "this build of `cryptography` has no Argon2id: install one of its wheels"
        ) from None
    return derivation.derive(text)


def _context(fields: Mapping[str, Any], about: str) -> bytes:
    return b"zeromesh v1 wrapped " + json.dumps([about, fields], sort_keys=True).encode()
