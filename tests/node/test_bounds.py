"""What waits in a node is bounded in bytes, not only in messages."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from mesh.config import Config, Limits
from mesh.core.messages import RAW, Batch, CancelMessage, ErrorMessage, ReplyMessage, RequestMessage
from mesh.core.router import Member
from mesh.core.types import NodeId
from mesh.errors import RemoteError
from mesh.node.caller import Caller
from mesh.node.message import Origin, Peer
from mesh.node.responder import Responder
from mesh.node.subscription import Overflow, Subscription

PEER = Peer("00" * 16, "peer", "member", (), "alive", None)
NODE = NodeId(b"p" * 16)


def subscription(overflow: Overflow, *, buffer: int = 1000, most_bytes: int = 1000) -> Subscription:
    return Subscription(
        "t",
        buffer=buffer,
        overflow=overflow,
        group="",
        most_bytes=most_bytes,
        enter=lambda _: None,
        leave=lambda _: None,
    )


def feed(to: Subscription, first: int, *sizes: int) -> None:
    batch = Batch("t", first, 0, RAW, [bytes(size) for size in sizes], None)
    to.feed(Origin(batch, PEER), batch)


def taken(it: Subscription) -> list[int]:
    numbers = []
    while True:
        try:
            numbers.append(it.receive_nowait().sequence)
        except trio.WouldBlock:
            return numbers


def test_the_oldest_make_room_for_bytes() -> None:
    it = subscription("drop_oldest")
    feed(it, 0, 300, 300, 300)
    feed(it, 3, 500)
    assert (it.dropped, it.queued) == (2, 2)
    feed(it, 4, 2000)  # larger than all that may wait
    assert it.received == it.delivered + it.dropped + it.queued
    assert 4 not in taken(it)


def test_the_newest_do_not_get_in_beyond_the_bytes() -> None:
    it = subscription("drop_newest")
    feed(it, 0, 400, 400, 400, 100)
    assert it.dropped == 2
    assert taken(it) == [0, 1]
    feed(it, 4, 900)  # what was taken makes room
    assert taken(it) == [4]


def test_messages_and_bytes_together_keep_the_newest() -> None:
    it = subscription("drop_oldest", buffer=4, most_bytes=100)
    for n in range(50):
        feed(it, n, 30)
        assert it.queued <= 3
        assert it.received == it.delivered + it.dropped + it.queued
    assert taken(it) == [47, 48, 49]


class Network:
    """The little of a node that caller and responder need."""

    def __init__(self, limits: Limits) -> None:
        self.config = Config(limits=limits)
        self.sent: list[Any] = []

    def peer(self, node: NodeId) -> Peer:
        return PEER

    def peer_load(self, node: NodeId) -> int:
        return 0

    async def send(self, peer: NodeId, message: Any) -> None:
        self.sent.append(message)

    def send_nowait(self, peer: NodeId, message: Any) -> bool:
        self.sent.append(message)
        return True


class Sink:
    async def send(self, message: Any) -> None:
        pass

    def send_nowait(self, message: Any) -> None:
        pass


async def test_requests_of_a_peer_that_wait_are_bounded_in_bytes() -> None:
    responder = Responder(Network(Limits(served_bytes_per_peer=1000)))  # type: ignore[arg-type]
    started = trio.Event()

    async def handler(request: Any) -> None:
        await trio.sleep_forever()

    async def note() -> None:
        started.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(responder.serve, 1, handler, 1, note)
        await started.wait()

        def ask(number: int, size: int) -> ErrorMessage | None:
            message = RequestMessage(number, "t", RAW, bytes(size), None, 60000, 1, False)
            return responder.received(NODE, message, Sink(), [1])

        assert ask(1, 600) is None
        refusal = ask(2, 600)
        assert refusal is not None
        assert refusal.type_name == "@Busy"
        assert ask(3, 400) is None
        responder.cancel(NODE, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert ask(4, 600) is None
        nursery.cancel_scope.cancel()


async def test_a_responder_that_sends_more_than_was_granted_is_cut_short() -> None:
    network = Network(Limits())
    caller = Caller(network, own=None)  # type: ignore[arg-type]
    window = network.config.stream_window
    async with caller.request_many("t", None, timeout=30, members=[Member(NODE, 1)], headers=None) as replies:
        await trio.testing.wait_all_tasks_blocked()
        (request,) = network.sent
        for _ in range(10 * window):
            caller.received(NODE, ReplyMessage(request.number, RAW, b"x", None, False, 0))
        assert any(isinstance(message, CancelMessage) for message in network.sent)
        seen = [reply async for reply in replies]
    assert len(seen) == window + 1
    with pytest.raises(RemoteError, match="granted"):
        _ = seen[-1].value
