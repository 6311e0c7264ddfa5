"""User code on an asyncio loop, begun, awaited and cancelled from the portal's thread.

``Loop.run`` (a task of Trio's) → ``call_soon_threadsafe`` → a task of asyncio's → its result back by
the portal.  Cancelling the one cancels the other and waits, for a bounded time, for its end.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import CancelledError as HandlerCancelled
from contextlib import aclosing
from typing import Any

import trio

from mesh.portal.face import plain
from mesh.portal.thread import GRACE, Portal

__all__ = ["Loop"]


class Loop:
    """The loop and the context in which ``serve`` was called: its handlers run there."""

    def __init__(self, portal: Portal) -> None:
        self.loop = asyncio.get_running_loop()
        self.context = contextvars.copy_context()
        self.portal = portal

    def streams(self, function: Callable[..., Any]) -> bool:
        code = plain(function)
        if inspect.isgeneratorfunction(code):
            raise TypeError("a handler that streams is an async generator function here")
        return inspect.isasyncgenfunction(code)

    async def run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        async def handle() -> Any:
            result = function(*args)
            return await result if inspect.isawaitable(result) else result

        return await _Errand(self, handle).end()

    async def stream(self, function: Callable[..., Any], args: tuple[Any, ...]) -> AsyncGenerator[Any, None]:
        errand = _Errand(self, lambda: errand.hand_over(function(*args)))
        try:
            while await errand.step():
                yield errand.item
        finally:
            await errand.cancel()


class _Errand:
    """A task of asyncio's, begun, awaited and cancelled by a task of Trio's.

    Begun by ``end`` or ``step``.  A stream's items are handed over one by one: as under
    Trio, its generator goes on when an item was taken, not before.
    """

    def __init__(self, where: Loop, function: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self.item: Any = None
        self._where = where
        self._function = function
        self._task: asyncio.Task[Any] | None = None
        self._go_on: asyncio.Future[None] | None = None
        self._begun = False
        self._ended = False
        self._news = trio.Event()

    # In the node's thread.

    async def end(self) -> Any:
        """What the task returned; raises what it raised."""
        try:
            await self.step()
        except trio.Cancelled:
            await self.cancel()
            raise
        assert self._task is not None
        return self._task.result()

    async def step(self) -> bool:
        """Wait for the next item (True), or the end (False; raises what the task raised)."""
        self._news = trio.Event()
        self._on_loop(self._resume if self._begun else self._begin)
        self._begun = True
        await self._news.wait()
        if self._ended:
            assert self._task is not None
            if self._task.cancelled():
                raise HandlerCancelled("the handler was cancelled where it ran")
            self._task.result()
        return not self._ended

    async def cancel(self) -> None:
        """Cancel the task and wait for its end, for a bounded time: its loop may have stopped."""
        if self._begun and not self._ended:
            try:
                self._on_loop(self._stop)
            except RuntimeError:
                return  # the loop is closed, and the task with it
            with trio.move_on_after(GRACE, shield=True):
                while not self._ended:
                    self._news = trio.Event()
                    await self._news.wait()

    def _on_loop(self, function: Callable[[], object]) -> None:
        self._where.loop.call_soon_threadsafe(function)

    # On the loop.

    def _begin(self) -> None:
        self._task = self._where.loop.create_task(self._function(), context=self._where.context.copy())
        self._task.add_done_callback(self._end)

    def _resume(self) -> None:
        if self._go_on is not None and not self._go_on.done():
            self._go_on.set_result(None)

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _end(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            task.exception()  # seen: it is raised in the node's thread
        self._where.portal.soon(self._say, True)

    async def hand_over(self, items: AsyncGenerator[Any, None]) -> None:
        async with aclosing(items):
            async for item in items:
                self.item = item
                self._go_on = self._where.loop.create_future()
                self._where.portal.soon(self._say, False)
                await self._go_on

    def _say(self, ended: bool) -> None:
        self._ended = ended
        self._news.set()
