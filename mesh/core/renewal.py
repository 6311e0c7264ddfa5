"""Certificates over time: renewed before they end, and at their end the link ends with them.

    ours is in its last third (at most a month) → CertificateWanted to every peer, now and then
        → the one that holds the CA key certifies the same member anew → Certificate → ours from now on
        → Certificate to every peer, so that they know when the new one ends
    theirs, or their node's record, has ended by the wall clock → the link is cut

Both are looked at every few seconds by the wall clock, so that a clock that is set counts as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mesh.core.effects import CertificateRenewed, Effect, Incident, SendDirect
from mesh.core.handshake import Introducer, refusal
from mesh.core.identity import CLOCK_TOLERANCE, Certificate, verify_certificate
from mesh.core.links import Links
from mesh.core.messages import CertificateMessage, CertificateWantedMessage, GoodbyeMessage
from mesh.core.session import Session
from mesh.core.types import CredentialRejected, Reason

__all__ = ["RENEW_BEFORE", "Certifier", "Renewal", "is_due"]

RENEW_BEFORE: Final = 30 * 86400
"""Seconds before the end at which a certificate is renewed (or at the beginning of its last third, if that is
later): the machine that holds the CA key may be away for weeks."""

ASK_EVERY: Final = 600.0
"""Seconds between two requests for renewal: one small message a peer, for as long as nobody can grant it."""

GRANT_EVERY: Final = 60.0
"""Seconds between two certificates for one peer: an Ed25519 signature and a write to the disk each."""

LOOK_EVERY: Final = 5.0
"""Seconds between two looks at what has ended: at most so much longer does a link live than its certificate."""

Certifier = Callable[[Certificate], bytes | None]
"""A new certificate for the holder of this one; None if it may have none. Only who holds the CA key has such a one."""


def is_due(certificate: Certificate, now: float) -> bool:
    """Whether it is time to renew it. ``now`` is Unix seconds."""
    lifetime = certificate.expires - certificate.not_before
    return now > certificate.expires - min(RENEW_BEFORE, lifetime / 3)


class Renewal:
    """The certificates of one node and its peers. ``clock`` is monotonic, ``now`` wall-clock seconds."""

    def __init__(
        self,
        ca_public_key: bytes,
        own: Certificate,
        introducer: Introducer,
        links: Links,
        effects: list[Effect],
        changed: Callable[[], None],
    ) -> None:
        self._ca_public_key = ca_public_key
        self.own = own
        self._introducer = introducer
        self._links = links
        self._effects = effects
        self._changed = changed  # somebody's roles may be others now
        self.certifier: Certifier | None = None
        self.look_at = float("-inf")
        self._ask_at = float("-inf")
        self._said = False

    def timer(self, clock: float, now: float) -> None:
        """Look at what ends, and ask for what is needed."""
        if clock < self.look_at:
            return
        self.look_at = clock + LOOK_EVERY
        for session in list(self._links.sessions.values()):
            certificate, record = session.introduced.certificate, session.introduced.record
            if now > min(certificate.expires, record.expires) + CLOCK_TOLERANCE:
                self._effects.append(Incident("peer cut off", f"{session.name}: its certificate has expired"))
                self._effects.append(
                    SendDirect(session.node, GoodbyeMessage(False, refusal(Reason.EXPIRED).text))
                )
                self._links.cut_off(session, "expired", clock)
        if now > self.own.expires and not self._said:
            self._said = True
            self._effects.append(Incident("certificate expired", "ask for a new invitation, and join again"))
        if is_due(self.own, now) and clock >= self._ask_at and self._links.sessions:
            self._ask_at = clock + ASK_EVERY
            self._links.send_all([CertificateWantedMessage(self.own.expires)])

    def wanted(self, session: Session, clock: float, now: float) -> None:
        """A peer asks for a new certificate."""
        old = session.introduced.certificate
        if self.certifier is None or not is_due(old, now) or session.certified_at > clock - GRANT_EVERY:
            return
        session.certified_at = clock
        encoded = self.certifier(old)
        if encoded is not None:
            self._effects.append(SendDirect(session.node, CertificateMessage(encoded)))

    def heard(self, session: Session, encoded: bytes, clock: float, now: float) -> None:
        """Our own new certificate, or the peer's. Raises ``RemoteProtocolError`` for any other."""
        certificate = verify_certificate(encoded, self._ca_public_key, now, self._introducer.revocations)
        if certificate.public_key == self.own.public_key:
            self._adopt(encoded, certificate)
        elif certificate.public_key != session.introduced.certificate.public_key:
            raise CredentialRejected(Reason.BAD_CERTIFICATE, "of another member")
        if (
            certificate.public_key == session.introduced.certificate.public_key
            and certificate.serial > session.introduced.certificate.serial
        ):
            both = (encoded, session.encoded[1])
            session.introduced = session.introduced._replace(certificate=certificate, encoded=both)
            session.encoded = both
            self._changed()

    def adopt(self, encoded: bytes, now: float) -> bool:
        """Our home has a newer certificate. False if it is not. Raises ``CredentialRejected``."""
        return self._adopt(encoded, verify_certificate(encoded, self._ca_public_key, now))

    def _adopt(self, encoded: bytes, certificate: Certificate) -> bool:
        if certificate.public_key != self.own.public_key or certificate.serial <= self.own.serial:
            return False
        self.own = certificate
        self._said = False
        self._introducer.certificate = encoded
        self._links.send_all([CertificateMessage(encoded)])
        self._effects.append(CertificateRenewed(encoded))
        return True
