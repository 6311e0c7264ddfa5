"""A nursery behind a program's block, whose own exception passes as it is.

A plain nursery would wrap what the program raises in its block into a group, as if it were one of many failures.
(A node does more, in ``mesh/node/background.py``; bridges use only what is public of ``mesh``.)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

__all__ = ["behind"]


@asynccontextmanager
async def behind(leave: Callable[[trio.Nursery], Awaitable[None]]) -> AsyncIterator[trio.Nursery]:
    """``leave`` is awaited when the block has ended, however it did: it sees to it that the tasks end, too."""
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        except BaseException as error:  # noqa: BLE001
            # Policy: it is the program's, and is raised again below, not wrapped in a group.
            failure = error
        await leave(nursery)
    if failure is not None:
        raise failure
