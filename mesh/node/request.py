"""Requests and replies: the caller's side and the responder's side.

Caller: request → choose the least busy responder (or the one asked for) → ``RequestMessage`` over
its link → replies come back by number → the caller's ``Call``.  Cancelling or running out
of time sends ``CancelMessage``.  Responder: ``RequestMessage`` → a task in the node's
nursery, in a cancel scope of its own with the caller's time budget → the handler → replies.
A handler that is an async generator streams; the caller's window bounds what is in flight.

A request to this node's own responder takes the same way without the wire.
"""

from __future__ import annotations

import inspect
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

import trio

from mesh.config import Config
from mesh.core.codec import encode_value
from mesh.core.messages import (
    RAW,
    Batch,
    CancelMessage,
    CreditMessage,
    ErrorMessage,
    ReplyMessage,
    RequestMessage,
)
from mesh.core.router import LOCAL, Member
from mesh.core.types import NodeId
from mesh.errors import (
    MeshError,
    MessageTooLarge,
    NoResponders,
    PeerGone,
    RemoteError,
    RequestTimeout,
)
from mesh.node.message import Message, Origin, Peer, read_value

__all__ = ["Caller", "Handler", "Reply", "Request", "Responder"]

_NO_RESPONDER: Final = "NoResponders"
_BUSY: Final = "Busy"


class Network(Protocol):
    """What requests need of the node."""

    config: Config

    def responders(self, topic: str) -> list[Member]: ...
    def peer(self, node: NodeId) -> Peer: ...
    def peer_load(self, node: NodeId) -> int: ...
    async def send(self, peer: NodeId, message: Any) -> None: ...
    def send_nowait(self, peer: NodeId, message: Any) -> bool: ...


@dataclass(frozen=True, slots=True)
class Request:
    """What a handler gets. ``data`` is the bytes, ``value`` the decoded value."""

    topic: str
    data: bytes
    headers: Mapping[str, str]
    sender: Peer
    kind: int = field(repr=False)

    @property
    def value(self) -> Any:
        return read_value(self.kind, self.data)


Handler = Callable[[Request], Awaitable[Any] | AsyncGenerator[Any, None]]
"""An async function of a ``Request`` whose result is the reply, or an async generator function."""


class Reply(Message):
    """One reply of ``request_many``: a ``Message``, or the error that the responder raised.

    ``error`` is None for a value; reading ``value`` of a reply with an error raises it.
    """

    __slots__ = ("error",)

    def __init__(self, origin: Origin, data: bytes, error: MeshError | None = None) -> None:
        super().__init__(origin, data, 0)
        self.error = error

    @property
    def value(self) -> Any:
        if self.error is not None:
            raise self.error
        return super().value


@dataclass(slots=True)
class _Call:
    """One request in flight to one responder."""

    number: int
    peer: NodeId
    topic: str
    replies: deque[ReplyMessage | ErrorMessage | MeshError] = field(default_factory=deque)
    arrived: trio.Event = field(default_factory=trio.Event)
    done: bool = False


# -- the caller's side ------------------------------------------------------------


class Caller:
    """The requests that this node has in flight."""

    def __init__(self, network: Network, local: Callable[[RequestMessage, _LocalSink], None]) -> None:
        self._network = network
        self._local = local
        self._calls: dict[int, _Call] = {}
        self._next = 1
        self._outstanding: Counter[NodeId] = Counter()

    # What comes back.

    def received(self, peer: NodeId, message: ReplyMessage | ErrorMessage) -> bool:
        """A reply or error of a peer. False if nobody asked for it (or not of this peer)."""
        call = self._calls.get(message.number)
        if call is None or call.peer != peer:
            return call is None and message.number < self._next
        call.replies.append(message)
        call.arrived.set()
        return True

    def peer_gone(self, peer: NodeId, name: str) -> None:
        for call in self._calls.values():
            if call.peer == peer:
                call.replies.append(PeerGone(peer.hex(), name))
                call.arrived.set()

    def close(self, reason: MeshError) -> None:
        for call in self._calls.values():
            call.replies.append(reason)
            call.arrived.set()

    @property
    def in_flight(self) -> int:
        return len(self._calls)

    # What goes out.

    def _encode(self, value: Any) -> tuple[int, bytes]:
        kind, data = encode_value(value)
        limit = self._network.config.limits.frame_bytes - 16384
        if len(data) > limit:
            raise MessageTooLarge(len(data), limit)
        return kind, data

    def _begin(self, member: Member, topic: str) -> _Call:
        if len(self._calls) >= self._network.config.limits.pending_requests:
            raise MeshError(f"more than {len(self._calls)} requests are in flight")
        call = _Call(self._next, member.peer, topic)
        self._next += 1
        self._calls[call.number] = call
        self._outstanding[member.peer] += 1
        return call

    def _end(self, call: _Call) -> None:
        self._calls.pop(call.number, None)
        self._outstanding[call.peer] -= 1
        if not self._outstanding[call.peer]:
            del self._outstanding[call.peer]
        if not call.done and call.peer != LOCAL:
            self._network.send_nowait(call.peer, CancelMessage(call.number))
        elif not call.done:
            self._local_cancel(call.number)

    _local_cancel: Callable[[int], None]

    def choose(self, members: list[Member]) -> Member:
        """The least busy: by what we have in flight there, then by the load it last told."""
        outstanding, load = self._outstanding, self._network.peer_load
        return min(members, key=lambda m: (outstanding[m.peer], load(m.peer)))

    async def _send(self, call: _Call, message: RequestMessage) -> None:
        if call.peer == LOCAL:
            self._local(message, _LocalSink(self))
        else:
            await self._network.send(call.peer, message)

    async def request(
        self,
        topic: str,
        value: Any,
        *,
        timeout: float,
        members: list[Member],
        headers: Mapping[str, str] | None,
    ) -> Any:
        """One reply's value. A responder that turns out not to serve (any more) is passed over."""
        kind, data = self._encode(value)
        left = list(members)
        deadline = trio.current_time() + timeout
        with trio.move_on_at(deadline):
            while left:
                member = self.choose(left)
                left.remove(member)
                call = self._begin(member, topic)
                try:
                    budget = max(1, int((deadline - trio.current_time()) * 1000))
                    await self._send(
                        call, RequestMessage(call.number, topic, kind, data, headers, budget, 1, False)
                    )
                    while not call.replies:
                        await call.arrived.wait()
                    answer = call.replies.popleft()
                    if isinstance(answer, MeshError):
                        call.done = True
                        raise answer
                    if isinstance(answer, ErrorMessage):
                        call.done = True
                        if answer.type_name in (_NO_RESPONDER, _BUSY) and left:
                            continue
                        raise self._error(call, answer)
                    call.done = answer.last
                    if answer.data is None:
                        raise RemoteError(
                            "StopAsyncIteration", "the stream ended without a value", call.peer.hex()
                        )
                    return read_value(answer.kind, answer.data)
                finally:
                    self._end(call)
            raise NoResponders(topic)
        raise RequestTimeout(topic, timeout)

    def _error(self, call: _Call, answer: ErrorMessage) -> MeshError:
        if answer.type_name == _NO_RESPONDER:
            return NoResponders(call.topic)
        return RemoteError(answer.type_name, answer.text, self._network.peer(call.peer).id)

    @asynccontextmanager
    async def request_many(
        self,
        topic: str,
        value: Any,
        *,
        timeout: float,
        members: list[Member],
        headers: Mapping[str, str] | None,
    ) -> AsyncIterator[AsyncIterator[Reply]]:
        """Every responder's replies, as they come, until all have ended or the time is up."""
        kind, data = self._encode(value)
        window = self._network.config.stream_window
        deadline = trio.current_time() + timeout
        send, receive = trio.open_memory_channel[Reply](0)

        async def follow(member: Member, mine: trio.MemorySendChannel[Reply]) -> None:
            async with mine:
                call = self._begin(member, topic)
                try:
                    budget = max(1, int((deadline - trio.current_time()) * 1000))
                    await self._send(
                        call, RequestMessage(call.number, topic, kind, data, headers, budget, window, True)
                    )
                    taken = 0
                    while not call.done:
                        while not call.replies:
                            call.arrived = trio.Event()
                            await call.arrived.wait()
                        reply = self._reply(call, call.replies.popleft())
                        if reply is not None:
                            await mine.send(reply)
                        taken += 1
                        if taken * 2 >= window and not call.done:
                            self._credit(call, taken)
                            taken = 0
                finally:
                    self._end(call)

        async with trio.open_nursery() as nursery:
            async with send:
                for member in members:
                    nursery.start_soon(follow, member, send.clone())
            async with receive:
                yield _until(receive, deadline)
                nursery.cancel_scope.cancel()

    def _credit(self, call: _Call, replies: int) -> None:
        if call.peer == LOCAL:
            self._local_credit(call.number, replies)
        else:
            self._network.send_nowait(call.peer, CreditMessage(call.number, replies))

    _local_credit: Callable[[int, int], None]

    def connect_local(self, cancel: Callable[[int], None], credit: Callable[[int, int], None]) -> None:
        """How to reach this node's own responder."""
        self._local_cancel = cancel
        self._local_credit = credit

    def _reply(self, call: _Call, answer: ReplyMessage | ErrorMessage | MeshError) -> Reply | None:
        sender = self._network.peer(call.peer)
        error: MeshError | None = None
        kind, data, headers = RAW, b"", None
        if isinstance(answer, ReplyMessage):
            call.done = answer.last
            if answer.data is None:
                return None
            kind, data, headers = answer.kind, answer.data, answer.headers
        else:
            call.done = True
            error = answer if isinstance(answer, MeshError) else self._error(call, answer)
        batch = Batch(call.topic, 0, 0, kind, [data], {0: headers} if headers else None)
        return Reply(Origin(batch, sender), data, error)


async def _until(receive: trio.MemoryReceiveChannel[Reply], deadline: float) -> AsyncIterator[Reply]:
    while True:
        reply: Reply | None = None
        with trio.move_on_at(deadline):
            try:
                reply = await receive.receive()
            except trio.EndOfChannel:
                return
        if reply is None:
            return
        yield reply


class _LocalSink:
    """Takes the replies of this node's own responder to its own caller."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def send(self, message: ReplyMessage | ErrorMessage) -> None:
        await trio.lowlevel.checkpoint()
        self._caller.received(LOCAL, message)


# -- the responder's side -----------------------------------------------------------


@dataclass(slots=True)
class _Service:
    handler: Handler
    streams: bool
    limiter: trio.CapacityLimiter
    nursery: trio.Nursery


@dataclass(slots=True)
class _Served:
    """A request in one of our handlers."""

    scope: trio.CancelScope
    credit: int
    granted: trio.Event


class _Sink(Protocol):
    async def send(self, message: Any) -> None: ...


class Responder:
    """The handlers of this node, and the requests in them."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._services: dict[int, _Service] = {}
        self._served: dict[tuple[NodeId, int], _Served] = {}
        self._per_peer: Counter[NodeId] = Counter()

    @property
    def load(self) -> int:
        """Requests in handlers now."""
        return len(self._served)

    async def serve(
        self, number: int, handler: Handler, concurrency: int, started: Callable[[], Awaitable[None]]
    ) -> None:
        """Answer as responder ``number`` until cancelled. ``started`` is awaited once it can."""
        plain = handler.func if isinstance(handler, partial) else inspect.unwrap(handler)
        streams = inspect.isasyncgenfunction(plain)
        async with trio.open_nursery() as nursery:
            self._services[number] = _Service(handler, streams, trio.CapacityLimiter(concurrency), nursery)
            try:
                await started()
                await trio.sleep_forever()
            finally:
                del self._services[number]

    def received(
        self, peer: NodeId, message: RequestMessage, sink: _Sink, numbers: list[int]
    ) -> ErrorMessage | None:
        """A request arrived; ``numbers`` are our responders of its topic. The refusal, if it is one."""
        services = [self._services[number] for number in numbers if number in self._services]
        if not services:
            return ErrorMessage(message.number, _NO_RESPONDER, message.topic, self.load)
        if self._per_peer[peer] >= self._network.config.limits.served_per_peer:
            return ErrorMessage(
                message.number, _BUSY, "too many requests of yours are in my handlers", self.load
            )
        key = (peer, message.number)
        if key in self._served:
            return ErrorMessage(message.number, "Duplicate", "this request is being served", self.load)
        service = min(services, key=lambda s: s.limiter.borrowed_tokens)
        served = _Served(
            trio.CancelScope(deadline=trio.current_time() + message.budget / 1000),
            max(1, message.window),
            trio.Event(),
        )
        self._served[key] = served
        self._per_peer[peer] += 1
        service.nursery.start_soon(self._handle, service, peer, message, served, sink)
        return None

    def cancel(self, peer: NodeId, number: int) -> None:
        """The caller does not want it any more."""
        served = self._served.get((peer, number))
        if served is not None:
            served.scope.cancel()

    def credit(self, peer: NodeId, number: int, replies: int) -> None:
        served = self._served.get((peer, number))
        if served is not None:
            served.credit += replies
            served.granted.set()

    def peer_gone(self, peer: NodeId) -> None:
        for (who, _), served in self._served.items():
            if who == peer:
                served.scope.cancel()

    async def _handle(
        self, service: _Service, peer: NodeId, message: RequestMessage, served: _Served, sink: _Sink
    ) -> None:
        try:
            with served.scope:
                async with service.limiter:
                    request = Request(
                        message.topic,
                        message.data,
                        message.headers or {},
                        self._network.peer(peer),
                        message.kind,
                    )
                    try:
                        if service.streams:
                            await self._stream(service.handler(request), message, served, sink)  # type: ignore[arg-type]
                        else:
                            value = await service.handler(request)  # type: ignore[misc]
                            await sink.send(self._value(message.number, value, last=True))
                    except Exception as error:  # noqa: BLE001
                        # Policy: a handler's exception belongs to the caller, who gets its type and
                        # text; the responder goes on serving the others.
                        await sink.send(
                            ErrorMessage(
                                message.number, type(error).__name__[:256], str(error)[:4096], self.load
                            )
                        )
        finally:
            del self._served[peer, message.number]
            self._per_peer[peer] -= 1
            if not self._per_peer[peer]:
                del self._per_peer[peer]

    async def _stream(
        self, replies: AsyncGenerator[Any, None], message: RequestMessage, served: _Served, sink: _Sink
    ) -> None:
        async with aclosing(replies):
            async for value in replies:
                if not message.many:
                    await sink.send(self._value(message.number, value, last=True))
                    return
                while served.credit <= 0:
                    served.granted = trio.Event()
                    await served.granted.wait()
                served.credit -= 1
                await sink.send(self._value(message.number, value, last=False))
        await sink.send(ReplyMessage(message.number, RAW, None, None, True, self.load))

    def _value(self, number: int, value: Any, *, last: bool) -> ReplyMessage:
        kind, data = encode_value(value)
        limit = self._network.config.limits.frame_bytes - 16384
        if len(data) > limit:
            raise MessageTooLarge(len(data), limit)
        return ReplyMessage(number, kind, data, None, last, self.load)
