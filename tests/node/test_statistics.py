"""What is counted: nothing disappears without a number."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import FrozenInstanceError, replace

import pytest
import trio

import mesh
from mesh.node.node import Node
from tests.node.meshes import CALM, MemoryMeshes, Meshes, background, take, until

MeshOf = Callable[..., AbstractAsyncContextManager[list[Node]]]


def settled(node: Node, published: int) -> Callable[[], bool]:
    """Everything that was published is accounted for at this receiver."""

    def check() -> bool:
        seen = node.statistics()
        return seen.delivered + seen.lost + seen.dropped + seen.queued == published

    return check


async def test_a_snapshot(mesh_of: MeshOf) -> None:
    async with mesh_of(2) as (left, right), right.subscribe("t/*", group=None) as messages:
        for value in range(5):
            await left.publish("t/x", value)
        await take(messages, 3)
        await until(right, lambda: right.statistics().received == 5)
        sent, seen = left.statistics(), right.statistics()
        assert (sent.published, sent.received, sent.rejected) == (5, 0, 0)
        assert (seen.published, seen.received, seen.delivered, seen.queued) == (0, 5, 3, 2)
        assert (seen.lost, seen.dropped, seen.repaired, seen.duplicates, seen.congested) == (0, 0, 0, 0, 0)
        assert dict(seen.rejected_by_reason) == {}
        (subscription,) = seen.subscriptions
        assert (subscription.pattern, subscription.group) == ("t/*", "")
        assert (subscription.received, subscription.delivered, subscription.queued) == (5, 3, 2)
        peer = seen.peers[left.id]
        assert (peer.id, peer.name, peer.received, peer.lost, peer.dropped) == (left.id, left.name, 5, 0, 0)
        assert peer.queued_bytes == 0
        with pytest.raises(FrozenInstanceError):
            seen.received = 0  # type: ignore[misc]
        with pytest.raises(TypeError):
            seen.peers["x"] = peer  # type: ignore[index]


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "raise"])
async def test_the_account_with_every_overflow(mesh_of: MeshOf, policy: str) -> None:
    """delivered + lost + dropped = published, at a receiver that was there from the start."""
    published = 5000
    async with (
        mesh_of(2) as (left, right),
        right.subscribe("t", buffer=64, overflow=policy) as messages,
        left.publisher("t") as publisher,
    ):
        read = 0

        async def reader() -> None:
            nonlocal read
            while True:
                try:
                    async for _ in messages:
                        read += 1
                except mesh.Overflowed:
                    continue

        async with background(reader):
            for value in range(published):
                await publisher.publish(value)
                if value % 1000 == 0:
                    await trio.lowlevel.checkpoint()
            await until(right, settled(right, published))
            await until(right, lambda: right.statistics().queued == 0)
            seen = right.statistics()
            assert seen.delivered + seen.lost + seen.dropped == published == left.statistics().published
            assert (seen.delivered, seen.lost) == (read, 0)
            assert seen.dropped > 0


async def test_the_account_of_own_messages(meshes: Meshes) -> None:
    async with meshes.open() as node, node.subscribe("t", buffer=10) as messages:
        for value in range(100):
            await node.publish("t", value)
        await take(messages, 10)
        seen = node.statistics()
        assert (seen.published, seen.received, seen.delivered, seen.dropped) == (100, 100, 10, 90)


async def test_what_a_subscription_counted_outlives_it(mesh_of: MeshOf) -> None:
    async with mesh_of(2) as (left, right):
        async with right.subscribe("t", buffer=4) as messages:
            for value in range(10):
                await left.publish("t", value)
            await until(right, settled(right, 10))
            await take(messages, 2)
        seen = right.statistics()
        # What still waited when the program left is dropped, too.
        assert (seen.delivered, seen.dropped, seen.queued, seen.subscriptions) == (2, 8, 0, ())


async def test_losses_are_seen_where_they_happen() -> None:
    """A link that breaks loses what was under way: the receiver counts it when the next message comes."""
    meshes = MemoryMeshes()
    async with (
        meshes.of(2) as (left, right),
        right.subscribe("t") as messages,
        left.publisher("t") as publisher,
    ):
        hosts = [node._transport.host for node in (left, right)]  # type: ignore[attr-defined]
        await publisher.publish("first")
        await take(messages, 1)
        meshes.network.cut(*hosts)
        for value in range(100):
            await publisher.publish(value)
        await publisher.flush()
        meshes.network.reset(*hosts)
        meshes.network.heal(*hosts)
        await publisher.wait_for_subscribers(1)
        while right.statistics().lost == 0:
            await publisher.publish("again")
            with trio.move_on_after(0.01):
                await take(messages, 1)
        while right.statistics().queued:
            await take(messages, 1)
        await until(right, settled(right, left.statistics().published))
        seen = right.statistics()
        assert seen.lost >= 100
        assert seen.subscriptions[0].lost == seen.peers[left.id].lost == seen.lost


async def test_a_slow_subscriber_loses_and_nobody_else() -> None:
    """Its pipe stays full for longer than the patience: it sees the gap, the others see everything."""
    meshes = MemoryMeshes()
    meshes.network.pipe = 4
    config = replace(CALM, congestion_patience=0.05, batch_messages=1)
    async with (
        meshes.of(3, config=config) as (writer, quick, slow),
        quick.subscribe("t") as messages,
        slow.subscribe("t") as slow_messages,
        writer.publisher("t") as publisher,
    ):
        await publisher.publish(0)
        await take(messages, 1)
        await take(slow_messages, 1)
        meshes.network.pause(slow._transport.host)  # type: ignore[attr-defined]
        for value in range(1, 100):
            await publisher.publish(value)
        assert [m.value for m in await take(messages, 99)] == list(range(1, 100))
        assert writer.statistics().congested > 0
        meshes.network.resume(slow._transport.host)  # type: ignore[attr-defined]
        await publisher.flush()
        value = 100
        while slow.statistics().lost == 0:
            await publisher.publish(value)
            await publisher.flush()
            value += 1
            with trio.move_on_after(0.01):
                await take(slow_messages, 1)
        while slow.statistics().queued:
            await take(slow_messages, 1)
        await until(slow, settled(slow, value))
        assert quick.statistics().lost == 0


async def test_garbage_is_counted_by_reason(mesh_of: MeshOf) -> None:
    async with mesh_of(2) as (left, right):
        node = next(iter(left._presence.peers))
        left._transport.send_direct(node, b"\xff garbage")
        await until(right, lambda: right.statistics().rejected)
        seen = right.statistics()
        assert (seen.rejected, dict(seen.rejected_by_reason)) == (1, {"bad_message": 1})
        assert dict(seen.peers[left.id].rejected) == {"bad_message": 1}


async def test_requests_are_counted(mesh_of: MeshOf) -> None:
    go = trio.Event()

    async def handler(request: mesh.Request) -> None:
        await go.wait()

    async with mesh_of(2) as (left, right):

        async def serve() -> None:
            await right.serve("t", handler)

        async def ask() -> None:
            await left.request("t", timeout=3600)

        async with background(serve):
            await until(left, lambda: left._engine.router.responders("t"))
            async with background(ask):
                await until(right, lambda: right.statistics().requests_served == 1)
                assert left.statistics().requests_in_flight == 1
                go.set()
                await until(left, lambda: left.statistics().requests_in_flight == 0)
