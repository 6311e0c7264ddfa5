"""An asyncio loop in a thread of its own, driven from Trio: for clients that know no other loop.

    async with open_loop("name") as loop      the thread is there; it is gone when the block is left
        await loop.run(function, *args)       ``await function(*args)`` on the loop: Trio task → asyncio task → its
                                              outcome back. Cancelling the one cancels the other, and waits for it.
        loop.post(function, *args)            the same without waiting
        inbox = Inbox()                       what comes unasked: put on the loop, fetched in batches under Trio

The call itself runs on the loop, never a coroutine that was begun elsewhere: what it makes (futures, locks,
timers) belongs to that loop.  One crossing each way costs some 50 µs: cross with batches, not with messages.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager
from typing import Any, Final, Generic, TypeVar, TypeVarTuple

import trio

__all__ = ["Inbox", "Loop", "open_loop"]

_ROUNDS: Final = 16
"""Generations of tasks that are waited for at the end of a loop."""

_PATIENCE: Final = 1.0
"""Seconds for a cancelled generation to end."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Loop:
    """A running loop, from the thread of the Trio run that opened it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, token: trio.lowlevel.TrioToken) -> None:
        self._loop = loop
        self._token = token
        self._posted: set[asyncio.Task[None]] = set()  # a loop itself holds its tasks weakly

    async def run(self, function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """``await function(*args)`` on the loop; returns what it returns, raises what it raises.

        When cancelled the asyncio task is cancelled too, and waited for: if it comes to its end all the same
        the result is returned, as a thing that was done must be known to have been done.
        Raises ``concurrent.futures.CancelledError`` (asyncio's is no ``Exception``) if it was cancelled over there.
        """
        waiting = trio.lowlevel.current_task()
        errand: asyncio.Task[T] | None = None
        unwanted = False
        cancel: Callable[[], object] | None = None

        async def call() -> T:
            return await function(*args)

        def begin() -> None:
            nonlocal errand
            errand = self._loop.create_task(call())
            errand.add_done_callback(over)
            if unwanted:  # the order to cancel came before
                errand.cancel()

        def over(_: asyncio.Task[T]) -> None:
            self._token.run_sync_soon(trio.lowlevel.reschedule, waiting)

        def stop() -> None:
            if errand is not None:
                errand.cancel()

        def abort(raise_cancel: Callable[[], object]) -> trio.lowlevel.Abort:
            nonlocal unwanted, cancel
            unwanted, cancel = True, raise_cancel
            self._loop.call_soon_threadsafe(stop)
            return trio.lowlevel.Abort.FAILED

        await trio.lowlevel.checkpoint_if_cancelled()
        self._loop.call_soon_threadsafe(begin)
        await trio.lowlevel.wait_task_rescheduled(abort)
        try:
            assert errand is not None
            if errand.cancelled():
                if cancel is not None:
                    cancel()
                raise CancelledError("it was cancelled on its loop")
            return errand.result()
        finally:
            errand = None  # no circle through the traceback of what it raised

    def post(self, function: Callable[[*Ts], Coroutine[Any, Any, None]], *args: *Ts) -> None:
        """Begin ``await function(*args)`` on the loop and wait for nothing; in the order of these calls.

        ``function`` keeps its errors to itself.
        """

        def begin() -> None:
            task = self._loop.create_task(function(*args))
            self._posted.add(task)
            task.add_done_callback(self._posted.discard)

        self._loop.call_soon_threadsafe(begin)


@asynccontextmanager
async def open_loop(name: str) -> AsyncIterator[Loop]:
    """A loop in a thread called ``name``. Leaving the block cancels what still runs there, and ends the thread."""
    token = trio.lowlevel.current_trio_token()
    began, ended = trio.Event(), trio.Event()
    loop: asyncio.AbstractEventLoop | None = None
    leave: asyncio.Event | None = None

    async def stay() -> None:
        nonlocal loop, leave
        loop, leave = asyncio.get_running_loop(), asyncio.Event()
        token.run_sync_soon(began.set)
        await leave.wait()
        await _wind_down()

    def work() -> None:
        try:
            asyncio.run(stay())
        finally:
            token.run_sync_soon(ended.set)

    thread = threading.Thread(target=work, name=name, daemon=True)
    with trio.CancelScope(shield=True):
        thread.start()
        await began.wait()
    assert loop is not None
    assert leave is not None
    try:
        yield Loop(loop, token)
    finally:
        loop.call_soon_threadsafe(leave.set)
        with trio.CancelScope(shield=True):
            await ended.wait()
        thread.join()  # it has nothing left to do but to end


async def _wind_down() -> None:
    """Cancel every other task, and those that begin because these end, as clients' callbacks do.

    (``asyncio.run`` would look once. What then begins would be destroyed in the middle.)
    """
    for _ in range(_ROUNDS):
        for _ in range(2):  # callbacks of what has just ended run, and what they begin is there
            await asyncio.sleep(0)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if not others:
            return
        for task in others:
            task.cancel()
        await asyncio.wait(others, timeout=_PATIENCE)


class Inbox(Generic[T]):
    """Items on their way from the loop to one Trio task. Who puts bounds how many (a prefetch window)."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._items: deque[T] = deque()
        self._told = False
        self._news = trio.Event()
        self._error: Exception | None = None

    def __len__(self) -> int:
        return len(self._items)

    # On the loop.

    def put(self, item: T) -> None:
        self._items.append(item)
        self._tell()

    def fail(self, error: Exception) -> None:
        """Nothing comes any more: once all was fetched ``fetch`` raises this."""
        self._error = error
        self._tell()

    def _tell(self) -> None:
        # Both threads write the flag, each only its own value, and the reader looks again after it has
        # cleared it: a wake-up too many may happen, one too few can't.
        if not self._told:
            self._told = True
            try:
                self._token.run_sync_soon(self._wake)
            except trio.RunFinishedError:
                pass  # nobody is left to read it

    # In the Trio run.

    def _wake(self) -> None:
        self._told = False
        self._news.set()

    async def fetch(self, most: int) -> list[T]:
        """Wait for items: at least one, at most ``most``, in the order they came. Raises what ``fail`` was given."""
        while not self._items:
            if self._error is not None:
                await trio.lowlevel.checkpoint()
                raise self._error
            self._news = trio.Event()
            if self._items or self._error is not None:
                continue
            await self._news.wait()
        await trio.lowlevel.checkpoint()
        return [self._items.popleft() for _ in range(min(most, len(self._items)))]
