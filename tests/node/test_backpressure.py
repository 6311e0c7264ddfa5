"""``overflow="backpressure"``: publishers wait for a subscriber, for a bounded patience, and nobody else is slowed by it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest
import trio

import mesh
from mesh.node.node import Node
from mesh.node.subscription import check_subscription
from tests.node.meshes import CALM, HASTY, PATIENCE, MemoryMeshes, Meshes, background, until, values, vanish

MeshOf = Callable[..., AbstractAsyncContextManager[list[Node]]]

STUBBORN = replace(CALM, backpressure_patience=3600.0)
"""Nobody is cut off because the machine is busy."""

HURRIED = replace(CALM, backpressure_patience=0.05)


def host(node: Node) -> str:
    return node._transport.host  # type: ignore[attr-defined, no-any-return]


class Writer:
    """Publishes numbers, one after the other; ``done`` counts the calls that have returned."""

    def __init__(self, publisher: mesh.Publisher, count: int) -> None:
        self.publisher = publisher
        self.count = count
        self.done = 0

    async def run(self) -> None:
        for number in range(self.count):
            await self.publisher.publish(number)
            self.done += 1


async def settled(writer: Writer) -> int:
    """How far it comes before it waits."""
    with trio.fail_after(PATIENCE):
        while True:
            before = writer.done
            await trio.sleep(0.05)
            if writer.done == before and writer.publisher._publishing.pacing._waiting:
                return before


@pytest.mark.parametrize("reliable", [False, True])
async def test_a_publisher_waits_and_nobody_else_does(mesh_of: MeshOf, reliable: bool) -> None:
    async with (
        mesh_of(3, config=STUBBORN) as (left, quick, slow),
        slow.subscribe("t", overflow="backpressure", buffer=10) as waited_for,
        quick.subscribe("t") as others,
        left.publisher("t", reliable=reliable) as publisher,
    ):
        writer = Writer(publisher, 100)
        async with background(writer.run):
            assert await settled(writer) == 9  # the tenth is sent, and waits
            assert await values(others, 10) == list(range(10))
            with pytest.raises(trio.WouldBlock):
                publisher.publish_nowait(0)
            assert await values(waited_for, 100) == list(range(100))
            assert await values(others, 90) == list(range(10, 100))
        seen = slow.statistics()
        assert (seen.dropped, seen.lost, seen.delivered) == (0, 0, 100)


async def test_publishing_without_a_publisher_waits_too(mesh_of: MeshOf) -> None:
    async with (
        mesh_of(2, config=STUBBORN) as (left, slow),
        slow.subscribe("t/*", overflow="backpressure", buffer=3) as waited_for,
    ):
        done = 0

        async def write() -> None:
            nonlocal done
            for number in range(20):
                await left.publish(f"t/{number}", number)  # the window counts all topics together
                done += 1

        async with background(write):
            await until(left, lambda: left._publishing.pacing._waiting)
            assert done == 2
            assert sorted(await values(waited_for, 20)) == list(range(20))


async def test_a_subscription_of_the_same_node_is_waited_for() -> None:
    async with (
        MemoryMeshes().of(1, config=STUBBORN) as (node,),
        node.subscribe("t", overflow="backpressure", buffer=4) as messages,
        node.publisher("t") as publisher,
    ):
        writer = Writer(publisher, 50)
        async with background(writer.run):
            assert await settled(writer) == 3
            assert await values(messages, 50) == list(range(50))


async def test_who_takes_nothing_is_cut_off_and_told(mesh_of: MeshOf) -> None:
    async with (
        mesh_of(3, config=HURRIED) as (left, quick, slow),
        slow.subscribe("t", overflow="backpressure", buffer=10) as waited_for,
        quick.subscribe("t") as others,
        left.publisher("t", reliable=True) as publisher,
    ):
        incidents = left.watch_incidents()
        with trio.fail_after(PATIENCE):
            for number in range(100):
                await publisher.publish(number)  # waits once, and then no more
        assert left.statistics().cut_off == 1
        with trio.fail_after(PATIENCE):
            while "cut off" not in (await anext(incidents)).kind:
                pass
        assert await values(others, 100) == list(range(100))
        await until(slow, lambda: waited_for.received == 100)
        got = []
        with trio.fail_after(PATIENCE), pytest.raises(mesh.CutOff) as caught:
            async for message in waited_for:
                got.append(message.value)
        assert got == list(range(len(got)))  # what it had room for, in order …
        # … and which it has not; the news goes another way than messages and may come behind all of them
        assert caught.value.missing == ({"t": (len(got), 100)} if len(got) < 100 else {})
        assert caught.value.dropped == waited_for.dropped == 100 - len(got)
        assert caught.value.publisher == "node-0"
        assert isinstance(caught.value, mesh.Overflowed)
        # It goes on from there, and is waited for again.
        await publisher.publish("again")
        assert await values(waited_for, 1) == ["again"]
        assert slow.statistics().dropped_by_reason.get("backpressure", 0) == 100 - len(got)


@pytest.mark.parametrize("how", ["unsubscribes", "leaves", "dies"])
async def test_a_subscriber_that_goes_sets_its_publishers_free(meshes: Meshes, how: str) -> None:
    config = replace(HASTY, backpressure_patience=3600.0)
    async with meshes.open(config=config) as left, trio.open_nursery() as nursery:
        writer = Writer(left.publisher("t"), 10)
        async with meshes.open(config=config) as slow:
            with trio.fail_after(PATIENCE):
                await left.wait_for_peers(1)
            async with slow.subscribe("t", overflow="backpressure", buffer=2) as subscription:
                nursery.start_soon(writer.run)
                assert await settled(writer) == 1
                if how == "dies":
                    vanish(slow)
                elif how == "unsubscribes":
                    slow._board.leave(subscription)
                if how != "leaves":
                    await until(left, lambda: writer.done == 10)
        await until(left, lambda: writer.done == 10)
        assert left.statistics().windows == ()


async def test_a_new_connection_opens_the_window() -> None:
    """What was on its way when the link was lost is not waited for."""
    meshes = MemoryMeshes()
    async with (
        meshes.of(2, config=replace(HASTY, backpressure_patience=3600.0)) as (left, slow),
        slow.subscribe("t", overflow="backpressure", buffer=5) as messages,
        left.publisher("t", reliable=True) as publisher,
    ):
        writer = Writer(publisher, 100)
        async with background(writer.run):
            await settled(writer)
            meshes.network.cut(host(left), host(slow))
            await until(left, lambda: not left.peers)
            await until(left, lambda: writer.done == 100)
            meshes.network.reset(host(left), host(slow))
            meshes.network.heal(host(left), host(slow))
            assert await values(messages, 100) == list(range(100))  # from the ring


async def test_a_cancelled_publisher_leaves_nothing_behind(mesh_of: MeshOf) -> None:
    async with (
        mesh_of(2, config=STUBBORN) as (left, slow),
        slow.subscribe("t", overflow="backpressure", buffer=1) as waited_for,
        left.publisher("t") as publisher,
    ):
        for number in range(3):
            with trio.move_on_after(0.02) as scope:
                await publisher.publish(number)
            assert scope.cancelled_caught  # it was sent all the same
        assert not left.statistics().windows[0].waiting
        assert await values(waited_for, 3) == [0, 1, 2]
        writer = Writer(publisher, 3)
        async with background(writer.run):
            assert await values(waited_for, 3) == [0, 1, 2]


async def test_it_is_said_who_is_waited_for() -> None:
    async with (
        MemoryMeshes().of(2, config=STUBBORN) as (left, slow),
        slow.subscribe("t/**", overflow="backpressure", buffer=2),
        left.publisher("t/1") as publisher,
    ):
        writer = Writer(publisher, 10)
        incidents = left.watch_incidents()
        async with background(writer.run):
            await settled(writer)
            (window,) = left.statistics().windows
            assert (window.name, window.pattern, window.ahead, window.messages) == ("node-1", "t/**", 2, 2)
            assert window.waiting
            with trio.fail_after(PATIENCE):
                incident = await anext(incidents)
            assert incident.kind == "slow subscriber"
            assert "node-1's subscription to 't/**'" in incident.detail


async def test_who_ignores_its_window_fills_no_memory() -> None:
    """A publisher of another mind sends on: what does not fit is dropped, counted, and told."""
    limits = replace(CALM.limits, subscription_bytes=64 << 10)
    async with (
        MemoryMeshes().of(2, config=replace(STUBBORN, limits=limits)) as (left, slow),
        slow.subscribe("t", overflow="backpressure", buffer=10) as messages,
    ):
        left._engine.windows._drop(left._engine.windows.of(left._engine.router.route("t"))[0].member)
        for number in range(2000):
            await left.publish("t", number)
        await until(slow, lambda: messages.received == 2000)
        assert messages.queued <= 1024
        got = []
        with pytest.raises(mesh.CutOff) as caught:
            async for message in messages:
                got.append(message.value)
        assert got == list(range(len(got)))
        assert caught.value.missing == {"t": (len(got), 2000)}


async def test_what_was_sent_to_it_alone_is_not_waited_for(mesh_of: MeshOf) -> None:
    async with (
        mesh_of(2, config=STUBBORN) as (left, slow),
        slow.subscribe("t", overflow="backpressure", buffer=2) as messages,
    ):
        for number in range(20):
            await left.publish("t", number, to=slow.id)
        assert await values(messages, 20) == list(range(20))


async def test_history_comes_first(mesh_of: MeshOf) -> None:
    async with mesh_of(2, config=STUBBORN) as (left, slow), left.publisher("t", history=50) as publisher:
        for number in range(50):
            await publisher.publish(number)
        await publisher.flush()
        async with slow.subscribe("t", overflow="backpressure", buffer=4, history=50) as messages:
            writer = Writer(publisher, 20)
            async with background(writer.run):
                assert await settled(writer) == 3
                assert await values(messages, 70) == [*range(50), *range(20)]


def test_a_group_is_not_waited_for_in_this_way() -> None:
    with pytest.raises(mesh.ConfigError, match=r"overflow: .*group"):
        check_subscription("backpressure", 1, 0, "g")
