"""A nursery behind a program's block.

A plain nursery would wrap what the program raises in the block into a group, as if it were one of many
failures, and a cancellation would end the tasks in it before the block had a chance to end well.  Here

- the block's own exception passes as it is;
- a cancellation from outside reaches the block alone: the tasks go on until it has left (a node says goodbye,
  a request is taken back), and end then;
- a task that fails ends the block, and its failure is a group: a mistake of ours says so by its shape.

Ctrl-C is the program's affair: each task behind a node is protected from it (``enable_ki_protection``), so that
Trio hands it to the main task. It would leave a task half inside ``Event.wait``, which Trio does not forgive.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

__all__ = ["background"]


@asynccontextmanager
async def background() -> AsyncIterator[trio.Nursery]:
    """A nursery for tasks that end with the block. Its scope is theirs, not the block's."""
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as around:
            behind = _Behind()
            around.start_soon(behind.run)
            nursery = await behind.ready()
            try:
                yield nursery
            except trio.Cancelled:
                raise  # because a task failed, and it ends here; or of a scope around, and it ends there
            except BaseException as error:  # noqa: BLE001
                # Policy: it is the program's, and is raised again below.
                failure = error
            finally:
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


class _Behind:
    """The task that holds the nursery. (``nursery.start`` would wait for ever if it is cancelled already.)"""

    def __init__(self) -> None:
        self._opened = trio.Event()
        self._nursery: trio.Nursery

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as self._nursery:
                self._opened.set()
                await trio.sleep_forever()

    async def ready(self) -> trio.Nursery:
        with trio.CancelScope(shield=True):
            await self._opened.wait()
        return self._nursery
