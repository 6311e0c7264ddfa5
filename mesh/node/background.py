"""A nursery behind a program's block.

A plain nursery would wrap what the program raises in the block into a group, as if it were one of many
failures.  Here the block's own exception passes as it is, the tasks behind it end with it, and only
their failures are groups: each is a mistake of ours, and says so by its shape.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

__all__ = ["background"]


@asynccontextmanager
async def background() -> AsyncIterator[trio.Nursery]:
    """A nursery for tasks that end with the block."""
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except trio.Cancelled:
                raise  # of this nursery, which ends it here, or of one around, which ends it there
            except BaseException as error:  # noqa: BLE001
                # Policy: it is the program's, and is raised again below.
                failure = error
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is not None:
            # Ctrl-C may be noticed in any task: it is the program's, not a failure of that task.
            raise KeyboardInterrupt from None
        if failure is None:
            raise
        raise BaseExceptionGroup("a task behind the block failed too", [failure, group]) from None
    try:
        if failure is not None:
            raise failure
    finally:
        del failure
