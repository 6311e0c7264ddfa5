"""Newcomers at the door of a real home: the whole join, from a token's text to credentials on disk."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from mesh.core.codec import decode_intro, encode_intro
from mesh.core.identity import SigningKey
from mesh.core.join import Joined, Joiner
from mesh.core.messages import JoinChallengeMessage, JoinProofMessage, RefuseMessage
from mesh.core.token import Invitation, decode_token, encode_token
from mesh.core.types import CredentialRejected
from mesh.home import Admission, Home
from mesh.home.admission import MAX_PENDING

NOW = 1_800_000_000.0


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home", clock=lambda: NOW)
    home.init("den", "desk")
    return home


@pytest.fixture
def admission(home: Home) -> Admission:
    return Admission(home, home.credentials().ca_public_key, random.Random(3).randbytes)


def joiner(invitation: Invitation, key: SigningKey, seed: int = 1) -> Joiner:
    return Joiner(invitation, key, "attic", random.Random(seed).randbytes)


def run(newcomer: Joiner, admission: Admission, route: int = 1) -> Joined:
    message: Any = newcomer.hello()
    while True:
        answer = admission.answer(route, decode_intro(encode_intro(message)), NOW)
        step = newcomer.receive(decode_intro(encode_intro(answer)), NOW)
        if isinstance(step, Joined):
            return step
        message = step


def test_from_a_token_to_credentials(home: Home, admission: Admission, tmp_path: Path) -> None:
    token = encode_token(home.invite(roles=("sensor",), endpoints=("tcp://192.0.2.7:7400",)))
    newcomer = Home(tmp_path / "newcomer", clock=lambda: NOW)
    invitation, key = decode_token(token), newcomer.new_key()
    member = newcomer.store_grant(key, run(joiner(invitation, key), admission))
    assert newcomer.credentials() == member
    assert member.mesh == invitation.mesh == home.credentials().mesh
    assert member.secret == home.credentials().secret
    assert member.certificate.roles == ("sensor",)
    assert home.find_member("attic").id == key.member_id

    other = SigningKey.from_seed(b"\x09" * 32)
    with pytest.raises(CredentialRejected, match="has been used"):
        run(joiner(invitation, other), admission)
    assert len(home.members()) == 2


def test_a_revoked_key_cannot_join_again(home: Home, admission: Admission) -> None:
    key = SigningKey.from_seed(b"\x09" * 32)
    run(joiner(home.invite(), key), admission)
    home.revoke(key.member_id)
    with pytest.raises(CredentialRejected, match="has been revoked"):
        run(joiner(home.invite(), key), admission)


def test_wrong_proofs_are_counted_on_disk(home: Home, admission: Admission) -> None:
    invitation = home.invite()
    key = SigningKey.from_seed(b"\x09" * 32)
    for attempts_left in (2, 1, 0):
        challenge = admission.answer(1, joiner(invitation, key).hello(), NOW)
        assert isinstance(challenge, JoinChallengeMessage)
        answer = admission.answer(1, JoinProofMessage(bytes(32), bytes(64)), NOW)
        assert isinstance(answer, RefuseMessage)
        assert home.invitations()[0].attempts == attempts_left
    with pytest.raises(CredentialRejected, match="too many failed attempts"):
        run(joiner(invitation, key), admission)


def test_a_proof_without_a_hello(admission: Admission) -> None:
    answer = admission.answer(1, JoinProofMessage(bytes(32), bytes(64)), NOW)
    assert isinstance(answer, RefuseMessage)
    assert answer.reason == "unexpected"


def test_newcomers_do_not_disturb_each_other(home: Home, admission: Admission) -> None:
    invitation = home.invite(uses=2)
    keys = [SigningKey.from_seed(bytes([i]) * 32) for i in (10, 11)]
    newcomers = [joiner(invitation, key, seed) for seed, key in enumerate(keys)]
    challenges = [admission.answer(route, each.hello(), NOW) for route, each in enumerate(newcomers)]
    proofs = [each.receive(message, NOW) for each, message in zip(newcomers, challenges, strict=True)]
    for route, (each, proof) in enumerate(zip(newcomers, proofs, strict=True)):
        assert isinstance(proof, JoinProofMessage)
        assert isinstance(each.receive(admission.answer(route, proof, NOW), NOW), Joined)


def test_pending_newcomers_are_bounded(home: Home, admission: Admission) -> None:
    invitation = home.invite()
    key = SigningKey.from_seed(b"\x09" * 32)
    first = joiner(invitation, key)
    proof = first.receive(admission.answer(0, first.hello(), NOW), NOW)
    assert isinstance(proof, JoinProofMessage)
    for route in range(1, MAX_PENDING + 1):
        admission.answer(route, joiner(invitation, key, route).hello(), NOW)
    assert isinstance(admission.answer(0, proof, NOW), RefuseMessage)
    run(first, admission)  # and it may begin again


def test_a_home_that_cannot_be_used_refuses(home: Home, admission: Admission) -> None:
    invitation = home.invite()
    (home.path / "invitations.json").write_text("damage")
    with pytest.raises(CredentialRejected, match="damaged") as caught:
        run(joiner(invitation, SigningKey.from_seed(b"\x09" * 32)), admission)
    assert str(home.path) not in str(caught.value)
