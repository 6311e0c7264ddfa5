"""An async context manager of the node's, entered and left from outside.

A Trio manager must be entered and left by one task: a visit is that task.  ``start`` →
``entered()`` once inside → ``leave`` → ``ended()``; the same steps as a ``Portal``'s own, which
is the visit of the node itself.  The exception of a program's block stays in the program's
thread: for the manager, leaving is leaving.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import trio

from mesh.errors import NodeClosed
from mesh.portal.thread import Call, Portal

__all__ = ["Stay", "Visit"]


class Stay(Protocol):
    """What ``Portal`` and ``Visit`` have in common: something to be inside of."""

    @property
    def value(self) -> Any:
        """What entering gave."""

    @property
    def inside(self) -> bool:
        """It was entered."""

    @property
    def error(self) -> BaseException | None:
        """What it ended with, after ``ended``."""

    def start(self, entered: Callable[[], object], ended: Callable[[], object]) -> None: ...
    def leave(self) -> None: ...
    def cancel(self) -> None: ...
    def finish(self) -> None: ...


class Visit:
    """One block in which ``manager`` is open."""

    def __init__(self, portal: Portal, manager: AbstractAsyncContextManager[Any]) -> None:
        self.value: Any = None
        self.inside = False
        self._portal = portal
        self._manager = manager
        self._leave = trio.Event()
        self._call: Call[None] | None = None

    def start(self, entered: Callable[[], object], ended: Callable[[], object]) -> None:
        self._entered = entered

        def over() -> None:
            entered()
            ended()

        self._call = self._portal.call(self._stay, over)
        self._call.begin()

    async def _stay(self) -> None:
        async with self._manager as value:
            try:
                self.value = value
                self.inside = True
                self._entered()
                await self._leave.wait()
                await self._portal.settle()
            finally:
                if inspect.isasyncgen(value):
                    with trio.CancelScope(shield=True):
                        await _close(value)

    def leave(self) -> None:
        """Leave the block, in order. From any thread; returns at once."""
        self._portal.soon(self._leave.set)

    def cancel(self) -> None:
        """Leave it without waiting for anything that can be cancelled."""
        if self._call is not None:
            self._call.cancel()

    def finish(self) -> None:
        """Nothing of it is left after ``ended``."""

    @property
    def error(self) -> BaseException | None:
        """What entering or leaving raised. That the node closed meanwhile is no error of a block."""
        error = None if self._call is None else self._call.error
        return None if self.inside and isinstance(error, NodeClosed) else error


async def _close(items: AsyncGenerator[Any, Any]) -> None:
    """What the block iterated ends with it: a generator left half-way would complain later."""
    try:
        await items.aclose()
    except RuntimeError:
        pass  # another thread waits in it, and is told by the manager's end
