"""What a bridge is told, frozen: its broker's address, its routes, its spool.

``config`` makes these from a ``[[bridge]]`` table; programs may make them themselves.  The adapter of a broker
finds what is its own in ``options`` (of the bridge and of each route), checked by the forms of its ``Kind``.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Literal

from bridges.forms import Secret
from bridges.mapping import SourcePattern, Template
from mesh.errors import ConfigError

__all__ = [
    "SPOOL_BYTES",
    "Address",
    "BridgeSettings",
    "ExportRoute",
    "Format",
    "ImportRoute",
    "SpoolSettings",
    "Tls",
    "WhenFull",
]

Format = Literal["raw", "json", "cbor"]
WhenFull = Literal["block", "drop_oldest", "drop_newest"]

SPOOL_BYTES: Final = 256 << 20
"""A bridge's spool by default: minutes of a busy mesh, hours of a quiet one, and no disk is full of it."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the broker is. ``str()`` shows it without credentials."""

    scheme: str
    hosts: tuple[tuple[str, int], ...]
    path: str = ""
    """What follows the hosts, without the slash: a database, a virtual host."""
    username: str = ""
    password: Secret = field(default=Secret(""))
    tls: bool = False

    @property
    def host(self) -> str:
        return self.hosts[0][0]

    @property
    def port(self) -> int:
        return self.hosts[0][1]

    @property
    def loopback(self) -> bool:
        """All hosts are this machine."""
        return all(_is_loopback(host) for host, _ in self.hosts)

    def __str__(self) -> str:
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"{self.scheme}://{hosts}" + (f"/{self.path}" if self.path else "")


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761 §6.3
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files: ``ca`` instead of the system's authorities, ``certificate`` and ``key`` of our own."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class ExportRoute:
    """Mesh → broker. With ``request``, requests of the mesh that a worker at the broker answers."""

    number: int
    """From 1, as the file has it."""
    pattern: str
    to: Template
    separator: str
    reliable: bool = False
    format: Format = "raw"
    decrypt: bool = True
    request: bool = False
    timeout: float = 5.0
    dead_letter: str = ""
    """The mesh topic for what cannot be brought to the broker; none if empty."""
    templates: Mapping[str, Template] = field(default_factory=dict)
    """The kind's further templates (``Kind.export_templates``), by key; filled in ``BrokerMessage.filled``."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The keys of this route that only its kind knows (``Kind.export_options``)."""

    @property
    def name(self) -> str:
        """For logs and statistics."""
        return f"export[{self.number}]"


@dataclass(frozen=True, slots=True)
class ImportRoute:
    """Broker → mesh. With ``request``, requests of the broker's clients that the mesh answers."""

    number: int
    """From 1, as the file has it."""
    source: SourcePattern
    topic: Template
    separator: str
    reliable: bool = False
    format: Format = "raw"
    decrypt: bool = True
    request: bool = False
    timeout: float = 5.0
    options: Mapping[str, Any] = field(default_factory=dict)
    """The keys of this route that only its kind knows (``Kind.import_options``)."""

    @property
    def name(self) -> str:
        """For logs and statistics."""
        return f"import[{self.number}]"


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """What waits on disk for a broker that is away. ``folder`` None: the default that the program has for it."""

    folder: Path | None = None
    bytes: int = SPOOL_BYTES
    full: WhenFull = "block"


@dataclass(frozen=True, slots=True)
class BridgeSettings:
    """One bridge."""

    kind: str
    name: str
    address: Address
    exports: tuple[ExportRoute, ...] = ()
    imports: tuple[ImportRoute, ...] = ()
    tls: Tls = field(default=Tls())
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Settings that only the kind knows (``Kind.options``); they may hold secrets."""
    spool: SpoolSettings = field(default=SpoolSettings())

    @property
    def verify(self) -> bool:
        """Whether the broker must prove who it is: always, but for a loopback without an authority of its own."""
        return not self.address.loopback or self.tls.ca is not None

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context to connect with, None for a plain connection. Raises ``ConfigError``."""
        if not self.address.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.tls.ca)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(f"{self.tls.ca}: {_reason(error)}", key="tls.ca") from None
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.tls.certificate is not None:
            try:
                context.load_cert_chain(self.tls.certificate, self.tls.key)
            except OSError as error:
                raise ConfigError(
                    f"{self.tls.certificate}: {_reason(error)}", key="tls.certificate"
                ) from None
        return context


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
