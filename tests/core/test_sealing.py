"""Sealed values: opened by members, by nobody else, and byte for byte as the specification says."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.sealing import SealedValue, Vault
from mesh.errors import CredentialError

SECRET = bytes(range(32))


def rng(size: int) -> bytes:
    return b"\x07" * size


def vault(secret: bytes = SECRET, epoch: int = 3) -> Vault:
    return Vault(secret, epoch, rng)


@given(
    st.text(max_size=20), st.binary(max_size=50) | st.integers(-1000, 1000) | st.text(max_size=20) | st.none()
)
def test_what_is_sealed_opens(topic: str, value: Any) -> None:
    assert vault().open(vault().seal(topic, value)) == SealedValue(topic, value)


def hkdf(secret: bytes, info: bytes) -> bytes:
    """RFC 5869, for one block."""
    extracted = hmac.digest(b"zeromesh v1", secret, hashlib.sha256)
    return hmac.digest(extracted, info + b"\x01", hashlib.sha256)


def test_the_format_is_the_specified_one() -> None:
    sealing = vault()
    sealing.seal("first", 0)
    sealed = sealing.seal("a/b", 21.5)
    header = b"ZS\x01\x00" + (3).to_bytes(4, "big") + b"\x07" * 16 + (1).to_bytes(8, "big")
    assert sealed[:32] == header
    key = hkdf(SECRET, b"sealed value" + b"\x07" * 16)
    plain = AESGCM(key).decrypt(bytes(4) + header[-8:], sealed[32:], header)
    assert cbor2.loads(plain) == ["a/b", 1, cbor2.dumps(21.5)]
    # The same bytes as on the day when the format was fixed.
    assert (
        hashlib.sha256(sealed).hexdigest()
        == "c1d1fd14e633a1acc79e2300ffe1ad5c6df747a71071ca39e6eb2e1f83b89282"
    )


@given(st.binary(max_size=100))
def test_other_bytes_do_not_open(data: bytes) -> None:
    with pytest.raises(CredentialError):
        vault().open(data)


@given(st.integers(0, 60), st.integers(1, 255))
def test_changed_bytes_do_not_open(place: int, change: int) -> None:
    sealed = bytearray(vault().seal("a", b"value of some length"))
    sealed[place] ^= change
    with pytest.raises(CredentialError):
        vault().open(bytes(sealed))


def test_another_mesh_does_not_open_it() -> None:
    with pytest.raises(CredentialError, match="another mesh"):
        vault(bytes(32)).open(vault().seal("a", 1))


def test_after_a_removal() -> None:
    staying, removed = vault(), vault()
    before = staying.seal("a", "before")
    staying.rekey(b"\x55" * 32, 4)
    assert staying.open(before).value == "before"
    after = staying.seal("a", "after")
    assert staying.open(after).value == "after"
    with pytest.raises(CredentialError, match="mesh secret 4, and only 3 is known"):
        removed.open(after)


def test_old_secrets_are_forgotten() -> None:
    it = vault(epoch=0)
    first = it.seal("a", 1)
    for epoch in range(1, 9):
        it.rekey(bytes([epoch]) * 32, epoch)
    with pytest.raises(CredentialError, match="only 1, 2, 3"):
        it.open(first)


def test_no_nonce_twice() -> None:
    it = vault()
    assert len({it.seal("a", 1)[24:32] for _ in range(1000)}) == 1000
