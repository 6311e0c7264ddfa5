"""``open_node``: from a home folder and a few words to a running node.

home → credentials → ``Papers``; a fresh link key → transport; names of mechanisms →
discovery; all of it → ``Node``.  This is the one place that knows all the layers.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mesh.config import Config, Rule
from mesh.core.fields import check_name
from mesh.core.handshake import Papers
from mesh.core.keys import beacon_key
from mesh.core.sealing import Vault
from mesh.discovery.factory import create
from mesh.discovery.seeds import Seeds
from mesh.errors import ConfigError
from mesh.home import Credentials, Home
from mesh.home.home import host_name
from mesh.home.keeping import Keeping
from mesh.node.node import Node
from mesh.settings import load
from mesh.transport.base import LinkKey
from mesh.transport.zmqtransport import ZmqTransport

__all__ = ["DEFAULT_LISTEN", "open_node", "open_vault"]

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
    settings = _settings(config)
    endpoints = _endpoints("listen", DEFAULT_LISTEN if listen is None else listen)
    seeds = _endpoints("connect", connect)
    called = f"{host_name()}-{os.getpid()}" if name is None else name
    wrong = check_name(called)
    if wrong is not None:
        raise ConfigError(f"{called!r}: {wrong}", key="name")
    where = home if isinstance(home, Home) else Home(home)  # the daemon's own knows what it has unlocked
    if settings.rules is None:
        settings = replace(settings, rules=_rules(where))
    credentials = where.credentials(mesh_name=mesh_name)
    link = _fresh_link_key()
    transport = ZmqTransport(endpoints, link, credentials.mesh, settings)
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
    seeds += [endpoint for endpoint in where.daemon_endpoints() if endpoint not in endpoints]
    if seeds:
        mechanisms.insert(0, Seeds(seeds))
    keeping = Keeping(where, credentials, node)
    async with node.run(mechanisms, keeping.run):
        yield node


def open_vault(home: str | os.PathLike[str] | None = None) -> Vault:
    """What a home knows, to open (and seal) values without a node: ``open_vault().open(data)``.

    Raises ``CredentialError``.
    """
    credentials = Home(home).credentials(create=False)
    return Vault(credentials.secret, credentials.secret_epoch, os.urandom)


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
        revocations_bytes=credentials.revocations_bytes,
    )


def _rules(home: Home) -> tuple[Rule, ...]:
    """The rules of the home's ``mesh.toml``: whoever opens a node with it goes by them. Raises ``ConfigError``."""
    file = home.path / "mesh.toml"
    return load(file).allow if file.exists() else ()


def _fresh_link_key() -> LinkKey:
    secret = X25519PrivateKey.generate()
    return LinkKey(secret.public_key().public_bytes_raw(), secret.private_bytes_raw())


def _settings(config: Config | None) -> Config:
    given: object = config
    if given is None:
        return Config.lan()
    if not isinstance(given, Config):
        raise ConfigError(f"{given!r} is not a mesh.Config: Config.lan() makes one", key="config")
    return given


def _endpoints(key: str, given: Sequence[str]) -> list[str]:
    if isinstance(given, str):
        raise ConfigError(f"expected a list of endpoints, got {given!r}", key=key)
    endpoints: list[object] = list(given)
    for endpoint in endpoints:
        if not isinstance(endpoint, str):
            raise ConfigError(f"{endpoint!r} is not an endpoint such as tcp://*:7400", key=key)
    return list(given)
