"""Which of a peer's addresses to use."""

from __future__ import annotations

from collections.abc import Sequence

from mesh.core.types import Address

__all__ = ["choose_address", "host_of"]


def host_of(endpoint: str) -> str:
    """The host part of ``tcp://host:port``; empty for ipc."""
    if not endpoint.startswith("tcp://"):
        return ""
    return endpoint[6:].rpartition(":")[0].strip("[]")


def choose_address(addresses: Sequence[Address], *, intro: str = "", host: str = "") -> Address | None:
    """Which of a peer's addresses to use.

    ``intro`` is the intro endpoint of it that answered us, ``host`` the address
    its own link comes from. Behind a name or a translated address the record
    lists neither: then the ports of its first TCP address at the host that answered.
    """
    for address in addresses:
        if intro and address.intro == intro:
            return address
    for address in addresses:
        if host and host_of(address.intro) == host:
            return address
    if intro.startswith("tcp://"):
        where = intro[6:].rpartition(":")[0]
        for address in addresses:
            if address.intro.startswith("tcp://"):
                return Address(
                    intro,
                    f"tcp://{where}:{address.direct.rpartition(':')[2]}",
                    f"tcp://{where}:{address.broadcast.rpartition(':')[2]}",
                )
    if not host:  # a link over a Unix socket has no address
        for address in addresses:
            if address.intro.startswith("ipc://"):
                return address
    return None
