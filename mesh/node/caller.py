"""The caller's side of requests.

request → the least busy responder (or the one asked for) → its link, or our own responder → replies come
back by number into the ``_Call`` → the program.  A call that ends before its last reply (cancelled,
out of time, enough replies) is cancelled over there too.  Time that runs out comes into the call as
a reply does, from ``expiry``.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, Protocol, Self

import trio

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
from mesh.errors import MeshError, NoResponders, NotAuthorized, PeerGone, RemoteError, RequestTimeout
from mesh.node.background import background
from mesh.node.expiry import Expiry
from mesh.node.message import Origin, read_value
from mesh.node.request import NOT_ALLOWED, NOT_SERVED, REFUSALS, STOPPED, Network, Reply, cost, encode

__all__ = ["Caller"]

_LONGEST: Final = 10 * 365 * 86400.0
"""Seconds that the wire is told for "no limit"."""


@dataclass(slots=True)
class _Call:
    """One request in flight to one responder. One task at most waits for its replies."""

    number: int
    member: Member
    topic: str
    granted: int  # replies that may still come before the last
    timeout: float  # that the program gave, in seconds
    replies: deque[ReplyMessage | ErrorMessage | MeshError] = field(default_factory=deque)
    waiting: trio.lowlevel.Task | None = None
    done: bool = False

    def put(self, reply: ReplyMessage | ErrorMessage | MeshError) -> None:
        self.replies.append(reply)
        if self.waiting is not None:
            task, self.waiting = self.waiting, None
            trio.lowlevel.reschedule(task)

    async def next(self) -> ReplyMessage | ErrorMessage | MeshError:
        if not self.replies:
            self.waiting = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._wait_no_more)
        reply = self.replies.popleft()
        # Out of time: its responder is still at it, and is told so when the call ends.
        self.done = reply.last if isinstance(reply, ReplyMessage) else not isinstance(reply, RequestTimeout)
        return reply

    def _wait_no_more(self, _: Any) -> trio.lowlevel.Abort:
        self.waiting = None
        return trio.lowlevel.Abort.SUCCEEDED


class OwnResponder(Protocol):
    """This node's own responder: it takes requests without the wire."""

    def serve_locally(self, message: RequestMessage, reply: Callable[[Any], None]) -> None: ...
    def cancel(self, peer: NodeId, number: int) -> None: ...
    def credit(self, peer: NodeId, number: int, replies: int) -> None: ...


class Caller:
    """The requests that this node has in flight."""

    def __init__(self, network: Network, own: OwnResponder) -> None:
        self._network = network
        self._own = own
        self._calls: dict[int, _Call] = {}
        self._next = 1
        self._outstanding: Counter[NodeId] = Counter()
        self._turn = 0
        self._expiry = Expiry(self._calls, self._expired)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """End the requests whose time is up, until cancelled."""
        await self._expiry.run()

    def _expired(self, number: int) -> None:
        call = self._calls[number]
        call.put(RequestTimeout(call.topic, call.timeout))

    @property
    def in_flight(self) -> int:
        """Requests without their last reply."""
        return len(self._calls)

    # -- what comes back -----------------------------------------------------------

    def received(self, peer: NodeId, message: ReplyMessage | ErrorMessage) -> None:
        """A reply or error of a peer. Those that nobody waits for any more are ignored."""
        call = self._calls.get(message.number)
        if call is None or call.member.peer != peer:
            return
        if isinstance(message, ReplyMessage) and not message.last:
            overrun = call.granted <= 0
            call.granted -= cost(message.data)
            if overrun:
                # What waits here is bounded by what we grant, not by the responder's good will.
                del self._calls[call.number]
                self._network.send_nowait(peer, CancelMessage(call.number))
                call.put(RemoteError("Overrun", "sent more replies than were granted", peer.hex()))
                return
        call.put(message)

    def peer_gone(self, peer: NodeId, name: str) -> None:
        """The peer left: it answers nothing any more."""
        for call in self._calls.values():
            if call.member.peer == peer:
                call.put(PeerGone(peer.hex(), name))

    def close(self, reason: MeshError) -> None:
        """The node closes: nobody answers any more."""
        for call in self._calls.values():
            call.put(reason)

    # -- one call --------------------------------------------------------------------

    def _begin(self, member: Member, topic: str, window: int, timeout: float) -> _Call:
        if len(self._calls) >= self._network.config.limits.pending_requests:
            raise MeshError(f"more than {len(self._calls)} requests are in flight")
        call = _Call(self._next, member, topic, window, timeout)
        self._next += 1
        self._calls[call.number] = call
        self._outstanding[member.peer] += 1
        return call

    def _end(self, call: _Call) -> None:
        self._calls.pop(call.number, None)
        peer = call.member.peer
        self._outstanding[peer] -= 1
        if not self._outstanding[peer]:
            del self._outstanding[peer]
        if call.done:
            return
        if peer == LOCAL:
            self._own.cancel(LOCAL, call.number)
        else:
            self._network.send_nowait(peer, CancelMessage(call.number))

    def _send_nowait(self, call: _Call, message: RequestMessage) -> bool:
        peer = call.member.peer
        if peer == LOCAL:
            self._own.serve_locally(message, lambda reply: self.received(LOCAL, reply))
            return True
        return self._network.send_nowait(peer, message)

    async def _send(self, call: _Call, message: RequestMessage, deadline: float) -> None:
        """Send it, waiting until ``deadline`` at most. Raises ``PeerGone``, ``NodeClosed``."""
        if not self._send_nowait(call, message):
            with trio.move_on_at(deadline):
                await self._network.send(call.member.peer, message)

    def choose(self, members: Sequence[Member]) -> Member:
        """The least busy: by what we have in flight there, then by the load it last told, then by turns."""
        outstanding, load = self._outstanding, self._network.peer_load
        if len(members) == 1:
            return members[0]
        self._turn += 1
        first = self._turn % len(members)
        return min(
            (*members[first:], *members[:first]),
            key=lambda member: (outstanding[member.peer], load(member.peer)),
        )

    def _error(self, call: _Call, answer: ErrorMessage | MeshError) -> MeshError:
        if isinstance(answer, MeshError):
            return answer
        if answer.type_name == NOT_SERVED:
            return NoResponders(call.topic)
        peer = self._network.peer(call.member.peer)
        if answer.type_name == NOT_ALLOWED:
            return NotAuthorized("request", call.topic, f"{peer.name}: {answer.text}")
        if answer.type_name == STOPPED:
            return PeerGone(peer.id, peer.name, f"stopped serving {call.topic!r}")
        return RemoteError(answer.type_name.removeprefix("@"), answer.text, peer.id)

    # -- one reply ---------------------------------------------------------------------

    async def request(
        self,
        topic: str,
        value: Any,
        *,
        timeout: float,
        members: Sequence[Member],
        headers: Mapping[str, str] | None,
    ) -> Any:
        """One reply's value. A responder that has not touched the request is passed over."""
        return self._value_of(*await self._ask(topic, value, timeout, members, headers))

    async def request_one(
        self,
        topic: str,
        value: Any,
        *,
        timeout: float,
        members: Sequence[Member],
        headers: Mapping[str, str] | None,
    ) -> Reply:
        """One reply as a whole."""
        call, answer = await self._ask(topic, value, timeout, members, headers)
        return self._reply(call, answer) or self._no_value(call)

    async def _ask(
        self,
        topic: str,
        value: Any,
        timeout: float,
        members: Sequence[Member],
        headers: Mapping[str, str] | None,
    ) -> tuple[_Call, ReplyMessage]:
        kind, data = encode(value, self._network.config)
        clock = trio.current_time()
        deadline = clock + timeout
        await trio.lowlevel.checkpoint_if_cancelled()
        if not deadline > clock:  # of NaN too
            raise RequestTimeout(topic, timeout)
        left = members
        while left:
            member = self.choose(left)
            left = [other for other in left if other is not member]
            call = self._begin(member, topic, 1, timeout)
            self._expiry.add(deadline, call.number)
            try:
                message = RequestMessage(call.number, topic, kind, data, headers, _budget(deadline), 1, False)
                try:
                    await self._send(call, message, deadline)
                except PeerGone:
                    continue
                answer = await call.next()
                if isinstance(answer, ReplyMessage):
                    return call, answer
                if isinstance(answer, ErrorMessage) and answer.type_name in REFUSALS and left:
                    continue
                raise self._error(call, answer)
            finally:
                self._end(call)
        raise NoResponders(topic)

    def _value_of(self, call: _Call, answer: ReplyMessage) -> Any:
        if answer.data is None:
            self._no_value(call)
        return read_value(answer.kind, answer.data)

    def _no_value(self, call: _Call) -> NoReturn:
        peer = self._network.peer(call.member.peer)
        raise RemoteError("StopAsyncIteration", "the stream ended without a value", peer.id)

    # -- many replies ------------------------------------------------------------------

    @asynccontextmanager
    async def request_many(
        self,
        topic: str,
        value: Any,
        *,
        timeout: float,
        members: Sequence[Member],
        headers: Mapping[str, str] | None,
    ) -> AsyncIterator[AsyncIterator[Reply]]:
        """Every responder's replies, as they come, until all have ended or the time is up."""
        kind, data = encode(value, self._network.config)
        window = self._network.config.stream_window
        deadline = trio.current_time() + timeout
        send, receive = trio.open_memory_channel[Reply](0)

        async def follow(call: _Call, mine: trio.MemorySendChannel[Reply]) -> None:
            async with mine:
                try:
                    message = RequestMessage(
                        call.number, topic, kind, data, headers, _budget(deadline), window, True
                    )
                    try:
                        await self._send(call, message, deadline)
                    except MeshError as error:  # PeerGone, NodeClosed: this responder's reply
                        call.put(error)
                    taken = 0
                    while not call.done:
                        reply = self._reply(call, await call.next())
                        if reply is not None:
                            await mine.send(reply)
                        taken += cost(reply.data if reply is not None else None)
                        if taken * 2 >= window and not call.done:
                            self._credit(call, taken)
                            taken = 0
                finally:
                    self._end(call)

        async with background() as nursery:
            with send:
                for member in members:
                    nursery.start_soon(follow, self._begin(member, topic, window, timeout), send.clone())
            # Not ``async with``: its checkpoint would put Cancelled in place of what the block raises.
            with receive:
                try:
                    yield _Replies(receive, deadline)
                finally:
                    nursery.cancel_scope.cancel()  # before nobody takes replies any more

    def _credit(self, call: _Call, replies: int) -> None:
        call.granted += replies
        if call.member.peer == LOCAL:
            self._own.credit(LOCAL, call.number, replies)
        else:
            self._network.send_nowait(call.member.peer, CreditMessage(call.number, replies))

    def _reply(self, call: _Call, answer: ReplyMessage | ErrorMessage | MeshError) -> Reply | None:
        sender = self._network.peer(call.member.peer)
        if not isinstance(answer, ReplyMessage):
            return Reply(
                Origin(Batch(call.topic, 0, 0, RAW, [b""], None), sender), b"", self._error(call, answer)
            )
        if answer.data is None:
            return None  # the end of a stream
        headers = {0: answer.headers} if answer.headers else None
        batch = Batch(call.topic, 0, 0, answer.kind, [answer.data], headers)
        return Reply(Origin(batch, sender), answer.data)


def _budget(deadline: float) -> int:
    """The milliseconds that are left."""
    return max(1, int(min(deadline - trio.current_time(), _LONGEST) * 1000))


class _Replies:
    """The replies as they come, until all have ended or the time is up."""

    def __init__(self, receive: trio.MemoryReceiveChannel[Reply], deadline: float) -> None:
        self._receive = receive
        self._deadline = deadline

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Reply:
        with trio.move_on_at(self._deadline):
            try:
                return await self._receive.receive()
            except (trio.EndOfChannel, trio.ClosedResourceError):
                raise StopAsyncIteration from None
        raise StopAsyncIteration
