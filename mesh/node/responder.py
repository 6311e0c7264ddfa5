"""The responder's side of requests.

A request arrives → one of this node's services of its topic → a worker in the nursery of that ``serve``: one that
is idle, or a new one → the handler, in a cancel scope with the caller's time budget → replies.  A handler that
is an async generator streams; the caller's window bounds what is in flight.

A worker is a task with one cancel scope.  After a request it waits for the next, for as long as the scope lives:
its deadline is the last request's, so that a worker with nothing to do ends by itself, and one whose request
is cancelled ends with it.  (A task and a scope for each request cost more than all the rest of it.)

A request that ends without a reply because ``serve`` ended is told so to its caller.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from types import CoroutineType
from typing import Any, Protocol

import trio
from trio.lowlevel import ParkingLot

from mesh.core.messages import RAW, ErrorMessage, ReplyMessage, RequestMessage
from mesh.core.types import NodeId
from mesh.errors import MeshError
from mesh.node.request import BUSY, DUPLICATE, NOT_SERVED, STOPPED, Handler, Network, Request, cost, encode

__all__ = ["Responder", "Sink"]


class Sink(Protocol):
    """Where the replies to a request go. Neither raises: a caller that is gone needs no reply."""

    async def send(self, message: ReplyMessage | ErrorMessage) -> None: ...
    def send_nowait(self, message: ReplyMessage | ErrorMessage) -> None: ...


@dataclass(slots=True)
class _Service:
    handler: Handler
    concurrency: int
    nursery: trio.Nursery
    context: Context  # of ``serve``: each request sees a copy, and none what another left
    requests: int = 0  # in its handler, and before it
    handling: int = 0  # of these in its handler: at most ``concurrency``
    queue: ParkingLot = field(default_factory=ParkingLot)  # and before it, in the order of their coming
    idle: dict[_Worker, None] = field(default_factory=dict)  # an ordered set: the last comes first


@dataclass(slots=True, eq=False)
class _Worker:
    """A task that handles one request after the other."""

    scope: trio.CancelScope
    task: trio.lowlevel.Task | None = None  # once it runs
    request: _Served | None = None  # the next one, for a worker that was idle


@dataclass(slots=True)
class _Served:
    """A request in one of our handlers, or before one."""

    peer: NodeId
    message: RequestMessage
    sink: Sink
    scope: trio.CancelScope
    credit: int
    granted: trio.Event | None = None
    begun: bool = False


class Responder:
    """The handlers of this node, and the requests in them. ``accepted`` counts requests."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._services: dict[int, _Service] = {}
        self._served: dict[tuple[NodeId, int], _Served] = {}
        self._per_peer: Counter[NodeId] = Counter()
        self._bytes_per_peer: Counter[NodeId] = Counter()
        self._refusal: MeshError | None = None
        self._closing = trio.Event()
        self.accepted = 0

    @property
    def load(self) -> int:
        """Requests in handlers, or waiting for one, now."""
        return len(self._served)

    async def serve(
        self, number: int, handler: Handler, concurrency: int, started: Callable[[], Awaitable[None]]
    ) -> None:
        """Answer as responder ``number`` until cancelled. ``started`` is awaited once it can.

        Raises what ``close`` is given.
        """
        async with trio.open_nursery() as nursery:
            self._services[number] = _Service(handler, concurrency, nursery, copy_context())
            try:
                await started()
                await self._closing.wait()
            finally:
                del self._services[number]
            nursery.cancel_scope.cancel()
        assert self._refusal is not None
        raise self._refusal.with_traceback(None)

    def close(self, reason: MeshError) -> None:
        """The node closes: every ``serve`` ends."""
        self._refusal = reason
        self._closing.set()

    # -- requests ------------------------------------------------------------------

    def received(
        self, peer: NodeId, message: RequestMessage, sink: Sink, numbers: Sequence[int]
    ) -> ErrorMessage | None:
        """A request arrived; ``numbers`` are our responders of its topic. The refusal, if it is one."""

        def refuse(why: str, text: str) -> ErrorMessage:
            return ErrorMessage(message.number, why, text, self.load)

        services = [self._services[number] for number in numbers if number in self._services]
        if not services:
            return refuse(NOT_SERVED, message.topic)
        limits = self._network.config.limits
        if (
            self._per_peer[peer] >= limits.served_per_peer
            or self._bytes_per_peer[peer] + len(message.data) > limits.served_bytes_per_peer
        ):
            return refuse(BUSY, "too many requests of yours are in my handlers")
        key = (peer, message.number)
        if key in self._served:
            return refuse(DUPLICATE, "this request is being served")
        service = services[0] if len(services) == 1 else min(services, key=_requests)
        service.requests += 1
        self._per_peer[peer] += 1
        self._bytes_per_peer[peer] += len(message.data)
        self.accepted += 1
        deadline = trio.current_time() + message.budget / 1000
        if service.idle:
            worker, _ = service.idle.popitem()
            worker.scope.deadline = deadline
        else:
            worker = _Worker(trio.CancelScope(deadline=deadline))
        served = _Served(peer, message, sink, worker.scope, max(1, message.window))
        self._served[key] = worker.request = served
        if worker.task is None:
            service.context.run(service.nursery.start_soon, self._work, service, worker)
        else:
            worker.task.context = service.context.copy()
            trio.lowlevel.reschedule(worker.task)
        return None

    def cancel(self, peer: NodeId, number: int) -> None:
        """The caller does not want it any more."""
        served = self._served.get((peer, number))
        if served is not None:
            served.scope.cancel()

    def credit(self, peer: NodeId, number: int, replies: int) -> None:
        """The caller took replies: so many more may be sent."""
        served = self._served.get((peer, number))
        if served is not None:
            served.credit += replies
            if served.granted is not None:
                served.granted.set()

    def peer_gone(self, peer: NodeId) -> None:
        """The caller left: nobody wants its replies."""
        for (who, _), served in self._served.items():
            if who == peer:
                served.scope.cancel()

    # -- handlers ------------------------------------------------------------------

    async def _work(self, service: _Service, worker: _Worker) -> None:
        worker.task = trio.lowlevel.current_task()

        def end(_: Any) -> trio.lowlevel.Abort:
            del service.idle[worker]
            return trio.lowlevel.Abort.SUCCEEDED

        with worker.scope:
            while worker.request is not None:
                served, worker.request = worker.request, None
                await self._handle(service, served)
                if worker.scope.cancel_called or len(service.idle) >= service.concurrency:
                    return
                service.idle[worker] = None
                await trio.lowlevel.wait_task_rescheduled(end)

    async def _handle(self, service: _Service, served: _Served) -> None:
        message, sink = served.message, served.sink
        answered = False
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            if service.handling < service.concurrency:
                service.handling += 1
            else:
                await service.queue.park()  # whoever is done hands its place on
            served.begun = True
            try:
                await self._answer(service.handler, served)
            except Exception as error:  # noqa: BLE001
                # Policy: a handler's exception belongs to the caller, who gets its type and
                # text; the responder goes on serving the others.
                failed = type(error).__name__[:256], _text(error)
                await sink.send(ErrorMessage(message.number, *failed, self._load_after))
            answered = True
        finally:
            if not answered and not served.scope.cancel_called:
                # ``serve`` ends, not the request: its caller does not wait for its time to run out.
                why = STOPPED if served.begun else NOT_SERVED
                sink.send_nowait(ErrorMessage(message.number, why, message.topic, self._load_after))
            self._done_with(service, served)

    def _done_with(self, service: _Service, served: _Served) -> None:
        peer, message = served.peer, served.message
        if served.begun:
            if service.queue:
                service.queue.unpark()
            else:
                service.handling -= 1
        service.requests -= 1
        del self._served[peer, message.number]
        self._per_peer[peer] -= 1
        self._bytes_per_peer[peer] -= len(message.data)
        if not self._per_peer[peer]:
            del self._per_peer[peer], self._bytes_per_peer[peer]

    @property
    def _load_after(self) -> int:
        """What is in handlers when the request that is being answered has left."""
        return max(0, self.load - 1)

    async def _answer(self, handler: Handler, served: _Served) -> None:
        message = served.message
        sender = self._network.peer(served.peer)
        outcome = handler(Request(message.topic, message.data, message.headers or {}, sender, message.kind))
        if type(outcome) is not CoroutineType and isinstance(outcome, AsyncGenerator):
            await self._stream(outcome, served)
        else:
            await served.sink.send(self._reply(message.number, await outcome, last=True))

    async def _stream(self, replies: AsyncGenerator[Any, None], served: _Served) -> None:
        message, sink = served.message, served.sink
        async with aclosing(replies):
            async for value in replies:
                if not message.many:
                    await sink.send(self._reply(message.number, value, last=True))
                    return
                while served.credit <= 0:
                    served.granted = trio.Event()
                    await served.granted.wait()
                reply = self._reply(message.number, value, last=False)
                served.credit -= cost(reply.data)
                await sink.send(reply)
        await sink.send(ReplyMessage(message.number, RAW, None, None, True, self._load_after))

    def _reply(self, number: int, value: Any, *, last: bool) -> ReplyMessage:
        kind, data = encode(value, self._network.config)
        return ReplyMessage(number, kind, data, None, last, self._load_after if last else self.load)


def _requests(service: _Service) -> int:
    return service.requests


def _text(error: Exception) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001
        # Policy: an exception that cannot even be shown must not end the responder.
        text = "(its text cannot be read)"
    return text.encode(errors="replace").decode()[:4096]
