"""Frames, statements, tokens and the join against vectors that were made without this code."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from mesh.core.envelope import OpeningKey, SealingKey
from mesh.core.identity import (
    NodeRecord,
    Revocations,
    SigningKey,
    issue_certificate,
    issue_revocations,
    sign_record,
    verify_certificate,
    verify_record,
    verify_revocations,
)
from mesh.core.join import Grant, Inviter, Joined, Joiner, OpenInvitation, Proven
from mesh.core.keyring import Keyring
from mesh.core.messages import JoinProofMessage, KeyAnnouncement
from mesh.core.token import Invitation, decode_token, encode_token
from mesh.core.types import Address, MemberId, MeshId, NodeId

FOLDER = Path(__file__).parent.parent / "vectors"
FRAMES: list[dict[str, Any]] = json.loads((FOLDER / "envelope.json").read_text(encoding="utf-8"))["frames"]
IDENTITY: dict[str, Any] = json.loads((FOLDER / "identity.json").read_text(encoding="utf-8"))

CA = SigningKey.from_seed(bytes.fromhex(IDENTITY["ca_seed"]))
MEMBER = SigningKey.from_seed(bytes.fromhex(IDENTITY["member_seed"]))
NOW = 1_800_000_100


def test_the_script_makes_the_files() -> None:
    for name, text in runpy.run_path(str(FOLDER / "make_envelope.py"))["texts"]().items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, name


def unhex(vector: dict[str, Any], *names: str) -> list[bytes]:
    return [bytes.fromhex(vector[name]) for name in names]


@pytest.mark.parametrize("vector", FRAMES)
def test_vectors_of_sealing(vector: dict[str, Any]) -> None:
    root, key_id, tag, plaintext = unhex(vector, "root", "key_id", "tag", "plaintext")
    # One frame an epoch leads to the epoch quickly; in the last one the counter is set.
    key = SealingKey(
        key_id, root, 0.0, owner=bytes.fromhex(vector["owner"]), cipher=vector["cipher"], max_frames=1
    )
    for _ in range(vector["epoch"] + 1):
        key.seal(1, tag, b"", 0.0)
    assert key.announcement().chain.hex() == vector["chain"]
    key._max_frames = 1 << 63
    key._counter = vector["counter"]
    assert key.seal(vector["type"], tag, plaintext, 0.0).hex() == vector["frame"]


@pytest.mark.parametrize("vector", FRAMES)
def test_vectors_of_opening(vector: dict[str, Any]) -> None:
    root, chain, key_id, tag, plaintext, frame = unhex(
        vector, "root", "chain", "key_id", "tag", "plaintext", "frame"
    )
    for epoch, known in ((0, root), (vector["epoch"], chain)):
        keyring = Keyring()
        announcement = KeyAnnouncement(key_id, "", vector["cipher"], epoch, known, 0)
        owner = NodeId(bytes.fromhex(vector["owner"]))
        keyring.add(owner, OpeningKey.from_announcement(announcement, owner))
        assert keyring.open(tag, frame) == (owner, vector["type"], plaintext)


def test_vectors_of_certificates() -> None:
    vector = IDENTITY["certificate"]
    encoded, public_key = unhex(vector, "encoded", "public_key")
    assert CA.public.hex() == vector["ca_public_key"]
    assert MEMBER.public == public_key
    certificate = verify_certificate(encoded, CA.public, NOW)
    assert certificate.member.hex() == vector["member"]
    assert certificate.mesh.hex() == vector["mesh"]
    assert list(certificate.roles) == vector["roles"]
    made = issue_certificate(
        CA,
        public_key=public_key,
        name=vector["name"],
        roles=tuple(vector["roles"]),
        not_before=vector["not_before"],
        expires=vector["expires"],
        serial=vector["serial"],
    )
    assert made == encoded


def test_vectors_of_records() -> None:
    vector = IDENTITY["record"]
    certificate = verify_certificate(bytes.fromhex(IDENTITY["certificate"]["encoded"]), CA.public, NOW)
    low, high = vector["versions"]
    record = NodeRecord(
        mesh=certificate.mesh,
        link_key=bytes.fromhex(vector["link_key"]),
        name=vector["name"],
        incarnation=vector["incarnation"],
        version=vector["version"],
        addresses=tuple(map(Address._make, vector["addresses"])),
        issued=vector["issued"],
        expires=vector["expires"],
        versions=(low, high),
    )
    assert record.node.hex() == vector["node"]
    assert sign_record(MEMBER, record).hex() == vector["encoded"]
    assert verify_record(bytes.fromhex(vector["encoded"]), certificate, NOW) == record


def test_vectors_of_revocations() -> None:
    vector = IDENTITY["revocations"]
    encoded, secret, secret_hash = unhex(vector, "encoded", "secret", "secret_hash")
    revocations = Revocations(
        mesh=MeshId(bytes.fromhex(IDENTITY["certificate"]["mesh"])),
        version=vector["version"],
        members=frozenset(MemberId(bytes.fromhex(member)) for member in vector["members"]),
        secret_epoch=vector["secret_epoch"],
        secret_hash=secret_hash,
    )
    assert verify_revocations(encoded, CA.public) == revocations
    assert issue_revocations(CA, revocations) == encoded
    assert revocations.fits(secret)


def test_vectors_of_tokens() -> None:
    vector = IDENTITY["token"]
    secret, mesh = unhex(vector, "secret", "mesh")
    invitation = Invitation(secret, MeshId(mesh), tuple(vector["endpoints"]))
    assert encode_token(invitation) == vector["token"]
    assert decode_token(vector["token"]) == invitation


def test_vectors_of_the_join() -> None:
    vector = IDENTITY["join"]
    secret, invitation, nonce, other_nonce = unhex(
        vector, "secret", "invitation", "newcomer_nonce", "inviter_nonce"
    )
    stored = OpenInvitation(invitation, secret, NOW + 1.0, uses=1)
    token = Invitation(secret, MeshId(bytes.fromhex(IDENTITY["token"]["mesh"])))
    newcomer = Joiner(token, MEMBER, vector["name"], lambda _: nonce)
    inviter = Inviter(CA.public, lambda _: other_nonce)

    hello = newcomer.hello()
    assert hello == (invitation, nonce, MEMBER.public, vector["name"])
    challenge = inviter.hello(hello, stored, NOW)
    assert challenge == (other_nonce, CA.public, bytes.fromhex(vector["inviter_proof"]))
    proof = newcomer.receive(challenge, NOW)
    assert isinstance(proof, JoinProofMessage)
    assert proof == tuple(unhex(vector, "newcomer_proof", "newcomer_signature"))
    assert isinstance(inviter.proof(proof, stored, NOW), Proven)
    listed = IDENTITY["revocations"]
    granted = Grant(
        mesh_name=vector["mesh_name"],
        ca_public_key=CA.public,
        certificate=bytes.fromhex(IDENTITY["certificate"]["encoded"]),
        secret=bytes.fromhex(listed["secret"]),
        secret_epoch=listed["secret_epoch"],
        revocations=bytes.fromhex(listed["encoded"]),
    )
    message = inviter.grant(granted)
    assert message.sealed.hex() == vector["sealed"]
    joined = newcomer.receive(message, NOW)
    assert isinstance(joined, Joined)
    assert joined.grant == granted
