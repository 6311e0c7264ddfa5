"""Papers shown and judged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest

from mesh.core import cose, handshake
from mesh.core.handshake import Introducer
from mesh.core.identity import NodeRecord, Revocations, SigningKey, issue_certificate, mesh_id, sign_record
from mesh.core.types import CredentialRejected, MeshId, Reason

NOW = 1_800_000_000
CA = SigningKey(bytes(31) + b"\1")
MEMBER = SigningKey(bytes(31) + b"\2")
CERTIFICATE = issue_certificate(
    CA, public_key=MEMBER.public, name="a", not_before=NOW - 10, expires=NOW + 1000, serial=1
)
RECORD = NodeRecord(
    mesh=MeshId(mesh_id(CA.public)),
    link_key=Random(1).randbytes(32),
    name="a",
    incarnation=1,
    version=1,
    addresses=(),
    issued=NOW,
    expires=NOW + 5000,
    versions=(1, 1),
)
ENCODED = sign_record(MEMBER, RECORD)


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The kinds of statement whose signatures were looked at."""
    kinds: list[str] = []
    verify = cose.Statement.verify

    def spy(statement: cose.Statement, public_key: bytes) -> None:
        kinds.append(statement.kind.name)
        verify(statement, public_key)

    monkeypatch.setattr(cose.Statement, "verify", spy)
    return kinds


def introducer() -> Introducer:
    return Introducer(CA.public, CERTIFICATE, ENCODED, None)


def test_signatures_are_looked_at_once(verified: list[str]) -> None:
    judge = introducer().judge
    first = judge(CERTIFICATE, ENCODED, 1, NOW)
    assert first.record == RECORD
    assert judge(CERTIFICATE, ENCODED, 1, NOW) == first
    assert verified == ["certificate", "record"]
    newer = replace(RECORD, version=2)
    assert judge(CERTIFICATE, sign_record(MEMBER, newer), 1, NOW).record == newer
    assert verified == ["certificate", "record"] * 2


def test_what_did_not_verify_is_not_remembered(verified: list[str]) -> None:
    forged = ENCODED[:-1] + bytes([ENCODED[-1] ^ 1])
    judge = introducer().judge
    for _ in range(2):
        with pytest.raises(CredentialRejected) as caught:
            judge(CERTIFICATE, forged, 1, NOW)
        assert caught.value.reason is Reason.BAD_RECORD
    assert verified == ["certificate", "record"] * 2


@pytest.mark.parametrize(
    ("now", "reason"),
    [(NOW - 1e6, Reason.NOT_YET_VALID), (NOW + 2000, Reason.EXPIRED), (NOW + 1e6, Reason.EXPIRED)],
)
def test_the_time_is_looked_at_again(now: float, reason: Reason) -> None:
    judge = introducer().judge
    judge(CERTIFICATE, ENCODED, 1, NOW)
    with pytest.raises(CredentialRejected) as caught:
        judge(CERTIFICATE, ENCODED, 1, now)
    assert caught.value.reason is reason


def test_who_was_revoked_meanwhile_is_refused() -> None:
    judge = introducer()
    judge.judge(CERTIFICATE, ENCODED, 1, NOW)
    judge.revocations = Revocations(RECORD.mesh, 1, frozenset([MEMBER.member_id]), 1, bytes(32))
    with pytest.raises(CredentialRejected) as caught:
        judge.judge(CERTIFICATE, ENCODED, 1, NOW)
    assert caught.value.reason is Reason.REVOKED


def test_no_more_is_remembered_than_a_bound(verified: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "_REMEMBERED", 2)
    judge = introducer().judge
    papers = [sign_record(MEMBER, replace(RECORD, version=version)) for version in (1, 2, 3)]
    for record in papers:
        judge(CERTIFICATE, record, 1, NOW)
    verified.clear()
    judge(CERTIFICATE, papers[2], 1, NOW)
    judge(CERTIFICATE, papers[1], 1, NOW)
    assert verified == []
    judge(CERTIFICATE, papers[0], 1, NOW)
    assert verified == ["certificate", "record"]
