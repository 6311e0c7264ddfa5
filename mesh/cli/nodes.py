"""A node for the time of one command, and the small waits that such a node needs.

A node that has just been opened knows whom discovery reported at once.  A command that is
going to do one thing and end gives the others a moment more: ``grace`` seconds.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

import trio

import mesh
from mesh.cli.base import at_home, home_settings, usage
from mesh.settings.forms import reject_dial

__all__ = ["GRACE", "joined", "patiently", "peer_named", "wait_for_company"]

GRACE: Final = 1.0
"""Seconds for which a command that found nobody, or nobody who serves, waits for somebody."""


@asynccontextmanager
async def joined(
    folder: Path | None, *, name: str | None = None, connect: Sequence[str] | None = None
) -> AsyncIterator[mesh.Node]:
    """A node in the mesh of this home, with the seeds and the discovery of its ``mesh.toml``."""
    home = at_home(folder)
    settings = home_settings(home).node
    for endpoint in connect or ():
        wrong = reject_dial(endpoint)
        if wrong is not None:
            usage(f"--connect {endpoint}: {wrong}")
    if name is None:
        # Of one member several commands may run at once, beside its daemon: names that can be told apart.
        name = f"{home.credentials().certificate.name[:50]}-{os.getpid()}"
    async with mesh.open_node(
        name,
        home=home.path,
        connect=(*settings.connect, *(connect or ())),
        discovery=settings.discovery,
        config=settings.config,
    ) as node:
        yield node


async def wait_for_company(node: mesh.Node, *, grace: float = GRACE) -> bool:
    """Wait a moment for the first peer; whether there is one."""
    with trio.move_on_after(grace):
        await node.wait_for_peers(1)
    return bool(node.peers)


async def peer_named(node: mesh.Node, wanted: str, *, grace: float = 2.0) -> list[mesh.Peer]:
    """The peers with this name or id (several may have one name), waiting a moment for the first.

    Raises ``UnknownPeer``.
    """
    with trio.move_on_after(grace):
        async for event in node.watch_peers():
            if wanted in (event.peer.id, event.peer.name):
                break
    found = [peer for peer in node.peers.values() if wanted in (peer.id, peer.name)]
    if not found:
        raise mesh.UnknownPeer(wanted)
    return found


T = TypeVar("T")


async def patiently(ask: Callable[[], Awaitable[T]], *, grace: float = GRACE) -> T:
    """``ask`` again while nobody serves, for a moment: responders may just be being introduced.

    Raises what ``ask`` raised last.
    """
    patience = trio.current_time() + grace
    while True:
        try:
            return await ask()
        except mesh.NoResponders:
            if trio.current_time() >= patience:
                raise
            await trio.sleep(0.05)
