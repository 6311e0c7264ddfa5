"""Secrets under a passphrase: RFC 9106's own vector, what opens and what does not, and what it costs at most."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.errors import CredentialError
from mesh.home import wrapping
from mesh.home.wrapping import COST, Cost, WrongPassphrase, check_passphrase, unwrap, wrap

CHEAP = Cost(1, 8, 1)
SECRET = hashlib.sha256(b"a secret").digest()


def rng(count: int) -> bytes:
    return bytes(range(count))


def wrapped(passphrase: str = "correct horse", about: str = "x") -> dict[str, Any]:
    return wrap(SECRET, passphrase, about, rng, CHEAP)


def test_argon2id_is_that_of_the_rfc() -> None:
    """RFC 9106 §5.3."""
    derivation = Argon2id(
        salt=b"\x02" * 16,
        length=32,
        iterations=3,
        lanes=4,
        memory_cost=32,
        ad=b"\x04" * 12,
        secret=b"\x03" * 8,
    )
    assert derivation.derive(b"\x01" * 32).hex() == (
        "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659"
    )


def test_the_form_of_what_is_written() -> None:
    """Computed here from its description, with the parameters of RFC 9106 §4 that are in use."""
    assert Cost(3, 1 << 16, 4) == COST
    value = json.loads(json.dumps(wrap(SECRET, "correct horse", "x", rng)))
    key = Argon2id(salt=rng(16), length=32, iterations=3, lanes=4, memory_cost=1 << 16).derive(
        b"correct horse"
    )
    fields = {"kdf": "argon2id", "lanes": 4, "memory": 65536, "passes": 3, "salt": rng(16).hex()}
    context = b"zeromesh v1 wrapped " + json.dumps(["x", fields], sort_keys=True).encode()
    assert AESGCM(key).decrypt(bytes(12), bytes.fromhex(value.pop("sealed")), context) == SECRET
    assert value == fields
    assert SECRET.hex() not in json.dumps(value)


def test_who_knows_the_passphrase_opens_it() -> None:
    assert unwrap(wrapped(), "correct horse", "x") == SECRET
    with pytest.raises(WrongPassphrase, match="the passphrase is wrong") as caught:
        unwrap(wrapped(), "correct horsf", "x")
    assert "horsf" not in str(caught.value)
    with pytest.raises(WrongPassphrase):
        unwrap(wrapped(), "correct horse", "y")  # what stands in another place


def test_one_letter_is_one_letter_however_it_was_typed() -> None:
    assert unwrap(wrapped("caf\u00e9 au lait"), "cafe\u0301 au lait", "x") == SECRET


@pytest.mark.parametrize("name", ["passes", "memory", "lanes", "salt", "sealed", "kdf"])
def test_what_was_changed_does_not_open(name: str) -> None:
    value = wrapped()
    value[name] = {"kdf": "scrypt", "passes": 2, "memory": 16, "lanes": 2}.get(name) or (
        f"{int(value[name][:2], 16) ^ 1:02x}" + value[name][2:]
    )
    with pytest.raises((WrongPassphrase, ValueError)):
        unwrap(value, "correct horse", "x")


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("memory", 1 << 30), ("memory", 1), ("passes", 10**9), ("passes", True), ("lanes", 0), ("lanes", "4")],
)
def test_a_strange_file_costs_nothing(name: str, wrong: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrapping, "Argon2id", None)  # it does not come to that
    with pytest.raises(ValueError, match=name):
        unwrap({**wrapped_without_argon(), name: wrong}, "correct horse", "x")


def wrapped_without_argon() -> dict[str, Any]:
    return {"kdf": "argon2id", "passes": 1, "memory": 8, "lanes": 1, "salt": "00" * 16, "sealed": "00" * 48}


def test_short_ones_are_refused() -> None:
    assert check_passphrase("12345678") == "12345678"
    with pytest.raises(CredentialError, match="at least 8 characters") as caught:
        check_passphrase("hunter2")
    assert "hunter2" not in str(caught.value)


_LETTERS = (
    "aZ9 \u00e9\u0301\u6f22\U0001f511\0\udce9"  # the last one: what is no text in an argument of a program
)


@settings(max_examples=30)
@given(st.text(_LETTERS, max_size=60), st.binary(max_size=200), st.text(_LETTERS, max_size=20))
def test_any_passphrase_and_any_secret(passphrase: str, secret: bytes, about: str) -> None:
    value = wrap(secret, passphrase, about, rng, CHEAP)
    assert unwrap(json.loads(json.dumps(value)), passphrase, about) == secret
