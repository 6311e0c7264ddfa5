"""Reliable publishers through the API: nothing is lost, or it is named; and every loss is an event."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest
import trio

import mesh
from mesh.node.node import Node
from tests.node.meshes import CALM, PATIENCE, MemoryMeshes, Meshes, background, take, until, values

MeshOf = Callable[..., AbstractAsyncContextManager[list[Node]]]


def host(node: Node) -> str:
    return node._transport.host  # type: ignore[attr-defined, no-any-return]


async def next_loss(watch: mesh.LossWatch) -> mesh.MessagesLost:
    with trio.fail_after(PATIENCE):
        return await anext(watch)


async def test_it_is_a_publisher_like_any_other(mesh_of: MeshOf) -> None:
    async with (
        mesh_of(2) as (left, right),
        right.subscribe("t") as messages,
        left.subscribe("t") as own,
        left.publisher("t", reliable=True) as publisher,
    ):
        for value in range(2000):
            await publisher.publish(value, headers={"n": str(value)} if value % 7 == 0 else None)
        assert await values(messages, 2000) == list(range(2000))
        assert await values(own, 2000) == list(range(2000))
        seen = right.statistics()
        assert (seen.lost, seen.repaired, seen.awaited, seen.duplicates) == (0, 0, 0, 0)


async def test_what_a_broken_connection_lost_is_repaired() -> None:
    meshes = MemoryMeshes()
    async with (
        meshes.of(2) as (left, right),
        right.subscribe("t") as messages,
        left.publisher("t", reliable=True) as publisher,
    ):
        await publisher.publish(0)
        assert await values(messages, 1) == [0]
        meshes.network.cut(host(left), host(right))
        for value in range(1, 500):
            await publisher.publish(value)
            if value % 50 == 0:
                await trio.lowlevel.checkpoint()
        await publisher.flush()
        meshes.network.reset(host(left), host(right))
        meshes.network.heal(host(left), host(right))
        assert await values(messages, 499) == list(range(1, 500))  # though nothing more is published
        seen = right.statistics()
        assert seen.lost == 0
        assert seen.repaired > 0
        assert seen.delivered == left.statistics().published == 500


async def test_a_subscriber_that_pauses_misses_nothing() -> None:
    """Its pipe is full for longer than the publisher's patience; the others do not wait for it."""
    meshes = MemoryMeshes()
    meshes.network.pipe = 4
    config = replace(CALM, congestion_patience=0.05, batch_messages=1)
    async with (
        meshes.of(3, config=config) as (writer, quick, slow),
        quick.subscribe("t") as messages,
        slow.subscribe("t") as late,
        writer.publisher("t", reliable=True) as publisher,
    ):
        await publisher.publish(0)
        await take(messages, 1)
        await take(late, 1)
        meshes.network.pause(host(slow))
        for value in range(1, 100):
            await publisher.publish(value)
        assert await values(messages, 99) == list(range(1, 100))
        assert writer.statistics().congested > 0
        meshes.network.resume(host(slow))
        assert await values(late, 99) == list(range(1, 100))
        assert slow.statistics().lost == 0 < slow.statistics().repaired


async def test_what_the_ring_has_let_go_is_an_event_with_its_range() -> None:
    meshes = MemoryMeshes()
    meshes.network.pipe = 4
    config = replace(CALM, congestion_patience=0.05, batch_messages=1)
    async with (
        meshes.of(2, config=config) as (left, right),
        right.subscribe("t") as messages,
        left.publisher("t", reliable=True, ring=64 << 10) as publisher,
    ):
        watch = right.watch_losses()
        await publisher.publish(bytes(1000))
        await take(messages, 1)
        meshes.network.pause(host(right))
        for _ in range(500):
            await publisher.publish(bytes(1000))
        await publisher.flush()
        meshes.network.resume(host(right))
        loss = await next_loss(watch)
        assert (loss.topic, loss.why, loss.peer.id) == ("t", "not_kept", left.id)
        assert loss.count > 300
        received = [message.sequence for message in await take(messages, 500 - loss.count)]
        missed = range(loss.first, loss.first + loss.count)
        assert received == [number for number in range(1, 501) if number not in missed]
        await until(right, lambda: right.statistics().awaited == 0)
        seen = right.statistics()
        assert seen.delivered + seen.lost == left.statistics().published == 501
        assert dict(seen.lost_by_cause) == {"not_kept": loss.count}
        assert messages.lost == loss.count


async def test_every_loss_of_others_is_an_event_too() -> None:
    meshes = MemoryMeshes()
    async with (
        meshes.of(2) as (left, right),
        right.subscribe("t") as messages,
        left.publisher("t") as publisher,
    ):
        watch = right.watch_losses()
        await publisher.publish(0)
        await take(messages, 1)
        meshes.network.cut(host(left), host(right))
        for value in range(1, 4):
            await publisher.publish(value)
        await publisher.flush()
        meshes.network.reset(host(left), host(right))
        meshes.network.heal(host(left), host(right))
        loss = await next_loss(watch)  # though nothing more is published
        assert (loss.topic, loss.first, loss.count, loss.why) == ("t", 1, 3, "network")
        assert loss.peer.name == left.name
        assert dict(right.statistics().lost_by_cause) == {"network": 3}
        assert right.statistics().peers[left.id].lost == messages.lost == 3


async def test_a_watch_ends_with_its_node(meshes: Meshes) -> None:
    async with meshes.open() as node:
        watch = node.watch_losses()
    with trio.fail_after(PATIENCE):
        assert [loss async for loss in watch] == []
    assert watch.dropped == 0


async def test_the_last_words_of_a_publisher_arrive(mesh_of: MeshOf, meshes: Meshes) -> None:
    """It publishes and leaves at once; the subscriber has everything."""
    async with meshes.open("reader") as reader, reader.subscribe("t") as messages:
        async with meshes.open("writer") as writer, writer.publisher("t", reliable=True) as publisher:
            with trio.fail_after(PATIENCE):
                await publisher.wait_for_subscribers(1)
            for value in range(3000):
                await publisher.publish(value)
        assert await values(messages, 3000) == list(range(3000))
        assert reader.statistics().lost == 0


async def test_repair_before_a_publisher_leaves() -> None:
    """What is missing at the end is asked for while it drains."""
    meshes = MemoryMeshes()
    async with meshes.open("reader") as reader, reader.subscribe("t") as messages:
        async with meshes.open("writer") as writer, writer.publisher("t", reliable=True) as publisher:
            with trio.fail_after(PATIENCE):
                await publisher.wait_for_subscribers(1)
            await publisher.publish(0)
            await take(messages, 1)
            airlock = writer._publishing.airlock
            send, airlock.send = airlock.send, lambda *frame: None  # type: ignore[method-assign]
            await publisher.publish(1)
            await publisher.flush()
            airlock.send = send  # type: ignore[method-assign]
        assert await values(messages, 1) == [1]


async def test_dropped_by_reason(mesh_of: MeshOf) -> None:
    async with mesh_of(2) as (left, right):
        async with right.subscribe("t", buffer=4) as messages:
            for value in range(10):
                await left.publish("t", value)
            await until(right, lambda: right.statistics().received == 10)
            await take(messages, 1)
            assert dict(right.statistics().dropped_by_reason) == {"drop_oldest": 6}
        seen = right.statistics()
        assert dict(seen.dropped_by_reason) == {"drop_oldest": 6, "unsubscribed": 3}
        assert seen.dropped == 9


@pytest.mark.parametrize(
    ("options", "key", "says"),
    [
        ({"ring": 1 << 20}, "ring", "nothing is kept"),
        ({"reliable": True, "ring": 100}, "ring", "holds one batch"),
        ({"reliable": True, "ring": "1 MiB"}, "ring", "holds one batch"),
        ({"reliable": True, "ring": 1 << 40}, "ring", "do not fit"),
    ],
)
async def test_what_cannot_be_kept_is_refused(
    meshes: Meshes, options: dict[str, Any], key: str, says: str
) -> None:
    async with meshes.open() as node:
        with pytest.raises(mesh.ConfigError, match=says) as caught:
            node.publisher("t", **options)
        assert caught.value.key == key


async def test_two_publishers_of_one_topic_are_one_stream(mesh_of: MeshOf) -> None:
    async with (
        mesh_of(2) as (left, right),
        right.subscribe("t") as messages,
        left.publisher("t") as plain,
        left.publisher("t", reliable=True) as reliable,
    ):
        for value in range(100):
            await (plain if value % 2 else reliable).publish(value)
        await left.publish("t", 100)
        assert await values(messages, 101) == list(range(101))


async def test_a_reader_that_keeps_up_under_reset_after_reset() -> None:
    meshes = MemoryMeshes()
    async with (
        meshes.of(2) as (left, right),
        right.subscribe("t") as messages,
        left.publisher("t", reliable=True) as publisher,
    ):

        async def trouble() -> None:
            while True:
                await trio.sleep(0.02)
                meshes.network.reset(host(left), host(right))

        async def write() -> None:
            for value in range(3000):
                await publisher.publish(value)
                if value % 20 == 0:
                    await trio.sleep(0.002)

        async with background(trouble):
            await write()
        assert await values(messages, 3000) == list(range(3000))
        assert right.statistics().lost == 0
