from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core import cose
from mesh.core.codec import encode_canonical
from mesh.core.fields import MAX_REVOKED, check_endpoint, check_name, check_role
from mesh.core.identity import (
    CLOCK_TOLERANCE,
    Certificate,
    NodeRecord,
    Revocations,
    SigningKey,
    issue_certificate,
    issue_revocations,
    read_certificate,
    secret_hash,
    sign_record,
    verify_certificate,
    verify_record,
    verify_revocations,
)
from mesh.core.types import Address, CredentialRejected, MemberId, Reason, member_id, mesh_id, node_id
from mesh.errors import CredentialError

CA = SigningKey.from_seed(bytes(32))
MEMBER = SigningKey.from_seed(b"\1" * 32)
NOW = 1_800_000_000
DAY = 86400


def certificate(ca: SigningKey = CA, **changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "public_key": MEMBER.public,
        "name": "kitchen",
        "roles": ("admin", "sensor"),
        "not_before": NOW,
        "expires": NOW + DAY,
        "serial": 7,
    }
    return issue_certificate(ca, **(fields | changes))


RECORD = NodeRecord(
    mesh=mesh_id(CA.public),
    link_key=b"\5" * 32,
    name="kitchen-1",
    incarnation=NOW * 1000,
    version=3,
    addresses=(
        Address("tcp://192.0.2.7:7400", "tcp://192.0.2.7:7401", "tcp://192.0.2.7:7402"),
        Address("tcp://[fe80::1%eth0]:7400", "tcp://[fe80::1%eth0]:7401", "tcp://[fe80::1%eth0]:7402"),
        Address("ipc:///run/mesh/i", "ipc:///run/mesh/d", "ipc:///run/mesh/b"),
    ),
    issued=NOW,
    expires=NOW + DAY,
    versions=(1, 1),
)

REVOCATIONS = Revocations(
    mesh=mesh_id(CA.public),
    version=2,
    members=frozenset({member_id(b"a" * 32), member_id(b"b" * 32)}),
    secret_epoch=2,
    secret_hash=secret_hash(b"s" * 32, 2),
)


def rejected(call: Callable[..., object], *args: Any) -> Reason:
    with pytest.raises(CredentialRejected) as caught:
        call(*args)
    return caught.value.reason


def resigned(encoded: bytes, kind: str, signer: SigningKey, **changes: Any) -> bytes:
    """The same statement with other fields, and a signature that verifies."""
    described = {
        "certificate": cose.Kind("certificate", 1 << 20, Reason.BAD_CERTIFICATE),
        "record": cose.Kind("record", 1 << 20, Reason.BAD_RECORD),
    }[kind]
    fields = cose.parse(encoded, described).fields | changes
    return cose.sign(
        signer.sign, described, {key: value for key, value in fields.items() if value is not ...}
    )


# -- certificates -------------------------------------------------------------


def test_certificate_round_trips() -> None:
    read = verify_certificate(certificate(), CA.public, NOW)
    assert read == Certificate(
        mesh=mesh_id(CA.public),
        public_key=MEMBER.public,
        name="kitchen",
        roles=("admin", "sensor"),
        not_before=NOW,
        expires=NOW + DAY,
        serial=7,
    )
    assert read.member == MEMBER.member_id == member_id(MEMBER.public)


def test_signing_key_keeps_its_seed_to_itself() -> None:
    assert MEMBER.seed.hex() not in repr(MEMBER)
    with pytest.raises(CredentialError):
        SigningKey.from_seed(b"short")


def test_certificate_times_have_the_tolerance() -> None:
    encoded = certificate()
    verify_certificate(encoded, CA.public, NOW - CLOCK_TOLERANCE)
    verify_certificate(encoded, CA.public, NOW + DAY + CLOCK_TOLERANCE)
    assert rejected(verify_certificate, encoded, CA.public, NOW - CLOCK_TOLERANCE - 1) is Reason.NOT_YET_VALID
    assert rejected(verify_certificate, encoded, CA.public, NOW + DAY + CLOCK_TOLERANCE + 1) is Reason.EXPIRED
    assert read_certificate(encoded, CA.public).serial == 7  # one's own, at any time


def test_certificate_of_another_mesh() -> None:
    other = SigningKey.from_seed(b"\2" * 32)
    assert rejected(verify_certificate, certificate(other), CA.public, NOW) is Reason.WRONG_MESH
    # … and one that names our mesh, but that another key signed
    forged = resigned(certificate(other), "certificate", other, mesh=mesh_id(CA.public))
    assert rejected(verify_certificate, forged, CA.public, NOW) is Reason.BAD_CERTIFICATE


def test_revoked_certificate() -> None:
    listed = replace(REVOCATIONS, members=frozenset({MEMBER.member_id}))
    assert rejected(verify_certificate, certificate(), CA.public, NOW, listed) is Reason.REVOKED
    verify_certificate(certificate(), CA.public, NOW, REVOCATIONS)


@given(bit=st.integers(0, len(certificate()) * 8 - 1))
def test_every_bit_flip_of_a_certificate_is_rejected(bit: int) -> None:
    flipped = bytearray(certificate())
    flipped[bit // 8] ^= 1 << bit % 8
    reason = rejected(verify_certificate, bytes(flipped), CA.public, NOW)
    assert reason in (Reason.BAD_CERTIFICATE, Reason.WRONG_MESH)


@given(noise=st.binary(max_size=400))
def test_noise_is_rejected(noise: bytes) -> None:
    assert rejected(verify_certificate, noise, CA.public, NOW) is Reason.BAD_CERTIFICATE
    assert rejected(verify_revocations, noise, CA.public) is Reason.BAD_CERTIFICATE
    own = verify_certificate(certificate(), CA.public, NOW)
    assert rejected(verify_record, noise, own, NOW) is Reason.BAD_RECORD


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "x" * 65},
        {"name": "two\nlines"},
        {"name": b"bytes"},
        {"name": ...},
        {"roles": ["r"] * 17},
        {"roles": ["twice", "twice"]},
        {"roles": ["Not A Role"]},
        {"roles": [1]},
        {"roles": "admin"},
        {"key": b"short"},
        {"from": -1},
        {"from": 1.5},
        {"from": True},
        {"from": NOW + DAY},
        {"until": 1 << 64},
        {"serial": None},
        {"v": 2},
        {"v": ...},
        {"more": 1.5},
        {"more": {"deeper": [{1: 2}]}},
        {"more": bytes(2048)},
    ],
)
def test_fields_out_of_bounds_are_rejected_even_if_signed(changes: dict[str, Any]) -> None:
    encoded = resigned(certificate(), "certificate", CA, **changes)
    assert rejected(verify_certificate, encoded, CA.public, NOW) is Reason.BAD_CERTIFICATE


def test_a_later_version_may_add_fields() -> None:
    encoded = resigned(certificate(), "certificate", CA, more=["of", {"this": b"kind"}])
    assert verify_certificate(encoded, CA.public, NOW).name == "kitchen"


@pytest.mark.parametrize("changes", [{"name": " x"}, {"roles": ("A",)}, {"serial": -1}, {"expires": NOW}])
def test_issuing_refuses_what_readers_would_refuse(changes: dict[str, Any]) -> None:
    with pytest.raises(CredentialError):
        certificate(**changes)


def test_only_the_deterministic_encoding_counts() -> None:
    kind = cose.Kind("certificate", 1280, Reason.BAD_CERTIFICATE)
    statement = cose.parse(certificate(), kind)
    fields = dict(reversed(statement.fields.items()))
    payload = cbor2.dumps(fields)
    signature = CA.sign(encode_canonical(["Signature1", kind.protected, b"zeromesh certificate v1", payload]))
    encoded = encode_canonical([kind.protected, {}, payload, signature])
    assert rejected(verify_certificate, encoded, CA.public, NOW) is Reason.BAD_CERTIFICATE


@pytest.mark.parametrize(
    "parts",
    [
        [1, 2, 3],
        [b"", {}, b"", b"s" * 64],
        [None, {1: 1}, b"", b""],
        [None, {}, "text", b"s" * 64],
        [None, {}, b"\xa0", b"s" * 63],
        [None, {}, b"\x80", b"s" * 64],
        [None, {}, b"\xff", b"s" * 64],
        {},
    ],
)
def test_other_profiles_of_cose_are_rejected(parts: Any) -> None:
    kind = cose.Kind("certificate", 1280, Reason.BAD_CERTIFICATE)
    if isinstance(parts, list):
        parts = [kind.protected if part is None else part for part in parts]
    assert rejected(verify_certificate, encode_canonical(parts), CA.public, NOW) is Reason.BAD_CERTIFICATE


def test_kinds_do_not_stand_in_for_each_other() -> None:
    record = sign_record(CA, RECORD)
    assert rejected(verify_certificate, record, CA.public, NOW) is Reason.BAD_CERTIFICATE
    assert (
        rejected(verify_certificate, issue_revocations(CA, REVOCATIONS), CA.public, NOW)
        is Reason.BAD_CERTIFICATE
    )
    # The same payload and content type, but signed under the other kind's external_aad.
    kind = cose.Kind("certificate", 1280, Reason.BAD_CERTIFICATE)
    statement = cose.parse(certificate(), kind)
    payload = encode_canonical(statement.fields)
    signature = CA.sign(encode_canonical(["Signature1", kind.protected, b"zeromesh record v1", payload]))
    crossed = encode_canonical([kind.protected, {}, payload, signature])
    assert rejected(verify_certificate, crossed, CA.public, NOW) is Reason.BAD_CERTIFICATE


# -- node records -------------------------------------------------------------


def own() -> Certificate:
    return verify_certificate(certificate(), CA.public, NOW)


def test_record_round_trips() -> None:
    encoded = sign_record(MEMBER, RECORD)
    read = verify_record(encoded, own(), NOW)
    assert read == RECORD
    assert read.node == node_id(RECORD.link_key)
    assert isinstance(read.addresses[0], Address)


def test_record_of_another_member_or_mesh() -> None:
    assert rejected(verify_record, sign_record(CA, RECORD), own(), NOW) is Reason.BAD_RECORD
    elsewhere = sign_record(MEMBER, replace(RECORD, mesh=mesh_id(MEMBER.public)))
    assert rejected(verify_record, elsewhere, own(), NOW) is Reason.WRONG_MESH


def test_record_times() -> None:
    encoded = sign_record(MEMBER, RECORD)
    assert rejected(verify_record, encoded, own(), NOW - 121) is Reason.NOT_YET_VALID
    assert rejected(verify_record, encoded, own(), NOW + DAY + 121) is Reason.EXPIRED


@given(bit=st.integers(0, len(sign_record(MEMBER, RECORD)) * 8 - 1))
def test_every_bit_flip_of_a_record_is_rejected(bit: int) -> None:
    flipped = bytearray(sign_record(MEMBER, RECORD))
    flipped[bit // 8] ^= 1 << bit % 8
    assert rejected(verify_record, bytes(flipped), own(), NOW) in (Reason.BAD_RECORD, Reason.WRONG_MESH)


@pytest.mark.parametrize(
    "changes",
    [
        {"link": b"short"},
        {"life": -1},
        {"version": "3"},
        {"addresses": [["tcp://192.0.2.7:1"] * 3] * 9},
        {"addresses": [["tcp://192.0.2.7:1"] * 2]},
        {"addresses": [["tcp://192.0.2.7:1", "tcp://192.0.2.7:1", ""]]},
        {"addresses": [["tcp://192.0.2.7:1", "tcp://192.0.2.7:1", 3]]},
        {"addresses": {}},
        {"speaks": [2, 1]},
        {"speaks": [1]},
        {"speaks": [1, "1"]},
        {"until": NOW},
    ],
)
def test_record_fields_out_of_bounds(changes: dict[str, Any]) -> None:
    encoded = resigned(sign_record(MEMBER, RECORD), "record", MEMBER, **changes)
    assert rejected(verify_record, encoded, own(), NOW) is Reason.BAD_RECORD


def test_the_largest_papers_fit_a_hello() -> None:
    largest = certificate(
        name="\N{CHESTNUT}" * 64,
        roles=tuple(f"{i:032}" for i in range(16)),
        not_before=(1 << 63),
        expires=(1 << 64) - 1,
        serial=(1 << 64) - 1,
    )
    assert len(largest) <= 1280
    # IPv6 addresses written out, with a long interface name: eight of them fit a record.
    endpoint = "tcp://[fe80:aaaa:bbbb:cccc:dddd:eeee:ffff:aaaa%enp0s31f6]:65535"
    record = sign_record(MEMBER, replace(RECORD, addresses=(Address(endpoint, endpoint, endpoint),) * 8))
    assert len(record) <= 2048
    long = "ipc:///" + "x" * 100
    with pytest.raises(CredentialError, match="bytes"):
        sign_record(MEMBER, replace(RECORD, addresses=(Address(long, long, long),) * 8))


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://192.0.2.1:1",
        "tcp://cellar.local:65535",
        "tcp://[::1]:7400",
        "tcp://[fe80::1%wlp3s0]:7400",
        "ipc:///run/user/1000/mesh/a b",
        "ipc://@abstract",
    ],
)
def test_endpoints(endpoint: str) -> None:
    assert check_endpoint(endpoint) is None


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        7,
        b"tcp://192.0.2.1:1",
        "tcp://*:7400",
        "tcp://192.0.2.1",
        "tcp://192.0.2.1:0",
        "tcp://192.0.2.1:65536",
        "tcp://192.0.2.1:*",
        "tcp://192.0.2.1:7400;tcp://192.0.2.2:1",
        "tcp://eth0;192.0.2.1:7400",
        "tcp://[zz]:1",
        "tcp://[1.2.3.4]:1",
        "tcp://192.0.2.1:٣",
        "tcp:// :1",
        "udp://192.0.2.1:1",
        "inproc://x",
        "ipc://",
        "ipc://*",
        "ipc://new\nline",
        "ipc://" + "x" * 123,
        "ipc://\udcff",
        "TCP://192.0.2.1:1",
    ],
)
def test_bad_endpoints(endpoint: Any) -> None:
    assert check_endpoint(endpoint)


def test_names_and_roles() -> None:
    assert check_name("Küche 2") is None
    assert check_name("\u202eright to left") is not None
    assert check_role("read-only_2.x") is None
    assert check_role("") is not None


# -- revocations --------------------------------------------------------------


def test_revocations_round_trip() -> None:
    encoded = issue_revocations(CA, REVOCATIONS)
    read = verify_revocations(encoded, CA.public)
    assert read == REVOCATIONS
    assert read.fits(b"s" * 32)
    assert not read.fits(b"t" * 32)
    assert not replace(read, secret_epoch=3).fits(b"s" * 32)


def test_revocations_of_another_signer() -> None:
    assert (
        rejected(verify_revocations, issue_revocations(MEMBER, REVOCATIONS), CA.public)
        is Reason.BAD_CERTIFICATE
    )
    elsewhere = issue_revocations(MEMBER, replace(REVOCATIONS, mesh=mesh_id(MEMBER.public)))
    assert rejected(verify_revocations, elsewhere, CA.public) is Reason.WRONG_MESH


def test_the_list_is_bounded() -> None:
    ids = [MemberId(hashlib.sha256(bytes([i >> 8, i & 255])).digest()[:16]) for i in range(MAX_REVOKED + 1)]
    full = issue_revocations(CA, replace(REVOCATIONS, members=frozenset(ids[:MAX_REVOKED])))
    assert len(verify_revocations(full, CA.public).members) == MAX_REVOKED
    with pytest.raises(CredentialError):
        issue_revocations(CA, replace(REVOCATIONS, members=frozenset(ids)))


@given(bit=st.integers(0, len(issue_revocations(CA, REVOCATIONS)) * 8 - 1))
def test_every_bit_flip_of_a_list_is_rejected(bit: int) -> None:
    flipped = bytearray(issue_revocations(CA, REVOCATIONS))
    flipped[bit // 8] ^= 1 << bit % 8
    assert rejected(verify_revocations, bytes(flipped), CA.public) in (
        Reason.BAD_CERTIFICATE,
        Reason.WRONG_MESH,
    )
