"""What a running node is told of its credentials, and what it tells of them: the side of it that a home keeps."""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

from mesh.core.effects import CertificateRenewed, RevocationsAdopted
from mesh.core.renewal import Certifier
from mesh.core.standing import Standing

__all__ = ["Change", "NodeCredentials"]

Change = RevocationsAdopted | CertificateRenewed


class NodeCredentials:
    """The credentials of one node. ``apply`` carries out what the engine wants done."""

    def __init__(self, standing: Standing, apply: Callable[[], None]) -> None:
        self._standing = standing
        self._apply = apply
        self._keep: Callable[[Change], None] | None = None

    def adopt_revocations(self, encoded: bytes, secret: bytes) -> bool:
        """Go by this revocation list and mesh secret, if they are newer, and pass them on.

        Raises ``RemoteProtocolError`` for a list that is not the CA's.
        """
        adopted = self._standing.adopt(encoded, secret, trio.current_time())
        self._apply()
        return adopted

    def adopt_certificate(self, encoded: bytes) -> bool:
        """Show this certificate of ours from now on, if it is newer. Raises ``RemoteProtocolError``."""
        adopted = self._standing.renewal.adopt(encoded, time.time())
        self._apply()
        return adopted

    def keep(self, keep: Callable[[Change], None], certifier: Certifier | None = None) -> None:
        """``keep`` is called whenever what credentials are made of has changed, wherever that came from.

        ``certifier`` makes new certificates for peers whose own end soon, if the CA key is at hand.
        """
        self._keep = keep
        self._standing.renewal.certifier = certifier

    def changed(self, change: Change) -> None:
        """The engine's news."""
        if self._keep is not None:
            self._keep(change)
