"""The fake transport holds the contract, and does what a simulation asks of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from mesh.config import Config
from mesh.core.types import MeshId
from mesh.transport.base import LinkKey, Transport
from mesh.transport.memory import MemoryNetwork
from tests.transport.contract import (
    CONFIG,
    MESH,
    PIPE,
    Node,
    Recorder,
    TransportContract,
    World,
    link_up,
    listen_to,
    new_link,
    publish,
    subscribed,
)


class MemoryWorld(World):
    def __init__(self, **settings: float) -> None:
        self.network = MemoryNetwork(pipe=PIPE, **settings)  # type: ignore[arg-type]
        self._places = 0

    def make(self, place: str | None, link: LinkKey, mesh: MeshId, config: Config) -> tuple[Transport, str]:
        transport = self.network.transport(link, mesh, config, host=place)
        return transport, transport.host

    def place(self) -> str:
        self._places += 1
        return f"10.99.0.{self._places}"

    @asynccontextmanager
    async def stuck_subscriber(self, publisher: Node, body: bytes) -> AsyncIterator[Callable[[], None]]:
        async with self.node() as node:
            listen_to(node, publisher)
            node.transport.subscribe(body)
            await subscribed(publisher, b"\1" + body)
            self.network.pause(node.host)
            yield lambda: self.network.resume(node.host)


@pytest.fixture
def world() -> World:
    return MemoryWorld()


class TestMemory(TransportContract):
    pass


class TestMemoryWithDelay(TransportContract):
    @pytest.fixture
    def world(self) -> World:
        return MemoryWorld(latency=0.0005, jitter=0.0005)


async def test_a_cut_holds_up_and_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    world = MemoryWorld(latency=0.01)
    async with world.node() as a, world.node() as b:
        link_up(a, b)
        a.transport.send_direct(b.id, b"1")
        await b.events.until(lambda: b.events.direct)
        world.network.cut(a.host, b.host)
        a.transport.send_direct(b.id, b"2")
        await trio.sleep(5)
        assert b.events.direct == [(a.id, b"1")]
        world.network.heal(a.host, b.host)
        await b.events.until(lambda: len(b.events.direct) == 2)


async def test_a_cut_one_way_lets_the_other_pass(autojump_clock: trio.testing.MockClock) -> None:
    world = MemoryWorld(latency=0.01)
    async with world.node() as a, world.node() as b:
        link_up(a, b)
        link_up(b, a)
        await a.events.until(lambda: a.events.seen)
        await b.events.until(lambda: b.events.seen)
        world.network.cut(a.host, b.host, one_way=True)
        a.transport.send_direct(b.id, b"x")
        b.transport.send_direct(a.id, b"x")
        await a.events.until(lambda: a.events.direct)
        await trio.sleep(1)
        assert not b.events.direct


async def test_connections_are_made_when_a_cut_is_healed(autojump_clock: trio.testing.MockClock) -> None:
    world = MemoryWorld()
    async with world.node() as a, world.node() as b:
        world.network.cut(b.host, a.host, one_way=True)
        link_up(a, b)
        a.transport.send_direct(b.id, b"x")
        route = a.transport.dial_intro(b.address.intro)
        a.transport.send_intro(route, b"hello")
        await trio.sleep(10)
        assert not b.events.direct
        assert not a.events.failed
        world.network.heal(b.host, a.host, one_way=True)
        await b.events.until(lambda: b.events.direct and b.events.intro)


async def test_a_reset_loses_what_is_on_its_way(autojump_clock: trio.testing.MockClock) -> None:
    world = MemoryWorld(latency=0.01)
    async with world.node() as p, world.node() as s:
        listen_to(s, p)
        s.transport.subscribe(b"me:t")
        await subscribed(p, b"\1me:t")
        await publish(p, b"t", b"lost")
        world.network.reset(p.host, s.host)
        p.events.subscriptions.clear()
        await subscribed(p, b"\1me:t")
        await publish(p, b"t", b"heard")
        await s.events.until(lambda: s.events.broadcast)
        assert s.events.broadcast == [(b"t", b"heard")]


async def test_a_crash_says_no_goodbye(autojump_clock: trio.testing.MockClock) -> None:
    world = MemoryWorld(latency=0.01)
    async with world.node() as b:
        async with world.node() as a:
            link_up(a, b)
            a.transport.send_direct(b.id, b"hello")
            await b.events.until(lambda: b.events.direct)
            a.transport.send_direct(b.id, b"goodbye")
            world.network.crash(a.host)
        await trio.sleep(10)
        assert b.events.direct == [(a.id, b"hello")]


async def test_the_delay_is_the_ways_own(autojump_clock: trio.testing.MockClock) -> None:
    world = MemoryWorld()
    async with world.node() as a, world.node() as b:
        link_up(a, b)
        link_up(b, a)
        await a.events.until(lambda: a.events.seen)
        await b.events.until(lambda: b.events.seen)
        world.network.delay(a.host, b.host, 3.0, one_way=True)
        start = trio.current_time()
        b.transport.send_direct(a.id, b"x")
        await a.events.until(lambda: a.events.direct)
        assert trio.current_time() - start == pytest.approx(0.0, abs=0.01)
        a.transport.send_direct(b.id, b"x")
        await b.events.until(lambda: b.events.direct)
        assert trio.current_time() - start == pytest.approx(3.0, abs=0.01)


async def _run(seed: int) -> list[tuple[int, bytes]]:
    """Three senders to one receiver over a way with jitter: who arrived when."""
    world = MemoryWorld(seed=seed, latency=0.01, jitter=0.05)
    async with world.node() as a, world.node() as b, world.node() as c, world.node() as d:
        senders = [a, b, c]
        for sender in senders:
            link_up(sender, d)
            for number in range(10):
                sender.transport.send_direct(d.id, b"%d" % number)
        await d.events.until(lambda: len(d.events.direct) == 30)
        ids = [sender.id for sender in senders]
        return [(ids.index(who), frame) for who, frame in d.events.direct]


async def test_a_seed_replays(autojump_clock: trio.testing.MockClock) -> None:
    assert await _run(7) == await _run(7)
    assert await _run(7) != await _run(8)


async def test_delivery_goes_on_when_the_one_who_delivers_ends() -> None:
    world = MemoryWorld()
    first, _ = world.make(None, new_link(), MESH, CONFIG)
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def run_first(task_status: trio.TaskStatus[object]) -> None:
            with scope:
                await first.run(Recorder(), task_status=task_status)

        await nursery.start(run_first)
        async with world.node() as a, world.node() as b:
            scope.cancel()
            link_up(a, b)
            a.transport.send_direct(b.id, b"x")
            await b.events.until(lambda: b.events.direct)
