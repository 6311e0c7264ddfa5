"""All bridges of one program: opened together, closed together, each waiting for none of the others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

import mesh
from bridges.behind import behind
from bridges.bridge import Bridge, open_bridge
from bridges.settings import BridgeSettings

__all__ = ["open_bridges"]


@asynccontextmanager
async def open_bridges(
    node: mesh.Node, settings: Sequence[BridgeSettings], *, spool_folder: Path | None = None
) -> AsyncIterator[list[Bridge]]:
    """``open_bridge`` for each, for as long as the block lasts. Raises ``ConfigError``."""
    closing = trio.Event()
    bridges: list[Bridge] = []

    async def keep(one: BridgeSettings, *, task_status: trio.TaskStatus[Bridge]) -> None:
        async with open_bridge(node, one, spool_folder=spool_folder) as bridge:
            task_status.started(bridge)
            await closing.wait()

    async def leave(_: trio.Nursery) -> None:
        closing.set()

    async with behind(leave) as nursery:
        for one in settings:
            bridges.append(await nursery.start(keep, one))  # noqa: PERF401 - one after the other, as the file has them
        yield bridges
