from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.token import MAX_HINTS, Invitation, _to_base32, decode_token, encode_token
from mesh.core.types import MeshId
from mesh.errors import CredentialError

INVITATION = Invitation(
    secret=bytes(range(16)),
    mesh=MeshId(bytes(range(16, 32))),
    endpoints=("tcp://192.0.2.7:7400", "tcp://[2001:db8::7]:7400", "tcp://cellar.local:65535"),
)

hosts = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda ip: f"[{ip}]").filter(lambda host: "%" not in host),
    st.from_regex(r"[a-z][a-z0-9-]{0,60}", fullmatch=True),
)
endpoints = st.builds(lambda host, port: f"tcp://{host}:{port}", hosts, st.integers(1, 65535))
sixteen = st.binary(min_size=16, max_size=16)


def token_of(body: bytes) -> str:
    return _to_base32(body + hashlib.sha256(body).digest()[:4])


@given(secret=sixteen, mesh=sixteen, hints=st.lists(endpoints, max_size=MAX_HINTS).map(tuple))
def test_round_trip(secret: bytes, mesh: bytes, hints: tuple[str, ...]) -> None:
    invitation = Invitation(secret, MeshId(mesh), hints)
    assert decode_token(encode_token(invitation)) == invitation


def test_form() -> None:
    token = encode_token(INVITATION)
    assert set(token) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ-")
    assert all(len(group) == 6 for group in token.split("-")[:-1])
    assert len(encode_token(Invitation(bytes(16), MeshId(bytes(16)), INVITATION.endpoints[:1]))) < 90
    assert bytes(range(16)).hex() not in repr(INVITATION)
    assert repr(INVITATION.secret) not in repr(INVITATION)


def test_reading_is_forgiving() -> None:
    token = encode_token(INVITATION)
    for written in (
        token.lower(),
        token.replace("-", ""),
        "  " + token.replace("-", " - ") + "\n",
        token.replace("0", "O").replace("1", "l"),
        token.replace("0", "o").replace("1", "I"),
    ):
        assert decode_token(written) == INVITATION


@given(data=st.data())
def test_every_mistyped_character_is_noticed(data: st.DataObject) -> None:
    token = encode_token(INVITATION).replace("-", "")
    position = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(
        st.sampled_from("0123456789ABCDEFGHJKMNPQRSTVWXYZU!é").filter(token[position].__ne__)
    )
    with pytest.raises(CredentialError, match=r"mistyped|checksum"):
        decode_token(token[:position] + character + token[position + 1 :])


@given(text=st.text(max_size=120))
def test_anything_else_is_one_clear_error(text: str) -> None:
    with pytest.raises(CredentialError):
        decode_token(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        (" - ", "empty"),
        ("ABCDEF", "left out"),
        (encode_token(INVITATION)[:-7], "mistyped|left out"),
        (encode_token(INVITATION).replace("-", "")[:-1], "left out"),
        ("U" * 60, "'U' .character 1"),
        ("A" * 5000, "too long"),
        (token_of(b"\2" + bytes(33)), "version 2"),
        (token_of(b"\1" + bytes(32) + b"\1"), "endpoints"),
        (token_of(b"\1" + bytes(32) + b"\5" + bytes(7) * 5), "endpoints"),
        (token_of(b"\1" + bytes(32) + b"\1\4\1\2\3\4\0\0"), "endpoints"),
        (token_of(b"\1" + bytes(32) + b"\0trailing"), "endpoints"),
        (token_of(b"\1" + bytes(32) + b"\1\1\3a b\1\1"), "endpoints"),
    ],
)
def test_each_mistake_has_its_words(text: str, words: str) -> None:
    with pytest.raises(CredentialError, match=words):
        decode_token(text)


@pytest.mark.parametrize(
    "hints",
    [
        ("ipc:///run/mesh/i",),
        ("tcp://[fe80::1%eth0]:7400",),
        ("tcp://*:7400",),
        ("tcp://192.0.2.7:7400",) * 5,
    ],
)
def test_hints_that_mean_nothing_elsewhere(hints: tuple[str, ...]) -> None:
    with pytest.raises(CredentialError):
        encode_token(Invitation(bytes(16), MeshId(bytes(16)), hints))


def test_sizes() -> None:
    with pytest.raises(CredentialError):
        encode_token(Invitation(bytes(15), MeshId(bytes(16))))
