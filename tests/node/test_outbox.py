"""The outbox: order, bounds, and that a blocked peer blocks nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import trio
import trio.testing

import mesh
from mesh.node.outbox import Outbox
from tests.node.fakes import FakeTransport, as_any, node

A, B = node(1), node(2)
CONFIG = mesh.Config.local(limits=replace(mesh.Limits(), outbox_peer_bytes=10, outbox_total_bytes=15))


@asynccontextmanager
async def running(transport: FakeTransport) -> AsyncIterator[Outbox]:
    outbox = Outbox(as_any(transport), CONFIG)
    async with trio.open_nursery() as nursery:
        await nursery.start(outbox.run)
        with trio.fail_after(30):
            yield outbox
        nursery.cancel_scope.cancel()


async def test_straight_through() -> None:
    transport = FakeTransport()
    async with running(transport) as outbox:
        assert outbox.send(A, b"0") and outbox.send(A, b"x" * 100)
        assert transport.sent[A] == [b"0", b"x" * 100]
        assert outbox.waiting(A) == 0
        await outbox.flush()


async def test_a_blocked_peer_keeps_its_order_and_blocks_nobody_else() -> None:
    transport = FakeTransport(blocked={A})
    async with running(transport) as outbox:
        assert outbox.send(A, b"0") and outbox.send(A, b"1") and outbox.send(B, b"2")
        assert (transport.sent[A], transport.sent[B]) == ([], [b"2"])
        assert outbox.waiting(A) == 2
        await trio.testing.wait_all_tasks_blocked()
        transport.blocked.clear()  # there is room, but its frames keep their order
        assert outbox.send(A, b"3")
        transport.unblock()
        await outbox.flush()
        assert transport.sent[A] == [b"0", b"1", b"3"]
        assert outbox.waiting(A) == 0


async def test_bounds() -> None:
    transport = FakeTransport(blocked={A, B})
    async with running(transport) as outbox:
        assert outbox.send(A, bytes(10))
        assert not outbox.send(A, b"x")  # the peer's
        assert outbox.send(B, bytes(5))
        assert not outbox.send(B, b"x")  # all together
        assert (outbox.dropped[A], outbox.dropped[B]) == (1, 1)
        transport.unblock(A, B)
        await outbox.flush()
        assert outbox.send(A, b"x") and outbox.send(B, b"x")
        outbox.forget(A)
        assert outbox.dropped[A] == 0


async def test_a_frame_over_every_bound_still_passes_an_open_pipe() -> None:
    transport = FakeTransport()
    async with running(transport) as outbox:
        assert outbox.send(A, bytes(1000))


async def test_waiting_for_room() -> None:
    transport = FakeTransport(blocked={A})
    async with running(transport) as outbox, trio.open_nursery() as nursery:
        await outbox.wait_room()  # nothing waits
        outbox.send(A, bytes(10))

        async def send_when_there_is_room() -> None:
            while not outbox.send(A, b"late"):
                await outbox.wait_room()

        nursery.start_soon(send_when_there_is_room)
        await trio.testing.wait_all_tasks_blocked()
        transport.unblock(A)
        await trio.testing.wait_all_tasks_blocked()
        assert transport.sent[A] == [bytes(10), b"late"]


async def test_a_link_that_is_closed_drops_and_counts() -> None:
    transport = FakeTransport(blocked={A})
    async with running(transport) as outbox:
        for frame in (b"0", b"1"):
            outbox.send(A, frame)
        await trio.testing.wait_all_tasks_blocked()
        outbox.discard(A)
        assert (outbox.waiting(A), outbox.dropped[A]) == (0, 2)
        await outbox.flush()
        outbox.send(A, b"2")  # of the next link, behind a task that still waits for the last
        assert outbox.waiting(A) == 1
        transport.unblock(A)
        await outbox.flush()
        assert transport.sent[A] == [b"2"]
        outbox.discard(B)  # that there was nothing is no error


async def test_closing_tells_who_waits() -> None:
    transport = FakeTransport(blocked={A})
    async with running(transport) as outbox, trio.open_nursery() as nursery:
        outbox.send(A, b"0")
        nursery.start_soon(outbox.flush)
        nursery.start_soon(outbox.wait_room)
        await trio.testing.wait_all_tasks_blocked()
        outbox.close()


async def test_before_and_after_it_runs_nothing_is_queued() -> None:
    transport = FakeTransport(blocked={A})
    outbox = Outbox(as_any(transport), CONFIG)
    assert not outbox.send(A, b"0")
    async with trio.open_nursery() as nursery:
        await nursery.start(outbox.run)
        assert outbox.send(A, b"1")
        nursery.cancel_scope.cancel()
    outbox.close()
    assert not outbox.send(A, b"2")
    assert outbox.send(B, b"straight through")
