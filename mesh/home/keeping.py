"""A running node and its home, kept in step.

home → node:  another program of this home (``mesh revoke``, the daemon) has written newer credentials;
              noticed by the file's stamp, every two seconds
node → home:  a newer revocation list has come from a peer; written beside the loop, since it waits for
              the disk and for the folder's lock
"""

from __future__ import annotations

import logging
from typing import Final

import trio

from mesh.core.types import RemoteProtocolError
from mesh.errors import CredentialError
from mesh.home.credentials import Credentials
from mesh.home.home import Home
from mesh.node.node import Node

__all__ = ["LOOK_EVERY", "Keeping"]

LOOK_EVERY: Final = 2.0
"""Seconds between two looks at the file's stamp: one call of stat(2), and a revocation counts soon."""

log = logging.getLogger("mesh.home")


class Keeping:
    """Keeps ``node``, which was opened with ``credentials`` of ``home``, and the home in step."""

    def __init__(self, home: Home, credentials: Credentials, node: Node) -> None:
        self._home = home
        self._mesh = credentials.mesh
        self._node = node
        self._stamp = home.stamp()
        self._unwritten: list[tuple[bytes, bytes]] = []
        self._wake = trio.Event()
        node.tell_revocations(self._adopted)

    def _adopted(self, encoded: bytes, secret: bytes) -> None:
        self._unwritten.append((encoded, secret))
        self._wake.set()

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
            encoded, secret = self._unwritten[0]
            with trio.CancelScope(shield=True):  # what the mesh has agreed on outlives this process
                await trio.to_thread.run_sync(self._home.store_revocations, encoded, secret)
            del self._unwritten[0]

    def _look(self) -> None:
        stamp = self._home.stamp()
        if stamp == self._stamp:
            return
        credentials = self._home.credentials(create=False)
        self._stamp = stamp
        if credentials.mesh == self._mesh and credentials.revocations_bytes:
            self._node.adopt_revocations(credentials.revocations_bytes, credentials.secret)
