"""The responder's side of requests.

A request arrives → one of this node's services of its topic → a task in the nursery of that ``serve``, in a
cancel scope of its own with the caller's time budget → the handler → replies.  A handler that is
an async generator streams; the caller's window bounds what is in flight.

A request that ends without a reply because ``serve`` ended is told so to its caller.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from mesh.core.messages import RAW, ErrorMessage, ReplyMessage, RequestMessage
from mesh.core.types import NodeId
from mesh.errors import MeshError
from mesh.node.request import BUSY, DUPLICATE, NOT_SERVED, STOPPED, Handler, Network, Request, encode

__all__ = ["Responder", "Sink"]


class Sink(Protocol):
    """Where the replies to a request go. Neither raises: a caller that is gone needs no reply."""

    async def send(self, message: ReplyMessage | ErrorMessage) -> None: ...
    def send_nowait(self, message: ReplyMessage | ErrorMessage) -> None: ...


@dataclass(slots=True)
class _Service:
    handler: Handler
    limiter: trio.CapacityLimiter
    nursery: trio.Nursery


@dataclass(slots=True)
class _Served:
    """A request in one of our handlers, or before one."""

    scope: trio.CancelScope
    credit: int
    granted: trio.Event
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
            self._services[number] = _Service(handler, trio.CapacityLimiter(concurrency), nursery)
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
        service = min(services, key=_queue)
        deadline = trio.current_time() + message.budget / 1000
        served = _Served(trio.CancelScope(deadline=deadline), max(1, message.window), trio.Event())
        self._served[key] = served
        self._per_peer[peer] += 1
        self._bytes_per_peer[peer] += len(message.data)
        self.accepted += 1
        service.nursery.start_soon(self._handle, service, peer, message, served, sink)
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
            served.granted.set()

    def peer_gone(self, peer: NodeId) -> None:
        """The caller left: nobody wants its replies."""
        for (who, _), served in self._served.items():
            if who == peer:
                served.scope.cancel()

    # -- handlers ------------------------------------------------------------------

    async def _handle(
        self, service: _Service, peer: NodeId, message: RequestMessage, served: _Served, sink: Sink
    ) -> None:
        stopped = True
        try:
            with served.scope:
                async with service.limiter:
                    served.begun = True
                    try:
                        await self._answer(service.handler, peer, message, served, sink)
                    except Exception as error:  # noqa: BLE001
                        # Policy: a handler's exception belongs to the caller, who gets its type and
                        # text; the responder goes on serving the others.
                        await sink.send(
                            ErrorMessage(
                                message.number, type(error).__name__[:256], _text(error), self._load_after
                            )
                        )
            stopped = False
        finally:
            if stopped:
                # ``serve`` ends, not the request: its caller does not wait for its time to run out.
                why = STOPPED if served.begun else NOT_SERVED
                sink.send_nowait(ErrorMessage(message.number, why, message.topic, self._load_after))
            del self._served[peer, message.number]
            self._per_peer[peer] -= 1
            self._bytes_per_peer[peer] -= len(message.data)
            if not self._per_peer[peer]:
                del self._per_peer[peer], self._bytes_per_peer[peer]

    @property
    def _load_after(self) -> int:
        """What is in handlers when the request that is being answered has left."""
        return max(0, self.load - 1)

    async def _answer(
        self, handler: Handler, peer: NodeId, message: RequestMessage, served: _Served, sink: Sink
    ) -> None:
        outcome = handler(
            Request(
                message.topic,
                message.data,
                message.headers or {},
                self._network.peer(peer),
                message.kind,
            )
        )
        if isinstance(outcome, AsyncGenerator):
            await self._stream(outcome, message, served, sink)
        else:
            await sink.send(self._reply(message.number, await outcome, last=True))

    async def _stream(
        self, replies: AsyncGenerator[Any, None], message: RequestMessage, served: _Served, sink: Sink
    ) -> None:
        async with aclosing(replies):
            async for value in replies:
                if not message.many:
                    await sink.send(self._reply(message.number, value, last=True))
                    return
                while served.credit <= 0:
                    served.granted = trio.Event()
                    await served.granted.wait()
                served.credit -= 1
                await sink.send(self._reply(message.number, value, last=False))
        await sink.send(ReplyMessage(message.number, RAW, None, None, True, self._load_after))

    def _reply(self, number: int, value: Any, *, last: bool) -> ReplyMessage:
        kind, data = encode(value, self._network.config)
        return ReplyMessage(number, kind, data, None, last, self._load_after if last else self.load)


def _queue(service: _Service) -> int:
    """How many requests a service has: in its handler, and before it."""
    statistics = service.limiter.statistics()
    return statistics.borrowed_tokens + statistics.tasks_waiting


def _text(error: Exception) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001
        # Policy: an exception that cannot even be shown must not end the responder.
        text = "(its text cannot be read)"
    return text.encode(errors="replace").decode()[:4096]
