"""Joining: a newcomer with a token, and the node that holds the CA key.

    newcomer                                          inviter
      JoinHello(invitation, nonce, key, name)   -->     known, not expired, tries left?
             <-- JoinChallenge(nonce, CA key, proof)    knows the secret
      CA key is the token's? proof?
      JoinProof(proof, signature)               -->     knows the secret, holds the key
             <-- JoinGrant(sealed)                      certificate, mesh secret, revocations
      certificate is of this CA, for this key?

At any point the inviter may answer ``Refuse`` with the reason in clear.  Both proofs are
HMAC-SHA256 (RFC 2104) with the token's secret over a label for the role and the transcript, which is
SHA-256 over every field said so far; the signature, by the newcomer's Ed25519 key over the transcript, keeps
anyone from being certified with somebody else's key.  The grant is AES-256-GCM under a key
from secret and transcript, used once.  Nothing is trusted on first use: the token names the CA key's hash.

The secret has 128 random bits, so that neither side gains a guess worth having; the three
attempts of an invitation stop a program that mistakes one for another from knocking for ever.

Both sides are told the time and do no I/O: the inviter's store of invitations is its caller's.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final, NamedTuple

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mesh.core.codec import decode_strict, encode_canonical
from mesh.core.fields import check_name
from mesh.core.identity import Certificate, Revocations, SigningKey, verify_certificate, verify_revocations
from mesh.core.keys import derive
from mesh.core.messages import (
    JoinChallengeMessage,
    JoinGrantMessage,
    JoinHelloMessage,
    JoinProofMessage,
    RefuseMessage,
)
from mesh.core.token import Invitation
from mesh.core.types import (
    PROTOCOL_VERSIONS,
    CredentialRejected,
    RandomBytes,
    Reason,
    RemoteProtocolError,
    mesh_id,
)
from mesh.errors import CredentialError

__all__ = [
    "MAX_ATTEMPTS",
    "Grant",
    "Inviter",
    "Joined",
    "Joiner",
    "OpenInvitation",
    "Proven",
    "invitation_id",
    "refuse",
]

MAX_ATTEMPTS: Final = 3
"""Wrong proofs that an invitation survives: a mistyped token never gets so far (it has a checksum)."""

_REVOCATIONS_IN_GRANT: Final = 2048
"""A longer list follows over the first direct link instead: the grant must fit a frame of 4 KiB."""

_NEWCOMER: Final = b"zeromesh v1 join newcomer"
_INVITER: Final = b"zeromesh v1 join inviter"
_HOLDER: Final = b"zeromesh v1 join key"


def invitation_id(secret: bytes) -> bytes:
    """How an invitation is named on the wire and in the inviter's store (8 bytes)."""
    return hmac.digest(secret, b"zeromesh invitation", "sha256")[:8]


def _transcript(hello: JoinHelloMessage, nonce: bytes, ca_public_key: bytes) -> bytes:
    return hashlib.sha256(encode_canonical(["zeromesh v1 join", *hello, nonce, ca_public_key])).digest()


def _prove(secret: bytes, role: bytes, transcript: bytes) -> bytes:
    return hmac.digest(secret, role + transcript, "sha256")


def _grant_key(secret: bytes, transcript: bytes) -> AESGCM:
    return AESGCM(derive(secret + transcript, b"join grant", 32))


_GRANT_NONCE: Final = bytes(12)  # each key seals one message: the transcript holds two fresh nonces


@dataclass(frozen=True, slots=True)
class Grant:
    """What a newcomer is given. ``certificate`` and ``revocations`` are encoded; an empty list follows later."""

    mesh_name: str
    ca_public_key: bytes
    certificate: bytes
    secret: bytes = field(repr=False)
    secret_epoch: int
    revocations: bytes


def _seal_grant(grant: Grant, secret: bytes, transcript: bytes) -> bytes:
    revocations = grant.revocations if len(grant.revocations) <= _REVOCATIONS_IN_GRANT else b""
    plaintext = encode_canonical(
        [
            grant.mesh_name,
            grant.ca_public_key,
            grant.certificate,
            grant.secret,
            grant.secret_epoch,
            revocations,
        ]
    )
    return _grant_key(secret, transcript).encrypt(_GRANT_NONCE, plaintext, transcript)


# -- the newcomer -------------------------------------------------------------


class Joined(NamedTuple):
    """The newcomer is a member: what it was given, verified."""

    grant: Grant
    certificate: Certificate
    revocations: Revocations | None


class _JoinerState(Enum):
    IDLE = auto()
    AWAITS_CHALLENGE = auto()
    AWAITS_GRANT = auto()
    DONE = auto()


class Joiner:
    """The newcomer's side: ``hello()``, then ``receive`` each answer until it gives a ``Joined``.

    One joiner may try one endpoint after another: ``hello()`` begins again, with the same key.
    """

    def __init__(self, invitation: Invitation, key: SigningKey, name: str, rng: RandomBytes) -> None:
        wrong = check_name(name)
        if wrong is not None:
            raise CredentialError(f"cannot join as {name!r}: {wrong}")
        self._invitation = invitation
        self._key = key
        self._name = name
        self._rng = rng
        self._state = _JoinerState.IDLE
        self._hello: JoinHelloMessage | None = None
        self._transcript = b""

    def hello(self) -> JoinHelloMessage:
        """Begin, or begin again on another link."""
        secret = self._invitation.secret
        self._hello = JoinHelloMessage(invitation_id(secret), self._rng(16), self._key.public, self._name)
        self._state = _JoinerState.AWAITS_CHALLENGE
        return self._hello

    def receive(self, message: Any, now: float) -> JoinProofMessage | Joined:
        """What to send next, or that it is done. ``now`` is wall-clock seconds.

        Raises ``CredentialRejected``: with NOT_AUTHORIZED the other side refused, and the detail is its
        reason in clear; otherwise what it sent proves nothing, and the detail says so.  Then it is over.
        """
        state, self._state = self._state, _JoinerState.DONE
        if isinstance(message, RefuseMessage):
            raise CredentialRejected(Reason.NOT_AUTHORIZED, message.text)
        if state is _JoinerState.AWAITS_CHALLENGE and isinstance(message, JoinChallengeMessage):
            return self._challenged(message)
        if state is _JoinerState.AWAITS_GRANT and isinstance(message, JoinGrantMessage):
            return self._granted(message, now)
        raise CredentialRejected(Reason.UNEXPECTED, f"{type(message).__name__} at this point")

    def _challenged(self, message: JoinChallengeMessage) -> JoinProofMessage:
        assert self._hello is not None
        if mesh_id(message.ca_public_key) != self._invitation.mesh:
            raise CredentialRejected(
                Reason.WRONG_MESH, "who answered is not of the mesh that the token names"
            )
        transcript = _transcript(self._hello, message.nonce, message.ca_public_key)
        secret = self._invitation.secret
        if not hmac.compare_digest(message.proof, _prove(secret, _INVITER, transcript)):
            raise CredentialRejected(Reason.BAD_CERTIFICATE, "who answered does not know the token's secret")
        self._transcript = transcript
        self._state = _JoinerState.AWAITS_GRANT
        return JoinProofMessage(_prove(secret, _NEWCOMER, transcript), self._key.sign(_HOLDER + transcript))

    def _granted(self, message: JoinGrantMessage, now: float) -> Joined:
        try:
            plaintext = _grant_key(self._invitation.secret, self._transcript).decrypt(
                _GRANT_NONCE, message.sealed, self._transcript
            )
        except InvalidTag:
            raise CredentialRejected(Reason.BAD_TAG, "the grant does not open") from None
        try:
            fields = decode_strict(plaintext)
        except RemoteProtocolError as error:
            raise CredentialRejected(Reason.BAD_MESSAGE, error.detail) from None
        types = [str, bytes, bytes, bytes, int, bytes]
        if (
            type(fields) is not list
            or len(fields) < len(types)
            or [type(each) for each in fields[: len(types)]] != types
            or check_name(fields[0]) is not None
            or len(fields[3]) != 32
            or not 0 <= fields[4] < 1 << 64
        ):
            raise CredentialRejected(Reason.BAD_MESSAGE, "the grant's form")
        grant = Grant(*fields[: len(types)])
        if mesh_id(grant.ca_public_key) != self._invitation.mesh:
            raise CredentialRejected(Reason.WRONG_MESH, "the grant is of another mesh")
        certificate = verify_certificate(grant.certificate, grant.ca_public_key, now)
        if certificate.public_key != self._key.public:
            raise CredentialRejected(Reason.BAD_CERTIFICATE, "the certificate is for another key")
        revocations = None
        if grant.revocations:
            revocations = verify_revocations(grant.revocations, grant.ca_public_key)
            if revocations.secret_epoch != grant.secret_epoch or not revocations.fits(grant.secret):
                raise CredentialRejected(Reason.BAD_CERTIFICATE, "the mesh secret is not the CA's")
        self._state = _JoinerState.DONE
        return Joined(grant, certificate, revocations)


# -- the inviter --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenInvitation:
    """An invitation as its store knows it.

    ``uses`` and ``attempts`` are what is left of each; ``expires`` is Unix seconds; ``used_by`` are the keys that
    joined with it. Such a key may join again, in case the grant was lost on its way: that costs no use.
    """

    id: bytes
    secret: bytes = field(repr=False)
    expires: float
    uses: int
    attempts: int = MAX_ATTEMPTS
    roles: tuple[str, ...] = ()
    used_by: frozenset[bytes] = frozenset()


class Proven(NamedTuple):
    """The newcomer knows the secret and holds the key: it may be certified under this name."""

    invitation: OpenInvitation
    public_key: bytes
    name: str


NOT_INVITER: Final = "not_inviter"
"""The refusal of a member that holds no CA key: another one may."""


def not_inviter() -> RefuseMessage:
    """What a node answers that can admit nobody."""
    return refuse(NOT_INVITER, "this node cannot admit newcomers: dial the one that made the invitation")


def refuse(reason: str, text: str) -> RefuseMessage:
    """A refusal of a join, with words for a person."""
    return RefuseMessage(reason, text, list(PROTOCOL_VERSIONS))


def _unusable(invitation: OpenInvitation | None, public_key: bytes, now: float) -> RefuseMessage | None:
    if invitation is None:
        return refuse("unknown_invitation", "there is no such invitation here: was it used, or taken back?")
    if now > invitation.expires:
        return refuse("expired", "the invitation has expired: ask for a new one")
    if invitation.attempts <= 0:
        return refuse("too_many", "too many failed attempts with this invitation: ask for a new one")
    if invitation.uses <= 0 and public_key not in invitation.used_by:
        return refuse("used", "the invitation has been used: ask for a new one")
    return None


class _InviterState(Enum):
    AWAITS_HELLO = auto()
    AWAITS_PROOF = auto()
    PROVEN = auto()
    DONE = auto()


class Inviter:
    """The inviter's side of one introduction.

    ``hello`` with the stored invitation of that id, ``proof`` with the invitation as it stands then, and
    ``grant`` with what the newcomer is given.  A ``RefuseMessage`` ends it; one from ``proof`` for
    which ``failed`` is true costs the invitation an attempt, which the caller writes down.
    """

    def __init__(self, ca_public_key: bytes, rng: RandomBytes) -> None:
        self._ca_public_key = ca_public_key
        self._rng = rng
        self._state = _InviterState.AWAITS_HELLO
        self._hello: JoinHelloMessage | None = None
        self._secret = b""
        self._transcript = b""
        self.failed = False

    @property
    def invitation(self) -> bytes | None:
        """The id of the invitation that the newcomer named, once it has."""
        return None if self._hello is None else self._hello.invitation

    def hello(
        self, message: JoinHelloMessage, invitation: OpenInvitation | None, now: float
    ) -> JoinChallengeMessage | RefuseMessage:
        """Answer the first word. Raises ``RemoteProtocolError(UNEXPECTED)`` at a wrong time."""
        self._step(_InviterState.AWAITS_HELLO)
        unusable = _unusable(invitation, message.public_key, now)
        if unusable is not None:
            return unusable
        wrong = check_name(message.name)
        if wrong is not None:
            return refuse("bad_name", wrong)
        assert invitation is not None
        nonce = self._rng(16)
        self._hello = message
        self._secret = invitation.secret
        self._transcript = _transcript(message, nonce, self._ca_public_key)
        self._state = _InviterState.AWAITS_PROOF
        return JoinChallengeMessage(
            nonce, self._ca_public_key, _prove(self._secret, _INVITER, self._transcript)
        )

    def proof(
        self, message: JoinProofMessage, invitation: OpenInvitation | None, now: float
    ) -> Proven | RefuseMessage:
        """Judge the newcomer's proof, by the invitation as it stands now."""
        self._step(_InviterState.AWAITS_PROOF)
        assert self._hello is not None
        unusable = _unusable(invitation, self._hello.public_key, now)
        if unusable is not None:
            return unusable
        assert invitation is not None
        if not hmac.compare_digest(message.proof, _prove(self._secret, _NEWCOMER, self._transcript)):
            self.failed = True
            return refuse("bad_proof", "the token's secret is not the invitation's")
        try:
            Ed25519PublicKey.from_public_bytes(self._hello.public_key).verify(
                message.signature, _HOLDER + self._transcript
            )
        except (InvalidSignature, ValueError):
            self.failed = True
            return refuse("bad_proof", "the signature is not by the key that asks for a certificate")
        self._state = _InviterState.PROVEN
        return Proven(invitation, self._hello.public_key, self._hello.name)

    def grant(self, grant: Grant) -> JoinGrantMessage:
        """Seal what the newcomer is given. The last word."""
        self._step(_InviterState.PROVEN)
        return JoinGrantMessage(_seal_grant(grant, self._secret, self._transcript))

    def _step(self, expected: _InviterState) -> None:
        state, self._state = self._state, _InviterState.DONE
        if state is not expected:
            raise RemoteProtocolError(Reason.UNEXPECTED, f"a join message in state {state.name}")
