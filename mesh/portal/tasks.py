"""The asyncio style: what crosses the portal is awaited by a task.

A coroutine here → a call there → ``call_soon_threadsafe`` back.  Cancelling the task cancels the call
and waits for its end.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Any, ClassVar, Final, Self

from mesh.errors import NodeClosed
from mesh.node.posting import Post
from mesh.portal.errand import Loop
from mesh.portal.face import Face, Gate, Style, Visitor
from mesh.portal.thread import Portal
from mesh.portal.visit import Stay, Visit

__all__ = ["Asyncio", "Opening"]

_FAIR: Final = 128
"""Publishes between two yields to the loop: about 1 ms of it."""


class _Waiter:
    """Something that a task waits for and the node's thread says."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()
        self._news: deque[Callable[[], object]] = deque()
        self._done = False

    def set(self) -> None:
        """It is so. From any thread."""
        self._wake(True)

    def run(self, function: Callable[[], object]) -> None:
        """Let the waiting task call ``function`` meanwhile. From any thread."""
        self._news.append(function)
        self._wake(False)

    def _wake(self, done: bool) -> None:
        try:
            self._loop.call_soon_threadsafe(self._woken, done)
        except RuntimeError:
            pass  # the loop is closed: nobody waits

    def _woken(self, done: bool) -> None:
        self._done = self._done or done
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self, cancel: Callable[[], object]) -> None:
        """Return when it is so. A cancelled task calls ``cancel()`` and waits on: that ends it soon."""
        failure: BaseException | None = None
        while True:
            try:
                await self._future
                while self._news:
                    self._news.popleft()()
            except GeneratorExit:
                cancel()  # nobody drives this coroutine any more: no waiting
                raise
            except BaseException as error:  # noqa: BLE001
                # Policy: cancelled, or the caller's own function raised; what was asked for ends first.
                failure = error
                cancel()
            if self._done:
                break
            self._future = self._loop.create_future()
        if failure is not None:
            try:
                raise failure
            finally:
                del failure


class _Gate(Gate):
    """A portal as asyncio's tasks use it."""

    posted = 0

    async def cross(self, function: Callable[[], Awaitable[Any]]) -> Any:
        waiter = _Waiter()
        call = self.portal.call(function, waiter.set)
        call.begin()
        await waiter.wait(call.cancel)
        return self.wrap(call.result())

    async def host(self, visitor: Visitor) -> Any:
        waiter = _Waiter()
        started = visitor.started
        function = visitor.land(Loop(self.portal), lambda: None if started is None else waiter.run(started))
        call = self.portal.call(function, waiter.set)
        call.begin()
        await waiter.wait(call.cancel)
        if visitor.until_cancelled and isinstance(call.error, NodeClosed):
            return None
        return self.wrap(call.result())


# -- entering and iterating ------------------------------------------------------------------


class _Block:
    """The asyncio side of a ``Stay``."""

    def __init__(self, stay: Stay, *also: Callable[[], object]) -> None:
        self._stay = stay
        self._ended = _Waiter()
        self._also = also  # told of its end too

    async def enter(self) -> Any:
        stay = self._stay
        entered = _Waiter()

        def ended() -> None:
            self._ended.set()
            for tell in self._also:
                tell()

        stay.start(entered.set, ended)
        try:
            await entered.wait(stay.cancel)
        except BaseException:
            await self._end()
            raise
        if not stay.inside:
            await self._end()
            raise NodeClosed if stay.error is None else stay.error
        return stay.value

    async def leave(self) -> None:
        self._stay.leave()
        await self._end()
        if self._stay.error is not None:
            raise self._stay.error

    async def _end(self) -> None:
        try:
            await self._ended.wait(self._stay.cancel)
        except asyncio.CancelledError:
            self._stay.finish()
            raise
        self._stay.finish()


class _Entered(Face):
    __slots__ = ()

    async def __aenter__(self) -> Any:
        block = _Block(Visit(self._gate.portal, self._target))
        value = await block.enter()
        self._stay = block
        return self if value is self._target else self._gate.wrap(value)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._gate.portal.forked:  # what the parent opened, the parent leaves
            await self._stay.leave()


class _Iterated(Face):
    __slots__ = ()
    _lock = asyncio.Lock

    def __aiter__(self) -> Self:
        self._begin()
        return self

    async def __anext__(self) -> Any:
        buffer = self._buffer
        while not buffer:
            async with self._fetching:  # what one task fetches is there for all
                if not buffer and not await self._gate.cross(self._fetch):
                    raise StopAsyncIteration
        return buffer.popleft()


class Asyncio(Style):
    """Faces whose methods are coroutine functions."""

    module = "mesh.aio"
    entered = _Entered
    iterated = _Iterated
    faces: ClassVar[dict[type, type[Face] | None]] = {}

    @classmethod
    def method(cls, function: Callable[..., Any]) -> Callable[..., Any]:
        async def method(face: Face, *args: Any, **named: Any) -> Any:
            return await function(face, *args, **named)

        return method

    @classmethod
    def posting(cls, original: Callable[..., Any], judge: Callable[..., Post | None]) -> Callable[..., Any]:
        async def method(face: Face, *args: Any, **named: Any) -> None:
            post = judge(face._target, *args, **named)
            gate: Any = face._gate
            if post is None:
                await gate.cross(partial(original, face._target, *args, **named))
                return
            gate.portal.check()
            posting = gate.posting
            if posting.full:
                await gate.cross(posting.wait_room)
            posting.append(post)
            gate.posted += 1
            if gate.posted % _FAIR == 0:
                await asyncio.sleep(0)

        return method


# -- opening -------------------------------------------------------------------------------------


class Opening:
    """What ``open_node`` returns: the block in which the node is open.

    The node lives in an asynchronous generator, because that is what ``asyncio.run`` closes at
    its end, and the garbage collector too, when nobody else did.  If the node itself fails,
    the task that opened it is cancelled, and the block raises the failure instead.
    """

    def __init__(self, manager: AbstractAsyncContextManager[Any]) -> None:
        self._portal = Portal(manager, "mesh node")
        self._life = self._live()
        self._task: asyncio.Task[Any] | None = None
        self._opened = False
        self._cancelling = 0
        self._failed = False

    async def _live(self) -> AsyncGenerator[Any, None]:
        gate = _Gate(self._portal, Asyncio)
        block = _Block(self._portal, self._interrupter())
        node = await block.enter()
        try:
            yield gate.wrap(node)
        finally:
            self._task = None
            await block.leave()

    def _interrupter(self) -> Callable[[], None]:
        loop = asyncio.get_running_loop()

        def interrupt() -> None:
            if self._task is not None:
                self._failed = True
                self._task.cancel("the node failed")

        def ended() -> None:
            try:
                loop.call_soon_threadsafe(interrupt)
            except RuntimeError:
                pass  # the loop is closed: nobody is in the block

        return ended

    async def __aenter__(self) -> Any:
        if self._opened:
            raise RuntimeError("a node is opened once: call open_node again")
        self._opened = True
        node = await anext(self._life)
        self._task = asyncio.current_task()
        self._cancelling = 0 if self._task is None else self._task.cancelling()
        return node

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._portal.forked:
            return  # the node is the parent's
        task, self._task = self._task, None
        try:
            await self._life.aclose()
        finally:
            # What we cancelled the task for is raised in the place of its cancellation.
            if self._failed and task is not None and task.uncancel() <= self._cancelling:
                failure = self._portal.error
                if failure is not None:
                    raise failure from None
