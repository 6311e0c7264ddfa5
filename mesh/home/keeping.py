"""A running node and its home, kept in step.

home → node:  another program of this home (``mesh revoke``, the daemon) has written newer credentials;
              noticed by the file's stamp, every two seconds
node → home:  a newer revocation list or certificate has come from a peer; written beside the loop, since
              it waits for the disk and for the folder's lock
the CA key, if it is here and not locked, certifies peers anew whose certificates end soon, and this home's member itself
"""

from __future__ import annotations

import logging
from typing import Final

import trio

from mesh.core.effects import RevocationsAdopted
from mesh.core.identity import Certificate
from mesh.core.types import RemoteProtocolError
from mesh.errors import CredentialError
from mesh.home.credentials import Credentials
from mesh.home.home import Home
from mesh.node.credentials import Change
from mesh.node.node import Node

__all__ = ["LOOK_EVERY", "Keeping"]

LOOK_EVERY: Final = 2.0
"""Seconds between two looks at the file's stamp: one call of stat(2), and a revocation counts soon."""

RENEW_EVERY: Final = 3600.0
"""Seconds after which a node that holds the CA key looks at its own certificate again."""

log = logging.getLogger("mesh.home")


class Keeping:
    """Keeps ``node``, which was opened with ``credentials`` of ``home``, and the home in step."""

    def __init__(self, home: Home, credentials: Credentials, node: Node) -> None:
        self._home = home
        self._mesh = credentials.mesh
        self._certificate = credentials.certificate_bytes
        self._node = node
        self._stamp = home.stamp()
        self._unwritten: list[Change] = []
        self._wake = trio.Event()
        self._renew_at = trio.current_time() + RENEW_EVERY
        self._said_locked = False
        node.credentials.keep(self._changed, self._certify)

    def _changed(self, change: Change) -> None:
        self._unwritten.append(change)
        self._wake.set()

    def _certify(self, certificate: Certificate) -> bytes | None:
        try:
            custodian = self._home.custodian  # asked each time: the key comes and goes
            if custodian.locked and not self._said_locked:
                log.warning(
                    "cannot renew the certificate of %s, nor of others: the CA key is wrapped, and `mesh ca unlock` "
                    "opens it",
                    certificate.name,
                )
            self._said_locked = custodian.locked
            return self._home.certify_again(certificate) if custodian.here and not custodian.locked else None
        except CredentialError as error:
            # Policy: the peer asks again, and the log says what is the matter here.
            log.warning("cannot renew the certificate of %s: %s", certificate.name, error)
            return None

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with trio.move_on_after(LOOK_EVERY):
                await self._wake.wait()
            self._wake = trio.Event()
            try:
                await self._write()
                self._look()
            except (CredentialError, RemoteProtocolError) as error:
                # Policy: a home that cannot be read or written ends no node. It is tried again.
                log.warning("credentials: %s", error)

    async def _write(self) -> None:
        while self._unwritten:
            with trio.CancelScope(shield=True):  # what the mesh has agreed on outlives this process
                await trio.to_thread.run_sync(self._store, self._unwritten[0])
            del self._unwritten[0]

    def _store(self, change: Change) -> None:
        if isinstance(change, RevocationsAdopted):
            self._home.store_revocations(change.encoded, change.secret)
        else:
            self._home.store_certificate(change.encoded)

    def _look(self) -> None:
        stamp = self._home.stamp()
        if trio.current_time() >= self._renew_at:
            self._renew_at += RENEW_EVERY  # to read credentials is to renew them, where the CA key is
        elif stamp == self._stamp:
            return
        credentials = self._home.credentials(create=False)
        self._stamp = stamp
        if credentials.mesh != self._mesh:
            return
        if credentials.revocations_bytes:
            self._node.credentials.adopt_revocations(credentials.revocations_bytes, credentials.secret)
        if credentials.certificate_bytes != self._certificate:
            self._certificate = credentials.certificate_bytes
            self._node.credentials.adopt_certificate(credentials.certificate_bytes)
