"""The airlock: in order, with a bounded patience, and past whoever stays full for longer."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import mesh
from mesh.node.airlock import Airlock
from tests.node.fakes import FakeTransport, as_any

PATIENCE = 10.0


def airlock(transport: FakeTransport) -> Airlock:
    return Airlock(as_any(transport), mesh.Config.local(congestion_patience=PATIENCE))


def frames(*numbers: int) -> list[tuple[bytes, bytes]]:
    return [(b"tag", b"%d" % number) for number in numbers]


def test_with_room_everything_passes_at_once() -> None:
    transport = FakeTransport()
    it = airlock(transport)
    for frame in frames(0, 1):
        it.send(*frame)
    assert transport.published == frames(0, 1)


async def test_what_waits_goes_out_in_order(autojump_clock: trio.testing.MockClock) -> None:
    transport = FakeTransport(full=True)
    it = airlock(transport)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(it.run)
        for frame in frames(0, 1):
            it.send(*frame)
        await trio.testing.wait_all_tasks_blocked()
        transport.full = False  # there is room, but the two that wait go first
        it.send(*frames(2)[0])
        assert transport.published == []
        transport.unblock()
        await it.flush()
        assert transport.published == frames(0, 1, 2)
        assert (transport.lossy, it.lossy) == ([], 0)
        it.send(*frames(3)[0])
        assert transport.published == frames(0, 1, 2, 3)
        nursery.cancel_scope.cancel()


async def test_patience_is_bounded_and_then_the_slow_one_loses(
    autojump_clock: trio.testing.MockClock,
) -> None:
    transport = FakeTransport(full=True)
    it = airlock(transport)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(it.run)
        for frame in frames(0, 1, 2):
            it.send(*frame)
        await trio.sleep(PATIENCE - 0.1)
        assert transport.lossy == []
        await trio.sleep(0.2)
        assert transport.lossy == frames(0, 1, 2)  # once out of patience, all that waits passes it
        assert (transport.published, it.lossy) == ([], 3)
        nursery.cancel_scope.cancel()


async def test_patience_begins_anew_when_it_was_empty(autojump_clock: trio.testing.MockClock) -> None:
    transport = FakeTransport(full=True)
    it = airlock(transport)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(it.run)
        for n in range(3):
            transport.full = True
            it.send(*frames(n)[0])
            await trio.sleep(PATIENCE * 0.8)
            transport.unblock()
            await it.flush()
        assert transport.published == frames(0, 1, 2) and it.lossy == 0
        nursery.cancel_scope.cancel()


async def test_it_is_full_by_bytes(autojump_clock: trio.testing.MockClock) -> None:
    transport = FakeTransport(full=True)
    it = airlock(transport)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(it.run)
        for _ in range(4):
            it.send(b"tag", bytes(1 << 20))
            assert not it.full
        it.send(b"tag", b"one more")
        assert it.full
        nursery.start_soon(it.wait_room)
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 2
        transport.unblock()
        await it.flush()
        assert not it.full
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("waiter", ["wait_room", "flush"])
async def test_closing_tells_who_waits(waiter: str, autojump_clock: trio.testing.MockClock) -> None:
    transport = FakeTransport(full=True)
    it = airlock(transport)
    for _ in range(5):
        it.send(b"tag", bytes(1 << 20))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(getattr(it, waiter))
        await trio.testing.wait_all_tasks_blocked()
        it.close()
    assert not it.full
