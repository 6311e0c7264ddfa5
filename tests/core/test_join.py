"""The join handshake: two state machines against each other, and everything between them that may go wrong."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.codec import decode_intro, encode_intro
from mesh.core.identity import (
    Revocations,
    SigningKey,
    issue_certificate,
    issue_revocations,
    secret_hash,
    verify_certificate,
)
from mesh.core.join import (
    MAX_ATTEMPTS,
    Grant,
    Inviter,
    Joined,
    Joiner,
    OpenInvitation,
    Proven,
    invitation_id,
)
from mesh.core.messages import (
    JoinChallengeMessage,
    JoinGrantMessage,
    JoinHelloMessage,
    JoinProofMessage,
    RefuseMessage,
)
from mesh.core.token import Invitation
from mesh.core.types import CredentialRejected, MemberId, Reason, RemoteProtocolError, mesh_id
from mesh.errors import CredentialError

CA = SigningKey.from_seed(b"\1" * 32)
KEY = SigningKey.from_seed(b"\2" * 32)
SECRET = b"token secret 16B"
MESH_SECRET = b"m" * 32
NOW = 1_800_000_000.0
TOKEN = Invitation(SECRET, mesh_id(CA.public))

Between = Callable[[Any], Any]


@dataclass
class Desk:
    """The inviter's caller: its store of one invitation, and the grants it makes."""

    invitation: OpenInvitation | None
    ca: SigningKey = CA
    revoked: int = 1
    grant: Callable[[Grant], Grant] = lambda grant: grant
    seed: int = 5

    def __post_init__(self) -> None:
        self.inviter = self.another()

    def another(self) -> Inviter:
        self.seed += 1
        self.inviter = Inviter(self.ca.public, random.Random(self.seed).randbytes)
        return self.inviter

    def answer(self, message: Any, now: float = NOW) -> Any:
        if isinstance(message, JoinHelloMessage):
            return self.inviter.hello(message, self.find(message.invitation), now)
        answer = self.inviter.proof(message, self.find(self.inviter.invitation), now)
        if isinstance(answer, Proven):
            return self.inviter.grant(self.grant(self.redeem(answer)))
        if self.inviter.failed:
            assert self.invitation is not None
            self.invitation = replace(self.invitation, attempts=self.invitation.attempts - 1)
        return answer

    def find(self, named: bytes | None) -> OpenInvitation | None:
        return self.invitation if self.invitation is not None and self.invitation.id == named else None

    def redeem(self, proven: Proven) -> Grant:
        assert self.invitation is not None
        if proven.public_key not in self.invitation.used_by:
            self.invitation = replace(
                self.invitation,
                uses=self.invitation.uses - 1,
                used_by=self.invitation.used_by | {proven.public_key},
            )
        listed = Revocations(
            mesh=mesh_id(self.ca.public),
            version=1,
            members=frozenset(MemberId(i.to_bytes(16, "big")) for i in range(self.revoked)),
            secret_epoch=4,
            secret_hash=secret_hash(MESH_SECRET, 4),
        )
        certificate = issue_certificate(
            self.ca,
            public_key=proven.public_key,
            name=proven.name,
            roles=self.invitation.roles,
            not_before=int(NOW),
            expires=int(NOW) + 3600,
            serial=2,
        )
        return Grant("home", self.ca.public, certificate, MESH_SECRET, 4, issue_revocations(self.ca, listed))


def opened(**changes: Any) -> OpenInvitation:
    return replace(
        OpenInvitation(invitation_id(SECRET), SECRET, NOW + 60, uses=1, roles=("sensor",)), **changes
    )


def joiner(token: Invitation = TOKEN, key: SigningKey = KEY, seed: int = 1) -> Joiner:
    return Joiner(token, key, "attic", random.Random(seed).randbytes)


def untouched(message: Any) -> Any:
    return message


def run(
    newcomer: Joiner,
    desk: Desk,
    *,
    out: Between = untouched,
    back: Between = untouched,
    now: float = NOW,
) -> Joined:
    """Both sides to the end, each message through the codec and through whoever sits between."""
    message: Any = newcomer.hello()
    while True:
        answer = desk.answer(out(decode_intro(encode_intro(message))), now)
        frame = encode_intro(answer)
        assert len(frame) <= 4096
        step = newcomer.receive(back(decode_intro(frame)), now)
        if isinstance(step, Joined):
            return step
        message = step


def fails(reason: Reason, words: str, *args: Any, **options: Any) -> None:
    with pytest.raises(CredentialRejected, match=words) as caught:
        run(*args, **options)
    assert caught.value.reason is reason


# -- the way it should go -------------------------------------------------------


def test_a_newcomer_joins() -> None:
    desk = Desk(opened())
    joined = run(joiner(), desk)
    assert joined.certificate.name == "attic"
    assert joined.certificate.roles == ("sensor",)
    assert joined.certificate.public_key == KEY.public
    assert joined.grant.secret == MESH_SECRET
    assert joined.grant.mesh_name == "home"
    assert joined.revocations is not None
    assert joined.revocations.secret_epoch == 4
    assert verify_certificate(joined.grant.certificate, CA.public, NOW) == joined.certificate
    assert desk.invitation is not None
    assert desk.invitation.uses == 0
    assert MESH_SECRET.hex() not in repr(joined)
    assert repr(MESH_SECRET) not in repr(joined.grant)


def test_a_long_revocation_list_follows_later() -> None:
    joined = run(joiner(), Desk(opened(), revoked=1000))
    assert joined.revocations is None
    assert joined.grant.secret_epoch == 4


def test_an_invitation_of_several_uses() -> None:
    desk = Desk(opened(uses=2))
    run(joiner(), desk)
    desk.another()
    run(joiner(key=SigningKey.from_seed(b"\3" * 32)), desk)
    desk.another()
    fails(Reason.NOT_AUTHORIZED, "has been used", joiner(key=SigningKey.from_seed(b"\4" * 32)), desk)


def test_a_lost_grant_may_be_asked_for_again() -> None:
    desk = Desk(opened())
    newcomer = joiner()
    proof = newcomer.receive(desk.answer(newcomer.hello()), NOW)
    desk.answer(proof)  # … and this grant never arrives
    desk.another()
    assert run(newcomer, desk).certificate.public_key == KEY.public
    assert desk.invitation is not None
    assert desk.invitation.uses == 0


def test_names_are_checked_on_both_sides() -> None:
    with pytest.raises(CredentialError, match="name"):
        Joiner(TOKEN, KEY, "two\nlines", random.Random(1).randbytes)
    answer = Desk(opened()).answer(joiner().hello()._replace(name="\0"))
    assert isinstance(answer, RefuseMessage)
    assert answer.reason == "bad_name"


# -- refused in clear words ------------------------------------------------------


@pytest.mark.parametrize(
    ("invitation", "words"),
    [
        (None, "no such invitation"),
        (opened(expires=NOW - 1), "has expired"),
        (opened(attempts=0), "too many failed attempts"),
        (opened(uses=0), "has been used"),
    ],
)
def test_unusable_invitations(invitation: OpenInvitation | None, words: str) -> None:
    fails(Reason.NOT_AUTHORIZED, words, joiner(), Desk(invitation))


def test_an_invitation_that_ends_between_hello_and_proof() -> None:
    desk = Desk(opened())
    newcomer = joiner()
    proof = newcomer.receive(desk.answer(newcomer.hello()), NOW)
    desk.invitation = None
    answer = desk.answer(proof)
    assert isinstance(answer, RefuseMessage)
    with pytest.raises(CredentialRejected, match="no such invitation"):
        newcomer.receive(answer, NOW)


def test_attempts_run_out() -> None:
    desk = Desk(opened())
    for _ in range(MAX_ATTEMPTS):
        fails(
            Reason.NOT_AUTHORIZED,
            "secret is not the invitation's",
            joiner(),
            desk,
            out=lambda m: m._replace(proof=bytes(32)) if isinstance(m, JoinProofMessage) else m,
        )
        desk.another()
    fails(Reason.NOT_AUTHORIZED, "too many failed attempts", joiner(), desk)


def test_a_hello_alone_costs_no_attempt() -> None:
    desk = Desk(opened())
    for _ in range(MAX_ATTEMPTS + 1):
        desk.answer(joiner().hello())
        desk.another()
    run(joiner(), desk)


# -- attacks ---------------------------------------------------------------------


def test_a_wrong_secret_names_another_invitation() -> None:
    fails(
        Reason.NOT_AUTHORIZED,
        "no such invitation",
        joiner(replace(TOKEN, secret=bytes(16))),
        Desk(opened()),
    )


def test_an_impostor_who_does_not_know_the_secret() -> None:
    """It has heard the invitation's id and knows the CA key, and has another secret under that id."""
    desk = Desk(OpenInvitation(invitation_id(SECRET), bytes(16), NOW + 60, uses=1))
    fails(Reason.BAD_CERTIFICATE, "does not know the token's secret", joiner(), desk)


def test_a_newcomer_who_does_not_know_the_secret() -> None:
    """It has heard the invitation's id, and answers the challenge as well as it can."""
    desk = Desk(opened())
    liar = joiner(replace(TOKEN, secret=bytes(16)))
    hello = liar.hello()._replace(invitation=invitation_id(SECRET))
    assert isinstance(desk.answer(hello), JoinChallengeMessage)
    answer = desk.answer(JoinProofMessage(bytes(32), bytes(64)))
    assert isinstance(answer, RefuseMessage)
    assert answer.reason == "bad_proof"


def test_the_inviters_proof_reflected_is_not_the_newcomers() -> None:
    desk = Desk(opened())
    challenge = desk.answer(joiner().hello())
    answer = desk.answer(JoinProofMessage(challenge.proof, bytes(64)))
    assert isinstance(answer, RefuseMessage)
    assert answer.reason == "bad_proof"


def test_somebody_elses_key_cannot_be_certified() -> None:
    """A newcomer with a token asks for a certificate of a key that it has only seen."""
    desk = Desk(opened())
    victim = SigningKey.from_seed(b"\7" * 32)
    newcomer = joiner()
    newcomer._key = type("Seen", (), {"public": victim.public, "sign": KEY.sign})()
    with pytest.raises(CredentialRejected, match="not by the key"):
        run(newcomer, desk)
    assert desk.invitation is not None
    assert desk.invitation.attempts == MAX_ATTEMPTS - 1


def test_another_ca_in_the_middle() -> None:
    other = SigningKey.from_seed(b"\6" * 32)
    fails(Reason.WRONG_MESH, "not of the mesh", joiner(), Desk(opened(), ca=other))


def test_another_ca_key_put_into_the_challenge() -> None:
    other = SigningKey.from_seed(b"\6" * 32)

    def swap(message: Any) -> Any:
        if isinstance(message, JoinChallengeMessage):
            return message._replace(ca_public_key=other.public)
        return message

    fails(Reason.WRONG_MESH, "not of the mesh", joiner(), Desk(opened()), back=swap)


def test_a_key_put_into_the_hello_by_the_middle() -> None:
    other = SigningKey.from_seed(b"\6" * 32)

    def swap(message: Any) -> Any:
        return message._replace(public_key=other.public) if isinstance(message, JoinHelloMessage) else message

    fails(Reason.BAD_CERTIFICATE, "does not know", joiner(), Desk(opened()), out=swap)


def test_replayed_messages_fit_no_other_handshake() -> None:
    heard: list[Any] = []

    def listen(message: Any) -> Any:
        heard.append(message)
        return message

    desk = Desk(opened(uses=5))
    run(joiner(), desk, out=listen, back=listen)
    hello, challenge, proof, grant = heard
    # to the inviter: the nonce is a new one, so that the old proof proves nothing
    desk.another()
    assert isinstance(desk.answer(hello), JoinChallengeMessage)
    assert isinstance(desk.answer(proof), RefuseMessage)
    # to the newcomer
    again = joiner(seed=9)
    again.hello()
    with pytest.raises(CredentialRejected, match="does not know"):
        again.receive(challenge, NOW)
    again = joiner(seed=9)
    again.receive(desk.another().hello(again.hello(), desk.invitation, NOW), NOW)
    with pytest.raises(CredentialRejected, match="does not open"):
        again.receive(grant, NOW)


@given(data=st.data())
def test_every_bit_flip_ends_it(data: st.DataObject) -> None:
    """Whatever bit of whatever message changes on its way: nobody joins, and nothing else is raised."""
    target = data.draw(
        st.sampled_from([JoinHelloMessage, JoinChallengeMessage, JoinProofMessage, JoinGrantMessage])
    )

    def flip(message: Any) -> Any:
        if not isinstance(message, target):
            return message
        index = data.draw(st.integers(0, len(message) - 1))
        value = message[index]
        if isinstance(value, str):
            return message._replace(**{message._fields[index]: "cellar"})
        bit = data.draw(st.integers(0, len(value) * 8 - 1))
        changed = bytearray(value)
        changed[bit // 8] ^= 1 << bit % 8
        return message._replace(**{message._fields[index]: bytes(changed)})

    with pytest.raises(CredentialRejected):
        run(joiner(), Desk(opened()), out=flip, back=flip)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ca_public_key": KEY.public}, Reason.WRONG_MESH),
        ({"certificate": b"no"}, Reason.BAD_CERTIFICATE),
        ({"secret": b"n" * 32}, Reason.BAD_CERTIFICATE),
        ({"secret": b"short"}, Reason.BAD_MESSAGE),
        ({"secret_epoch": 5}, Reason.BAD_CERTIFICATE),
        ({"secret_epoch": -1}, Reason.BAD_MESSAGE),
        ({"mesh_name": ""}, Reason.BAD_MESSAGE),
        ({"revocations": b"no"}, Reason.BAD_CERTIFICATE),
        (
            {
                "certificate": issue_certificate(
                    CA, public_key=CA.public, name="x", not_before=0, expires=1 << 40, serial=1
                )
            },
            Reason.BAD_CERTIFICATE,
        ),
        (
            {
                "certificate": issue_certificate(
                    CA, public_key=KEY.public, name="x", not_before=0, expires=1, serial=1
                )
            },
            Reason.EXPIRED,
        ),
    ],
)
def test_grants_that_are_not_what_was_asked_for(change: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(CredentialRejected) as caught:
        run(joiner(), Desk(opened(), grant=lambda grant: replace(grant, **change)))
    assert caught.value.reason is reason


def test_messages_at_a_wrong_time() -> None:
    with pytest.raises(CredentialRejected, match="at this point"):
        joiner().receive(JoinChallengeMessage(bytes(16), CA.public, bytes(32)), NOW)
    newcomer = joiner()
    newcomer.hello()
    with pytest.raises(CredentialRejected, match="at this point"):
        newcomer.receive(JoinGrantMessage(b""), NOW)
    desk = Desk(opened())
    with pytest.raises(RemoteProtocolError) as caught:
        desk.answer(JoinProofMessage(bytes(32), bytes(64)))
    assert caught.value.reason is Reason.UNEXPECTED
    desk.another()
    desk.answer(joiner().hello())
    with pytest.raises(RemoteProtocolError):
        desk.answer(joiner().hello())
    with pytest.raises(RemoteProtocolError):
        desk.another().grant(Grant("m", CA.public, b"", MESH_SECRET, 1, b""))
