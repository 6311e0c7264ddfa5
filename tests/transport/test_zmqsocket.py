"""A ZeroMQ socket under Trio: no message is left lying, nobody sleeps for ever, nothing spins."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
import trio
import trio.testing
import zmq

from mesh.transport.zmqsocket import ZmqSocket, open_context, open_socket, terminate

_names = itertools.count()


class Pair:
    """Two connected PAIR sockets; what arrives at ``b`` is collected in bursts of ``burst``."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], kind: int, queue: int) -> None:
        self.a, self.b = (
            ZmqSocket(open_socket(context, kind, max_message=-1, send_queue=queue, receive_queue=queue))
            for _ in range(2)
        )
        endpoint = f"inproc://{next(_names)}"
        self.b.raw.bind(endpoint)
        self.a.raw.connect(endpoint)
        self.burst = 8
        self.bursts: list[list[bytes]] = []
        self.arrived = trio.Event()

    def drain(self) -> bool:
        burst: list[bytes] = []
        self.bursts.append(burst)
        while len(burst) < self.burst:
            try:
                burst.append(self.b.raw.recv_multipart(zmq.NOBLOCK)[-1])
            except zmq.Again:
                return False
            finally:
                self.arrived.set()
        return True

    @property
    def messages(self) -> list[bytes]:
        return [message for burst in self.bursts for message in burst]

    async def until(self, count: int) -> None:
        with trio.fail_after(30):
            while len(self.messages) < count:
                self.arrived = trio.Event()
                await self.arrived.wait()


@pytest.fixture
def pair() -> Iterator[Callable[..., Pair]]:
    """``pair(kind, queue)`` connects two sockets of a kind."""
    context = open_context()
    made: list[Pair] = []

    def make(kind: int = zmq.PAIR, queue: int = 1000) -> Pair:
        made.append(Pair(context, kind, queue))
        return made[-1]

    yield make
    for each in made:
        each.a.raw.close(0)
        each.b.raw.close(0)
    context.term()


async def test_messages_come_in_bursts_with_others_in_between(pair: Callable[..., Pair]) -> None:
    two = pair(zmq.PAIR, 1000)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    for number in range(800):
        assert two.a.send([b"%d" % number])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        nursery.start_soon(two.b.pump, two.drain)
        await two.until(800)
        nursery.cancel_scope.cancel()
    assert two.messages == [b"%d" % n for n in range(800)]
    assert max(map(len, two.bursts)) == two.burst
    assert turns >= 90


async def test_a_send_from_another_task_takes_no_edge(pair: Callable[..., Pair]) -> None:
    """Sending processes libzmq's commands, and with them the news of a message that came in."""
    two = pair(zmq.PAIR, 1000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(two.b.pump, two.drain)
        for number in range(300):
            await trio.testing.wait_all_tasks_blocked()
            two.a.raw.send(b"%d" % number)
            assert two.b.send([b"meanwhile"])  # in the same tick, before the pump can wake
            await two.until(number + 1)
        nursery.cancel_scope.cancel()


async def test_an_idle_pump_does_nothing(pair: Callable[..., Pair]) -> None:
    two = pair(zmq.PAIR, 1000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(two.b.pump, two.drain)
        await trio.testing.wait_all_tasks_blocked(0.05)
        rounds = len(two.bursts)
        await trio.testing.wait_all_tasks_blocked(0.2)
        assert len(two.bursts) == rounds
        nursery.cancel_scope.cancel()


async def test_full_then_writable(pair: Callable[..., Pair]) -> None:
    two = pair(zmq.DEALER, 4)
    sent = 0
    while two.a.send([b"%d" % sent]):
        sent += 1
    assert sent == 8
    writers = 3
    async with trio.open_nursery() as nursery:
        for _ in range(writers):
            nursery.start_soon(two.a.wait_writable)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert len(nursery.child_tasks) == writers
        nursery.start_soon(two.b.pump, two.drain)
        with trio.fail_after(30):
            while len(nursery.child_tasks) > 1:
                await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert two.a.send([b"more"])


async def test_the_watcher_may_be_cancelled(pair: Callable[..., Pair]) -> None:
    two = pair(zmq.DEALER, 1)
    while two.a.send([b"x"]):
        pass
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def watch() -> None:
            with scope:
                await two.a.wait_writable()

        nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(two.a.wait_writable)
        nursery.start_soon(two.a.wait_writable)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(two.b.pump, two.drain)
        with trio.fail_after(30):
            while len(nursery.child_tasks) > 1:
                await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_closing_wakes_everybody(pair: Callable[..., Pair]) -> None:
    two, idle = pair(zmq.DEALER, 1), pair()
    while two.a.send([b"x"]):
        pass
    ended = 0

    async def wait_writable() -> None:
        nonlocal ended
        with pytest.raises(trio.ClosedResourceError):
            await two.a.wait_writable()
        ended += 1

    async def wait_stirred() -> None:
        nonlocal ended
        with pytest.raises(trio.ClosedResourceError):
            await idle.b.wait_stirred(5)
        ended += 1

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_writable)
            nursery.start_soon(wait_writable)
            nursery.start_soon(idle.b.pump, idle.drain)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(wait_stirred)
            await trio.testing.wait_all_tasks_blocked()
            two.a.close()
            two.a.close()
            idle.b.close()
    assert ended == 3
    with pytest.raises(trio.ClosedResourceError):
        two.a.send([b"x"])
    await idle.b.pump(idle.drain)  # ends at once


async def test_a_drain_may_close_its_socket(pair: Callable[..., Pair]) -> None:
    two = pair(zmq.PAIR, 10)
    two.a.send([b"x"])

    def drain() -> bool:
        two.b.raw.recv(zmq.NOBLOCK)
        two.b.close()
        return True

    with trio.fail_after(30):
        await two.b.pump(drain)


async def test_waiting_for_a_stir_is_bounded(pair: Callable[..., Pair]) -> None:
    two = pair(zmq.PAIR, 10)
    with trio.fail_after(30):
        await two.b.wait_stirred(0.01)


async def test_terminating_closes_what_was_left_open() -> None:
    context = open_context()
    raw = open_socket(context, zmq.DEALER, max_message=1, send_queue=1, receive_queue=1)
    with trio.fail_after(30):
        await terminate(context)
    assert context.closed
    assert raw.closed
