"""History and retained values through the API, over both transports."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio

import mesh
from mesh.node.node import Node
from tests.node.meshes import Meshes, background, until, values

MeshOf = Callable[..., AbstractAsyncContextManager[list[Node]]]


async def test_the_last_n_then_what_is_live(mesh_of: MeshOf) -> None:
    async with mesh_of(2) as (left, right), left.publisher("t", history=10) as publisher:
        for value in range(50):
            await publisher.publish(value)
        await publisher.flush()  # else they leave at the end of the tick, perhaps live for the subscriptions
        async with right.subscribe("t", history=3) as some, right.subscribe("t", history=500) as more:
            await publisher.publish(50)
            assert await values(some, 4) == [47, 48, 49, 50]
            assert await values(more, 11) == list(range(40, 51))
            assert right.statistics().lost == 0


async def test_the_last_value_is_for_everybody(mesh_of: MeshOf) -> None:
    async with mesh_of(2) as (left, right), left.publisher("state/door", retain=True) as publisher:
        await publisher.publish("open")
        await publisher.publish("closed", headers={"by": "wind"})
        await publisher.flush()
        async with right.subscribe("state/*") as there, left.subscribe("state/*") as here:
            for messages in (there, here):
                with trio.fail_after(20):
                    message = await anext(messages)
                assert (message.value, message.sequence, dict(message.headers)) == (
                    "closed",
                    1,
                    {"by": "wind"},
                )
            await publisher.publish("open")
            assert await values(there, 1) == await values(here, 1) == ["open"]


async def test_own_history(meshes: Meshes) -> None:
    async with meshes.open() as node, node.publisher("t", history=4) as publisher:
        for value in range(10):
            await publisher.publish(value)
        await publisher.flush()
        await publisher.publish("not yet sent")
        async with node.subscribe("t", history=2) as messages:
            assert await values(messages, 3) == [8, 9, "not yet sent"]


async def test_no_seam_while_it_flows(mesh_of: MeshOf) -> None:
    async with mesh_of(2) as (left, right), left.publisher("t", reliable=True, history=100) as publisher:
        stop = False

        async def write() -> None:
            number = 0
            while not stop:
                await publisher.publish(number)
                number += 1
                if number % 10 == 0:
                    await trio.sleep(0.001)

        async with background(write):
            await until(left, lambda: left.statistics().published > 200)
            for _ in range(10):
                async with right.subscribe("t", history=150) as messages:
                    got = await values(messages, 300)
                    assert got == list(range(got[0], got[0] + 300))
            stop = True


async def test_a_peer_that_comes_later_brings_what_it_kept(mesh_of: MeshOf, meshes: Meshes) -> None:
    async with meshes.open("reader") as reader, reader.subscribe("t", history=5) as messages:
        async with meshes.open("writer") as writer, writer.publisher("t", history=5) as publisher:
            for value in range(3):
                await publisher.publish(value)
            assert await values(messages, 3) == [0, 1, 2]
        assert reader.statistics().lost == 0


async def test_asking_one_topic_for_what_nobody_keeps_is_a_mistake(mesh_of: MeshOf) -> None:
    async with mesh_of(2) as (left, right):
        async with left.publisher("t") as publisher:
            await publisher.publish(
                0
            )  # it has left with the block; else it might be live for the subscription
        with pytest.raises(mesh.ConfigError, match="node-0 keeps nothing of 't'") as caught:
            async with right.subscribe("t", history=3):
                pass
        assert caught.value.key == "history"
        async with right.subscribe("*", history=3), right.subscribe("other", history=3):
            pass  # a pattern takes what there is, and nobody publishes the other
        assert right.statistics().subscriptions == ()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"history": -1}, "not a number of messages"),
        ({"history": 1 << 20}, "not a number of messages"),
        ({"history": 1.5}, "not a number of messages"),
        ({"history": 3, "group": "workers"}, "share what is published from now on"),
    ],
)
async def test_what_cannot_be_asked_for(meshes: Meshes, options: dict[str, Any], says: str) -> None:
    async with meshes.open() as node:
        with pytest.raises(mesh.ConfigError, match=says) as caught:
            node.subscribe("t", **options)
        assert caught.value.key == "history"


@pytest.mark.parametrize("history", [-1, 1 << 20, "3"])
async def test_what_cannot_be_offered(meshes: Meshes, history: Any) -> None:
    async with meshes.open() as node:
        with pytest.raises(mesh.ConfigError, match="not a number of messages") as caught:
            node.publisher("t", history=history)
        assert caught.value.key == "history"
