"""Who still belongs to the mesh: the newest revocation list, and what follows from one that is newer.
(``renewal`` is the other half: certificates that end and are renewed.)

A list with its mesh secret, from a peer or from our own home → the CA's? newer? → whoever is on it is cut off →
new tags, a new token and a fresh sealing root, told to all who stay (``Attach`` again, then ``Ping``) → a peer
that has answered the ping has our token: subscribe afresh there.  Peers compare versions whenever they attach,
and who is behind is sent the list; so it reaches everybody who is reachable, and the others at first contact.

Versions never go back, and neither does the epoch of the mesh secret.
"""

from __future__ import annotations

from collections.abc import Callable

from mesh.core.broadcast import Broadcast
from mesh.core.dialer import Dialer
from mesh.core.effects import DisconnectBroadcast, Effect, Incident, RevocationsAdopted, SendDirect
from mesh.core.handshake import Introducer, refusal
from mesh.core.identity import read_certificate, verify_revocations
from mesh.core.links import Links
from mesh.core.messages import (
    CertificateMessage,
    CertificateWantedMessage,
    GoodbyeMessage,
    RevocationsMessage,
)
from mesh.core.renewal import Renewal
from mesh.core.session import Session
from mesh.core.subscriber import Subscriber
from mesh.core.types import CredentialRejected, Reason

__all__ = ["Standing"]


class Standing:
    """The list that one node goes by. ``clock`` is monotonic seconds."""

    def __init__(
        self,
        ca_public_key: bytes,
        secret: bytes,
        revocations: bytes,
        introducer: Introducer,
        dialer: Dialer,
        links: Links,
        broadcast: Broadcast,
        subscriber: Subscriber,
        effects: list[Effect],
        changed: Callable[[], None],
    ) -> None:
        self._ca_public_key = ca_public_key
        self._secret = secret
        self._encoded = revocations
        self._introducer = introducer
        self._dialer = dialer
        self._links = links
        self._broadcast = broadcast
        self._subscriber = subscriber
        self._effects = effects
        self.renewal = Renewal(
            ca_public_key,
            read_certificate(introducer.certificate, ca_public_key),
            introducer,
            links,
            effects,
            changed,
        )

    @property
    def version(self) -> int:
        """Of our list; 0 if we have none."""
        listed = self._introducer.revocations
        return 0 if listed is None else listed.version

    def compare(self, session: Session) -> None:
        """A peer has told which list it has: if ours is newer, it gets it."""
        if session.revocations < self.version and self._encoded and session.link_open:
            session.revocations = self.version
            self._effects.append(SendDirect(session.node, self._message()))

    def _message(self) -> RevocationsMessage:
        return RevocationsMessage(self._encoded, self._broadcast.secret_epoch, self._secret)

    def heard(
        self,
        session: Session,
        message: RevocationsMessage | CertificateWantedMessage | CertificateMessage,
        clock: float,
        now: float,
    ) -> None:
        """A peer speaks of credentials. Raises ``RemoteProtocolError`` for what the CA did not sign."""
        match message:
            case RevocationsMessage():
                self._heard_revocations(session, message, clock)
            case CertificateWantedMessage():
                self.renewal.wanted(session, clock, now)
            case CertificateMessage():
                self.renewal.heard(session, message.certificate, clock, now)

    def _heard_revocations(self, session: Session, message: RevocationsMessage, clock: float) -> None:
        if self._encoded and message.revocations == self._encoded:
            session.revocations = self.version
            return
        listed = verify_revocations(message.revocations, self._ca_public_key)
        session.revocations = listed.version
        if message.secret_epoch != listed.secret_epoch:
            raise CredentialRejected(Reason.BAD_CERTIFICATE, "the epoch is not the list's")
        if not self.adopt(message.revocations, message.secret, clock):
            self.compare(session)

    def adopt(self, encoded: bytes, secret: bytes, clock: float) -> bool:
        """Go by this list from now on, if it is newer. Raises ``CredentialRejected`` if it is not the CA's."""
        listed = verify_revocations(encoded, self._ca_public_key)
        if not listed.fits(secret):
            raise CredentialRejected(Reason.BAD_CERTIFICATE, "the mesh secret is not the CA's")
        if listed.version <= self.version or listed.secret_epoch < self._broadcast.secret_epoch:
            return False
        self._introducer.revocations = listed
        self._encoded = encoded
        for session in list(self._links.sessions.values()):
            if self._introducer.revoked(session.introduced.certificate):
                self._cut_off(session, clock)
        fresh = secret != self._secret
        if fresh:
            self._secret = secret
            for session in self._links.sessions.values():
                if session.broadcast_connected:  # nobody is told of subscriptions that it cannot verify yet
                    session.broadcast_connected = False
                    self._effects.append(DisconnectBroadcast(session.node))
            self._subscriber.rekey(secret, listed.secret_epoch, clock)
        for session in self._links.sessions.values():
            self.compare(session)  # before the Attach that goes with it
            if fresh:
                self._announce(session, clock)
        self._effects.append(RevocationsAdopted(encoded, secret))
        return True

    def _announce(self, session: Session, clock: float) -> None:
        """Our token and keys are new: tell it, and find out when it has taken that in."""
        session.confirmed = -1
        if session.link_open:
            self._links.attach(session)
            session.rekeying = self._links.ping(session, clock)

    def _cut_off(self, session: Session, clock: float) -> None:
        self._effects.append(Incident("peer cut off", f"{session.name}: its member has been revoked"))
        # In words, and without the list: the secret that travels with it is not for this one.
        self._effects.append(SendDirect(session.node, GoodbyeMessage(False, refusal(Reason.REVOKED).text)))
        self._dialer.forget(session.node)
        self._links.cut_off(session, "revoked", clock, for_good=True)
