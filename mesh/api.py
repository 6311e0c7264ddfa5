"""``open_node``: from a home folder and a few words to a running node.

home → credentials → ``Papers``; a fresh link key → transport; names of mechanisms →
discovery; all of it → ``Node``.  This is the one place that knows all the layers.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mesh.config import Config
from mesh.core.engine import Papers
from mesh.core.keys import beacon_key
from mesh.discovery.factory import create
from mesh.discovery.seeds import Seeds
from mesh.errors import ConfigError
from mesh.home import Credentials, Home
from mesh.node.node import Node
from mesh.transport.base import LinkKey
from mesh.transport.zmqtransport import ZmqTransport

__all__ = ["DEFAULT_LISTEN", "open_node"]

DEFAULT_LISTEN = ("tcp://*:0",)
"""All interfaces, any free ports."""


@asynccontextmanager
async def open_node(
    name: str | None = None,
    *,
    home: str | os.PathLike[str] | None = None,
    mesh_name: str | None = None,
    listen: Sequence[str] | None = None,
    connect: Sequence[str] = (),
    discovery: Sequence[str] = ("mdns", "scout"),
    config: Config | None = None,
) -> AsyncIterator[Node]:
    """A node in the mesh, for as long as the block lasts.

    ``name`` is what peers see (default: the host's name and the process id).
    ``home`` is the folder with identity and credentials (default: ``MESH_HOME``, else the
    platform's user data folder); made on first use, with a mesh of its own named ``mesh_name``.
    ``listen`` are endpoints (``tcp://*:0``, ``tcp://*:7400``, ``ipc:///run/user/1000/kitchen``),
    ``connect`` are seeds (``tcp://cellar.local:7400``), ``discovery`` any of ``mdns``
    and ``scout``, or nothing.

    Entering waits, for a bounded time, for the peers that discovery reports at once.  Leaving drains
    what is queued for ``config.drain_timeout`` seconds, says goodbye, and closes everything.

    Raises ``ConfigError``, ``CredentialError``, ``TransportError``.
    """
    settings = Config.lan() if config is None else config
    where = Home(home)
    credentials = where.credentials(mesh_name=mesh_name)
    called = _check_name(name or f"{socket.gethostname().split('.')[0][:40]}-{os.getpid()}")
    link = _fresh_link_key()
    transport = ZmqTransport(
        tuple(DEFAULT_LISTEN if listen is None else listen), link, credentials.mesh, settings
    )
    node = Node(
        called,
        settings,
        papers(credentials),
        credentials.certificate.name,
        link.public,
        transport,
    )
    mechanisms = list(create(discovery, beacon_key=beacon_key(credentials.mesh), limits=settings.limits))
    # The daemon of this home, if one runs, knows the whole mesh already: ask it first.
    seeds = [*connect, *(endpoint for endpoint in where.daemon_endpoints() if endpoint not in (listen or ()))]
    if seeds:
        mechanisms.insert(0, Seeds(seeds))
    async with node.run(mechanisms):
        yield node


def papers(credentials: Credentials) -> Papers:
    """Credentials as the core takes them."""
    return Papers(
        mesh=credentials.mesh,
        ca_public_key=credentials.ca_public_key,
        key=credentials.key,
        certificate=credentials.certificate_bytes,
        secret=credentials.secret,
        secret_epoch=credentials.secret_epoch,
        revocations=credentials.revocations,
    )


def _fresh_link_key() -> LinkKey:
    secret = X25519PrivateKey.generate()
    return LinkKey(secret.public_key().public_bytes_raw(), secret.private_bytes_raw())


def _check_name(name: str) -> str:
    if not 0 < len(name) <= 64 or not name.isprintable():
        raise ConfigError(f"{name!r} is not a name of 1 to 64 printable characters", key="name")
    return name
