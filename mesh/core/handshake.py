"""The introduction: two nodes show each other certificate and node record, and no more.

    dialler                                responder
      Hello(versions, certificate, record) -->
                      <-- Welcome(version, certificate, record)   or   Refuse(reason, text, versions)

One round trip on the intro plane.  Nothing here proves that the other side *holds* its
keys: that is what the CURVE handshake on the direct plane does with the link key
which the member's signature binds to it, so a replayed Hello gains its sender nothing but an entry
in the allow list for a key that it does not have.

``Introducer`` knows our own credentials and judges theirs.  It keeps no state of peers but one: what
verified once need not have its signatures looked at again, because a peer's papers come by its dial, by
ours, and by everybody's gossip.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from mesh.core.identity import (
    Certificate,
    NodeRecord,
    Revocations,
    SigningKey,
    verify_certificate,
    verify_record,
)
from mesh.core.messages import HelloMessage, RefuseMessage, WelcomeMessage
from mesh.core.types import PROTOCOL_VERSIONS, CredentialRejected, MeshId, Reason, RemoteProtocolError

__all__ = ["Introduced", "Introducer", "Papers", "refusal"]

_WORDS = {
    Reason.WRONG_MESH: "your certificate is of another mesh",
    Reason.EXPIRED: "your certificate or record has expired, or your clock is ahead of mine",
    Reason.NOT_YET_VALID: "your certificate or record is not valid yet: is your clock or mine wrong?",
    Reason.REVOKED: "your certificate has been revoked",
    Reason.BAD_CERTIFICATE: "your certificate does not verify",
    Reason.BAD_RECORD: "your node record does not verify",
    Reason.VERSION_MISMATCH: "we have no protocol version in common",
    Reason.TOO_MANY: "I have no room for another peer",
}


_REMEMBERED: Final = 512
"""Pairs of papers that verified: twice as many as a node may have peers, since records change. A few hundred KiB."""


class Papers(NamedTuple):
    """What a node shows and holds: its member's credentials."""

    mesh: MeshId
    ca_public_key: bytes
    key: SigningKey
    certificate: bytes
    secret: bytes
    secret_epoch: int
    revocations: Revocations | None
    revocations_bytes: bytes = b""


class Introduced(NamedTuple):
    """Somebody whose certificate and record verify."""

    certificate: Certificate
    record: NodeRecord
    encoded: tuple[bytes, bytes]  # certificate, record: as gossip passes them on
    version: int


def refusal(reason: Reason) -> RefuseMessage:
    """The refusal that says why in clear, whichever side has to act."""
    return RefuseMessage(reason.value, _WORDS.get(reason, "not accepted"), list(PROTOCOL_VERSIONS))


class Introducer:
    """Our papers, and the judgement of theirs."""

    def __init__(
        self, ca_public_key: bytes, certificate: bytes, record: bytes, revocations: Revocations | None
    ):
        self._ca_public_key = ca_public_key
        self.certificate = certificate
        self.record = record
        self.revocations = revocations
        self._verified: dict[tuple[bytes, bytes], tuple[Certificate, NodeRecord]] = {}  # oldest first

    def hello(self) -> HelloMessage:
        return HelloMessage(list(PROTOCOL_VERSIONS), self.certificate, self.record)

    def welcome(self, version: int) -> WelcomeMessage:
        return WelcomeMessage(version, self.certificate, self.record)

    def answer(self, hello: HelloMessage, now: float) -> Introduced:
        """Judge a Hello. Raises ``RemoteProtocolError`` with the reason for the refusal."""
        low = max(PROTOCOL_VERSIONS[0], hello.versions[0])
        high = min(PROTOCOL_VERSIONS[1], hello.versions[1])
        if low > high:
            raise RemoteProtocolError(Reason.VERSION_MISMATCH, f"theirs {hello.versions}")
        return self.judge(hello.certificate, hello.record, high, now)

    def accept(self, welcome: WelcomeMessage, now: float) -> Introduced:
        """Judge a Welcome."""
        if not PROTOCOL_VERSIONS[0] <= welcome.version <= PROTOCOL_VERSIONS[1]:
            raise RemoteProtocolError(Reason.VERSION_MISMATCH, f"they chose {welcome.version}")
        return self.judge(welcome.certificate, welcome.record, welcome.version, now)

    def judge(self, certificate: bytes, record: bytes, version: int, now: float) -> Introduced:
        """Certificate by the CA, record by the member, neither revoked. ``now`` is wall-clock seconds."""
        encoded = (certificate, record)
        known = self._verified.get(encoded)
        if known is not None:
            known[0].check_times(now)
            known[1].check_times(now)
        else:
            verified = verify_certificate(certificate, self._ca_public_key, now)
            known = self._verified[encoded] = verified, verify_record(record, verified, now)
            if len(self._verified) > _REMEMBERED:
                del self._verified[next(iter(self._verified))]
        if self.revoked(known[0]):
            raise CredentialRejected(Reason.REVOKED, known[0].name)
        return Introduced(*known, encoded, version)

    def revoked(self, certificate: Certificate) -> bool:
        return self.revocations is not None and certificate.member in self.revocations.members
