"""Values larger than a frame, as programs meet them: every way of sending takes them, and nothing small waits for them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import trio

import mesh
from tests.node.meshes import CALM, PATIENCE, Meshes

# Small frames: what is large is quick to make, and there are many pieces.
LIMITS = replace(CALM.limits, frame_bytes=96 << 10, value_bytes=3 << 20)
CONFIG = replace(CALM, limits=LIMITS, piece_bytes=32 << 10)
WHOLE = LIMITS.whole_bytes


def large(size: int = 2 << 20) -> bytes:
    return os.urandom(size)


@pytest.fixture
async def two(meshes: Meshes) -> AsyncIterator[tuple[mesh.Node, mesh.Node]]:
    async with meshes.of(2, config=CONFIG) as (left, right):
        yield left, right


async def test_sizes_around_every_limit(two: tuple[mesh.Node, mesh.Node]) -> None:
    left, right = two
    sizes = [WHOLE - 100, WHOLE, WHOLE + 1, 2 * WHOLE, LIMITS.value_bytes]
    with trio.fail_after(PATIENCE):
        async with right.subscribe("big/*") as messages:
            for number, size in enumerate(sizes):
                sent = large(size)
                await left.publish("big/value", sent, headers={"size": str(size)})
                await left.publish("big/value", number)
                message = await messages.__anext__()
                assert (message.data, message.headers["size"]) == (sent, str(size))
                assert (await messages.__anext__()).value == number
    with pytest.raises(mesh.MessageTooLarge):
        await left.publish("big/value", bytes(LIMITS.value_bytes + 1))
    seen = right.statistics()
    assert (seen.lost, seen.duplicates, seen.rejected) == (0, 0, 0)


async def test_every_way_of_sending(two: tuple[mesh.Node, mesh.Node]) -> None:
    left, right = two
    sent = large()
    with trio.fail_after(PATIENCE):
        async with right.subscribe("a/b") as messages, right.subscribe("a/b", group="workers") as work:
            await left.publish("a/b", {"picture": sent})
            assert (await messages.__anext__()).value == (await work.__anext__()).value == {"picture": sent}
            await left.publish("a/b", sent, to=right.id)
            await left.publish("a/b", b"small", to=right.id)
            for each in (messages, work):
                assert (await each.__anext__()).data == sent
                assert (await each.__anext__()).data == b"small"


async def test_requests_replies_and_streams(two: tuple[mesh.Node, mesh.Node]) -> None:
    left, right = two
    sent = large()

    async def echo(request: mesh.Request) -> bytes:
        return request.data

    async def stream(request: mesh.Request) -> AsyncIterator[Any]:
        for number in range(3):
            yield bytes([number]) * (2 << 20)
            yield number

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            await nursery.start(right.serve, "echo", echo)
            await nursery.start(right.serve, "stream", stream)
            assert await left.request("echo", sent, timeout=PATIENCE) == sent
            async with left.request_many("stream", timeout=PATIENCE) as replies:
                got = [reply.value async for reply in replies]
            assert got == [each for number in range(3) for each in (bytes([number]) * (2 << 20), number)]
            with pytest.raises(mesh.MessageTooLarge):
                await left.request("echo", bytes(LIMITS.value_bytes + 1))
            nursery.cancel_scope.cancel()


async def test_history_and_retain(two: tuple[mesh.Node, mesh.Node]) -> None:
    left, right = two
    publisher = left.publisher("kept", reliable=True, history=2, ring=5 << 20)
    with trio.fail_after(PATIENCE):
        for number in range(3):
            await publisher.publish(bytes([number]) * (2 << 20))
        async with right.subscribe("kept", history=2) as messages:
            got = [(await messages.__anext__()).data for _ in range(2)]
    assert got == [bytes([number]) * (2 << 20) for number in (1, 2)]
    with pytest.raises(mesh.MessageTooLarge):  # it could not be kept
        await left.publisher("little", retain=True, ring=64 << 10).publish(large())


async def test_what_is_small_does_not_wait_for_what_is_large(two: tuple[mesh.Node, mesh.Node]) -> None:
    left, right = two
    arrived: list[str] = []
    with trio.fail_after(PATIENCE):
        async with right.subscribe("**") as messages, trio.open_nursery() as nursery:

            async def hear() -> None:
                async for message in messages:
                    arrived.append(f"{message.topic} {len(message.data)}")
                    if len(arrived) == 8:
                        return

            nursery.start_soon(hear)
            for topic in ("x", "y"):
                await left.publish(topic, large())
                await left.publish(topic, b"behind it")
            await left.publish("z", b"small")
            for topic in ("x", "y"):
                await left.publish(topic, large(), to=right.id)
            await left.publish("z", b"tiny", to=right.id)
    assert arrived.index("z 5") < arrived.index(f"x {2 << 20}")
    assert arrived.index("z 4") < len(arrived) - 1
    for topic in ("x", "y"):
        of_topic = [each for each in arrived if each.startswith(topic)]
        assert of_topic.index(f"{topic} {2 << 20}") < of_topic.index(f"{topic} 9")


async def test_publishers_wait_when_much_is_large(two: tuple[mesh.Node, mesh.Node]) -> None:
    left, right = two
    count = 16
    lanes = left._publishing.lanes
    with trio.fail_after(PATIENCE):
        async with right.subscribe("many/*") as messages, trio.open_nursery() as nursery:

            async def publish(topic: str) -> None:
                for _ in range(count // 2):
                    await left.publish(topic, bytes(3 << 20))
                    assert lanes._cuttings.bytes <= (16 << 20) + (4 << 20)

            for topic in ("many/a", "many/b"):
                nursery.start_soon(publish, topic)
            for _ in range(count):
                assert len((await messages.__anext__()).data) == 3 << 20
        blocked = left.publisher("many/c")
        async with right.subscribe("many/c"):
            for _ in range(7):
                try:
                    blocked.publish_nowait(bytes(3 << 20))
                except trio.WouldBlock:
                    break
            else:
                pytest.fail("nothing held it up")
            left.publisher("many/d").publish_nowait({"small": 1})
            await blocked.flush()


async def test_a_peer_with_a_lower_limit_says_so(meshes: Meshes) -> None:
    modest = replace(CONFIG, limits=replace(LIMITS, value_bytes=1 << 20))

    async def answer(request: mesh.Request) -> bytes:
        return bytes(request.value)

    with trio.fail_after(PATIENCE):
        async with (
            meshes.open("generous", config=CONFIG) as left,
            meshes.open("modest", config=modest) as right,
            trio.open_nursery() as nursery,
        ):
            await left.wait_for_peers(1)
            await nursery.start(left.serve, "left", answer)
            await nursery.start(right.serve, "right", answer)
            with pytest.raises(mesh.RemoteError, match="over the limit") as caught:
                await left.request("right", bytes(2 << 20))
            assert caught.value.type_name == "MessageTooLarge"
            with pytest.raises(mesh.RemoteError, match="over the limit"):
                await right.request("left", 2 << 20)
            async with right.subscribe("x") as messages:
                watch = right.watch_losses()
                await left.publish("x", bytes(2 << 20))
                await left.publish("x", b"small")
                assert (await messages.__anext__()).data == b"small"
                assert (await watch.__anext__()).why == "too_large"
            assert right.statistics().lost == 1
            nursery.cancel_scope.cancel()


async def test_leaving_sends_what_is_large_first(meshes: Meshes) -> None:
    sent = large()
    with trio.fail_after(PATIENCE):
        async with meshes.open("stays", config=CONFIG) as left, left.subscribe("x") as messages:
            async with meshes.open("leaves", config=CONFIG) as right:
                await right.wait_for_peers(1)
                await right.publisher("x").wait_for_subscribers(1)
                await right.publish("x", sent)
            assert (await messages.__anext__()).data == sent
            assert left.statistics().lost == 0
