"""A Trio run in a thread of its own, and the calls that cross into it.

A caller's thread: ``call`` → the run's entry queue → a task in the ``calls`` nursery, in a
cancel scope of its own → value or error → ``ended()``, which wakes the caller as its kind is
woken.  ``hop`` is the short way for what needs no task: run between two ticks, the
caller's thread waits.  User code never runs here.

Whoever leaves first ends all calls, then leaves the manager (the node drains and says
goodbye), then the run; the thread is gone when ``finish`` returns.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Generic, Protocol, TypeVar

import trio

from mesh.errors import ForkError, NodeClosed

__all__ = ["GRACE", "Call", "Portal", "Posts"]

T = TypeVar("T")

GRACE: Final = 2.0
"""Seconds that user code gets to end after it was cancelled, before the node goes on without it."""

_AT_EXIT: Final = 10.0
"""Seconds that a node nobody closed may take to say goodbye when the interpreter ends."""

_OPEN: Final[weakref.WeakSet[Portal]] = weakref.WeakSet()


class Posts(Protocol):
    """What was handed over without waiting, and must be done before any later call."""

    def drain(self) -> None:
        """Do what can be done now. Never waits."""

    async def drained(self) -> None:
        """Do all of it."""

    async def run(self) -> None:
        """Do what had to wait, until cancelled."""


class Call(Generic[T]):
    """``await function()`` in the node's thread. ``ended`` is called, from any thread, when it is over.

    ``begin`` raises nothing, and after it (even if Ctrl-C cut it short) ``cancel`` always leads to ``ended``.
    """

    __slots__ = ("_ended", "_function", "_known", "_portal", "_scope", "_value", "error", "finished")

    _value: T

    def __init__(
        self, portal: Portal, function: Callable[[], Awaitable[T]], ended: Callable[[], object]
    ) -> None:
        self._portal = portal
        self._function = function
        self._ended = ended
        self._scope = trio.CancelScope()
        self._known = False  # to the node's thread
        self.error: BaseException | None = None
        self.finished = False  # it came to its own end; else it was cancelled or raised

    def begin(self) -> None:
        """Let it run soon, after what was begun and posted before."""
        if not self._portal.soon(self._begin):
            self._refuse()

    def cancel(self) -> None:
        """Cancel it, from any thread. It ends soon."""
        if not self._portal.soon(self._cancel):
            self._ended()

    # In the node's thread.

    def _begin(self) -> None:
        self._known = True
        calls = self._portal.calls
        if calls is None:
            self._refuse()
            return
        try:
            calls.start_soon(self._run)
        except RuntimeError:  # the nursery is closed, and its task has not run since
            self._refuse()

    def _cancel(self) -> None:
        if self._known:
            self._scope.cancel()
        else:
            self._refuse()

    def _refuse(self) -> None:
        self.error = NodeClosed()
        self._ended()

    async def _run(self) -> None:
        try:
            with self._scope:
                await self._portal.settle()
                self._value = await self._function()
                self.finished = True
        except BaseException as error:  # noqa: BLE001
            # Policy: what a call raises is for its caller alone, whatever it is; a cancelled
            # run ends this task with it.
            self.error = _without_cancelled(error)
        finally:
            self._ended()

    def result(self) -> T:
        """Its value; raises what it raised. To be called once, after ``ended``."""
        if self.finished:
            return self._value
        error, self.error = self.error, None
        try:
            raise NodeClosed if error is None else error
        finally:
            del error  # no circle through this frame's traceback


def _without_cancelled(error: BaseException) -> BaseException:
    """Only the portal's end cancels from outside of a call's own scope."""
    if isinstance(error, BaseExceptionGroup):
        rest = error.split(trio.Cancelled)[1]
        return NodeClosed() if rest is None else rest
    return NodeClosed() if isinstance(error, trio.Cancelled) else error


class Portal:
    """A Trio context manager, entered and left in a thread of its own.

    ``start`` → ``entered()`` when it is inside, ``ended()`` when all is over (both are called
    in the portal's thread; ``entered()`` also when it ends without having been inside) → ``finish``.
    """

    def __init__(self, manager: AbstractAsyncContextManager[Any], name: str) -> None:
        self.pid = os.getpid()
        self.value: Any = None
        self.inside = False
        self.error: BaseException | None = None
        self.posts: Posts | None = None
        self._manager = manager
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope = trio.CancelScope()
        self.calls: trio.Nursery | None = None  # the calls under way, while it is inside
        self._leave = trio.Event()
        self._cancelled = False
        self._over = False

    # -- its life ---------------------------------------------------------------

    def start(self, entered: Callable[[], object], ended: Callable[[], object]) -> None:
        self._entered, self._ended = entered, ended
        self._thread.start()
        _OPEN.add(self)

    def leave(self) -> None:
        """End the calls, leave the manager, end the thread. From any thread; returns at once."""
        self.soon(self._leave.set)

    def cancel(self) -> None:
        """Like ``leave``, without waiting for anything that can be cancelled."""
        # The thread reads the flag after it has set the token, so one of the two is seen.
        self._cancelled = True
        self.soon(self._scope.cancel)

    def finish(self) -> None:
        """Wait for the thread itself, after ``ended``."""
        self._thread.join()

    def _run(self) -> None:
        try:
            trio.run(self._main)
        except BaseException as error:  # noqa: BLE001
            # Policy: what ends the run is for the program's thread, which asks for ``error``.
            self.error = error
        self._over = True
        self.calls = None
        _OPEN.discard(self)
        self._entered()
        self._ended()

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            if self._cancelled:
                self._scope.cancel()
            async with self._manager as self.value:
                async with trio.open_nursery() as self.calls:
                    if self.posts is not None:
                        self.calls.start_soon(self.posts.run)
                    self.inside = True
                    self._entered()
                    await self._leave.wait()
                    with trio.move_on_after(GRACE):
                        await self.settle()
                    self.calls.cancel_scope.cancel()
                self.calls = None

    # -- crossings ----------------------------------------------------------------

    @property
    def over(self) -> bool:
        """The thread is done with what it ran."""
        return self._over

    @property
    def forked(self) -> bool:
        """We are in a forked child, and the thread is not."""
        return os.getpid() != self.pid

    def check(self) -> None:
        """Raises ``ForkError`` in a forked child."""
        if os.getpid() != self.pid:
            raise ForkError(self.pid, os.getpid())

    async def settle(self) -> None:
        """Do what was posted before."""
        if self.posts is not None:
            await self.posts.drained()

    def soon(self, function: Callable[..., object], *args: object) -> bool:
        """Run a function that raises nothing in the thread, in the order of these calls. False if it's over."""
        if self._token is None or os.getpid() != self.pid:
            return False
        try:
            self._token.run_sync_soon(function, *args)
        except trio.RunFinishedError:
            return False
        return True

    def call(self, function: Callable[[], Awaitable[T]], ended: Callable[[], object]) -> Call[T]:
        """A call, to be begun. Raises ``ForkError``."""
        self.check()
        if threading.get_ident() == self._thread.ident:
            raise RuntimeError("this would wait in the node's own thread for that thread")
        return Call(self, function, ended)

    def hop(self, function: Callable[[], T]) -> T:
        """``function()``, run in the thread between two ticks while the caller's waits.

        Once the thread is done nobody else touches what it ran, and the function runs right here.
        """
        self.check()
        if self._over or threading.get_ident() == self._thread.ident:
            return function()
        done = threading.Lock()
        done.acquire()
        outcome: list[T] = []
        failure: list[BaseException] = []

        def run() -> None:
            try:
                if self.posts is not None:
                    self.posts.drain()
                outcome.append(function())
            except BaseException as error:  # noqa: BLE001
                # Policy: it belongs to the caller, in the other thread.
                failure.append(error)
            finally:
                done.release()

        if not self.soon(run):
            self._thread.join()
            return function()
        done.acquire()
        if failure:
            raise failure.pop()
        return outcome.pop()


def _at_exit() -> None:
    """Nodes that nobody closed still say goodbye. (Their threads are daemons: nobody waits for them.)"""
    for portal in list(_OPEN):
        if portal.pid == os.getpid():
            portal.leave() if portal.inside else portal.cancel()
            portal._thread.join(_AT_EXIT)


atexit.register(_at_exit)
