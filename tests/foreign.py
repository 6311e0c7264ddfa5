"""What the tests of ``mesh.aio`` and ``mesh.sync`` share: nodes on the loopback, managers that fail."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import trio

from mesh.config import Config


def settings(home: Path, *seeds: str) -> dict[str, Any]:
    """Arguments of ``open_node``: reachable on the loopback alone, found by seeds alone."""
    return {
        "home": home,
        "listen": ["tcp://127.0.0.1:0"],
        "connect": seeds,
        "discovery": (),
        "config": Config.local(),
    }


@contextmanager
def no_threads_left() -> Iterator[None]:
    """The block ends with the threads with which it began."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


class Broke(Exception):
    """A manager's own failure."""


class Trigger:
    """Makes ``breaking`` fail, from any thread."""

    def __init__(self) -> None:
        self._token: trio.lowlevel.TrioToken | None = None
        self._event = trio.Event()

    def arm(self) -> None:
        self._token = trio.lowlevel.current_trio_token()

    def pull(self) -> None:
        assert self._token is not None
        self._token.run_sync_soon(self._event.set)

    async def wait(self) -> None:
        await self._event.wait()


@asynccontextmanager
async def breaking(trigger: Trigger) -> AsyncIterator[str]:
    """A stand-in of a node whose inside fails when the trigger is pulled."""
    trigger.arm()

    async def fail() -> None:
        await trigger.wait()
        raise Broke

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail)
        yield "inside"
        nursery.cancel_scope.cancel()
