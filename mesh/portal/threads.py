"""The plain style: what crosses the portal is waited for by a thread.

A call here → a call there → a word back through a queue that only this call's thread reads.
Ctrl-C while waiting cancels the call and waits for its end.  Handlers run in worker threads,
as many as ``concurrency`` says; a thread can't be cancelled, so a handler whose request is
cancelled runs on to its end, holds its worker until then, and its result is dropped.
"""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for_futures
from contextlib import AbstractAsyncContextManager
from functools import partial
from queue import SimpleQueue
from threading import Lock
from types import TracebackType
from typing import Any, ClassVar

import trio

from mesh.errors import NodeClosed
from mesh.node.posting import Post
from mesh.portal.face import Face, Gate, Style, Visitor, plain
from mesh.portal.thread import GRACE, Portal
from mesh.portal.visit import Stay, Visit

__all__ = ["Opening", "Threads"]


class _Waiter:
    """Something that a thread waits for and the node's thread says."""

    def __init__(self) -> None:
        self._news: SimpleQueue[Callable[[], object] | None] = SimpleQueue()

    def set(self) -> None:
        """It is so. From any thread."""
        self._news.put(None)

    def run(self, function: Callable[[], object]) -> None:
        """Let the waiting thread call ``function`` meanwhile. From any thread."""
        self._news.put(function)

    def wait(self, cancel: Callable[[], object], begin: Callable[[], object] | None = None) -> None:
        """Call ``begin()`` and return when it is so.

        Ctrl-C calls ``cancel()`` and waits on; a second one waits no more.
        """
        failure: BaseException | None = None
        while True:
            try:
                if begin is not None:
                    first = begin
                    begin = None
                    first()
                function = self._news.get()
                if function is None:
                    break
                function()
            except BaseException as error:
                # Policy: interrupted, or the caller's own function raised; what was asked for ends first.
                if failure is not None:
                    raise
                failure = error
                cancel()
        if failure is not None:
            try:
                raise failure
            finally:
                del failure


class _Gate(Gate):
    """A portal as plain threads use it."""

    def cross(self, function: Callable[[], Awaitable[Any]]) -> Any:
        waiter = _Waiter()
        call = self.portal.call(function, waiter.set)
        waiter.wait(call.cancel, call.begin)
        return self.wrap(call.result())

    def host(self, visitor: Visitor) -> Any:
        waiter = _Waiter()
        started = visitor.started
        pool = _Pool(self.portal, visitor.concurrency)
        try:
            function = visitor.land(pool, lambda: None if started is None else waiter.run(started))
            call = self.portal.call(function, waiter.set)
            waiter.wait(call.cancel, call.begin)
        finally:
            pool.finish()
        if visitor.until_cancelled and isinstance(call.error, NodeClosed):
            return None
        return self.wrap(call.result())


# -- entering and iterating ------------------------------------------------------------------


class _Block:
    """The thread's side of a ``Stay``."""

    def __init__(self, stay: Stay) -> None:
        self._stay = stay
        self._ended = _Waiter()

    def enter(self) -> Any:
        stay = self._stay
        entered = _Waiter()
        try:
            stay.start(entered.set, self._ended.set)
        except BaseException:
            stay.cancel()
            raise
        try:
            entered.wait(stay.cancel)
        except BaseException:
            self._end()
            raise
        if not stay.inside:
            self._end()
            raise NodeClosed if stay.error is None else stay.error
        return stay.value

    def leave(self) -> None:
        self._stay.leave()
        self._end()
        if self._stay.error is not None:
            raise self._stay.error

    def _end(self) -> None:
        self._ended.wait(self._stay.cancel)
        self._stay.finish()


class _Entered(Face):
    __slots__ = ()

    def __enter__(self) -> Any:
        block = _Block(Visit(self._gate.portal, self._target))
        value = block.enter()
        self._stay = block
        return self if value is self._target else self._gate.wrap(value)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._gate.portal.forked:  # what the parent opened, the parent leaves
            self._stay.leave()


class _Iterated(Face):
    __slots__ = ()
    _lock = Lock

    def __iter__(self) -> Iterator[Any]:
        self._begin()
        return self._items()

    def _items(self) -> Iterator[Any]:
        buffer = self._buffer
        take = buffer.popleft
        while True:
            try:
                while buffer:
                    yield take()
            except IndexError:
                pass  # another thread iterates too, and was quicker
            with self._fetching:  # what one thread fetches is there for all
                if not buffer and not self._gate.cross(self._fetch):
                    return

    def __next__(self) -> Any:
        for item in self._items():
            return item
        raise StopIteration


class Threads(Style):
    """Faces whose methods are plain functions."""

    module = "mesh.sync"
    entered = _Entered
    iterated = _Iterated
    faces: ClassVar[dict[type, type[Face] | None]] = {}

    @classmethod
    def method(cls, function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    @classmethod
    def posting(cls, original: Callable[..., Any], judge: Callable[..., Post | None]) -> Callable[..., Any]:
        def method(face: Face, *args: Any, **named: Any) -> None:
            post = judge(face._target, *args, **named)
            gate = face._gate
            if post is None:
                gate.cross(partial(original, face._target, *args, **named))
                return
            gate.portal.check()
            posting = gate.posting
            if posting.full:
                gate.cross(posting.wait_room)
            posting.append(post)

        return method


# -- user code ---------------------------------------------------------------------------------


class _Pool:
    """The worker threads of one ``serve``, and the context in which it was called."""

    def __init__(self, portal: Portal, workers: int) -> None:
        self._portal = portal
        self._context = contextvars.copy_context()
        self._threads = ThreadPoolExecutor(max(1, workers), thread_name_prefix="mesh handler")
        self._running: set[Future[Any]] = set()

    def streams(self, function: Callable[..., Any]) -> bool:
        code = plain(function)
        if inspect.iscoroutinefunction(code) or inspect.isasyncgenfunction(code):
            raise TypeError("a handler is a plain function or a generator function here")
        return inspect.isgeneratorfunction(code)

    def _begin(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        future = self._threads.submit(function, *args)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    async def _work(self, function: Callable[..., Any], *args: Any) -> Any:
        ended = trio.Event()
        future = self._begin(function, *args)
        future.add_done_callback(lambda _: self._portal.soon(ended.set))
        try:
            await ended.wait()
        except trio.Cancelled:
            future.cancel()  # if it has not begun
            raise
        return future.result()

    async def run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        return await self._work(self._context.copy().run, function, *args)

    async def stream(self, function: Callable[..., Any], args: tuple[Any, ...]) -> AsyncGenerator[Any, None]:
        steps = _Steps(self._context.copy(), function, args)
        try:
            while await self._work(steps.step):
                yield steps.item
        finally:
            self._begin(steps.close)

    def finish(self) -> None:
        """In the caller's thread: wait for the handlers that still run, for a bounded time."""
        left = wait_for_futures(list(self._running), timeout=GRACE).not_done
        self._threads.shutdown(wait=not left)


class _Steps:
    """A generator, stepped and closed by whichever worker is free."""

    def __init__(
        self, context: contextvars.Context, function: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        self.item: Any = None
        self._context = context
        self._begin = partial(function, *args)
        self._items: Any = None
        self._closed = False
        self._lock = Lock()  # a cancelled step runs on; closing waits for it

    def step(self) -> bool:
        """Make the next item (True), or find the end (False)."""
        with self._lock:
            if self._closed:
                return False
            return self._context.run(self._step)

    def _step(self) -> bool:
        if self._items is None:
            self._items = self._begin()
        for item in self._items:
            self.item = item
            return True
        return False

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._items is not None:
                self._context.run(self._items.close)


# -- opening -------------------------------------------------------------------------------------


class Opening:
    """What ``open_node`` returns: the block in which the node is open."""

    def __init__(self, manager: AbstractAsyncContextManager[Any]) -> None:
        self._portal = Portal(manager, "mesh node")
        self._block = _Block(self._portal)
        self._opened = False

    def __enter__(self) -> Any:
        if self._opened:
            raise RuntimeError("a node is opened once: call open_node again")
        self._opened = True
        gate = _Gate(self._portal, Threads)
        return gate.wrap(self._block.enter())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._portal.forked:  # the node is the parent's
            self._block.leave()
