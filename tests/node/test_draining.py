"""Leaving with a peer that takes nothing: what could not be sent is told, to the message."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

import mesh
from mesh.node.node import Node
from tests.node.meshes import CALM, PATIENCE, MemoryMeshes, Meshes, take, until

STUCK = replace(CALM, congestion_patience=0.05, drain_timeout=0.5, batch_messages=1)


def host(node: Node) -> str:
    name: str = node._transport.host  # type: ignore[attr-defined]
    return name


async def test_everything_was_sent(meshes: Meshes, caplog: pytest.LogCaptureFixture) -> None:
    async with meshes.open("reader") as reader, reader.subscribe("t") as messages:
        async with meshes.open("writer") as writer, writer.publisher("t") as publisher:
            with trio.fail_after(PATIENCE):
                await publisher.wait_for_subscribers(1)
            for value in range(100):
                await publisher.publish(value)
        await take(messages, 100)
    seen = writer.statistics()
    assert (seen.unsent, dict(seen.unsent_by_topic), dict(seen.unsent_by_peer)) == (0, {}, {})
    assert "unsent" not in caplog.text


@pytest.mark.parametrize("patience", [0.05, 60.0], ids=["passed over", "still waiting"])
async def test_a_subscriber_that_takes_nothing(patience: float, caplog: pytest.LogCaptureFixture) -> None:
    """What its pipe had taken it gets when it wakes up; all the rest is in the report."""
    meshes = MemoryMeshes()
    meshes.network.pipe = 8
    async with (
        meshes.open("reader") as reader,
        reader.subscribe("**") as messages,
        trio.open_nursery() as nursery,
    ):
        incidents = None
        woken = trio.Event()

        async def wake_up() -> None:
            """Once all that the pipe does not hold was given up, or almost."""
            await until(writer, lambda: writer._board.closed is not None)
            if patience < 1:
                await until(writer, lambda: writer._publishing.airlock.passed.total())
                meshes.network.resume(host(reader))
                await until(reader, lambda: reader.statistics().received == 1 + 8)
                woken.set()

        config = replace(STUCK, congestion_patience=patience)
        async with meshes.open("writer", config=config) as writer:
            a, b = writer.publisher("a"), writer.publisher("b/c")
            with trio.fail_after(PATIENCE):
                await a.wait_for_subscribers(1)
            await a.publish("before")
            await take(messages, 1)
            incidents = writer.watch_incidents()
            meshes.network.pause(host(reader))
            for value in range(120):
                a.publish_nowait(value)
            for value in range(80):
                b.publish_nowait(value)
            nursery.start_soon(wake_up)
        if patience < 1:
            await woken.wait()
        nursery.cancel_scope.cancel()
    report = writer.statistics()
    assert dict(report.unsent_by_topic) == {"a": 120 - 8, "b/c": 80}
    assert (report.unsent, dict(report.unsent_by_peer)) == (192, {})
    assert "192 messages were not sent to everybody (112 on a, 80 on b/c)" in caplog.text
    assert incidents is not None
    event = await anext(incidents)
    assert (event.kind, event.detail[:12]) == ("left with messages unsent", "192 messages")
    with pytest.raises(StopAsyncIteration):
        await anext(incidents)
    if patience < 1:  # it woke up while the writer still lingered: both accounts together make up all of it
        assert reader.statistics().received + report.unsent == report.published == 201


async def test_directed_messages_and_replies_by_peer() -> None:
    meshes = MemoryMeshes()
    meshes.network.pipe = 8
    async with (
        meshes.open("reader") as reader,
        reader.subscribe("t", group="g"),
        reader.subscribe("u"),
        meshes.open("other") as other,
        other.subscribe("u"),
    ):
        async with meshes.open("writer", config=STUCK) as writer:
            with trio.fail_after(PATIENCE):
                await writer.wait_for_peers(2)
                await writer.publisher("t").wait_for_subscribers(1)
                await writer.publisher("u").wait_for_subscribers(2)
            meshes.network.pause(host(reader))
            for value in range(50):
                await writer.publish("t", value)
            for value in range(30):
                await writer.publish("u", value, to="reader")
                await writer.publish("u", value, to="other")
            await until(writer, lambda: writer.statistics().peers[reader.id].queued_bytes > 0)
            with trio.fail_after(PATIENCE):
                while writer.statistics().peers[other.id].queued_bytes:  # noqa: ASYNC110
                    await trio.sleep(0.01)
        report = writer.statistics()
        meshes.network.resume(host(reader))  # while what its pipe had taken lingers
        assert report.unsent == report.unsent_by_peer[reader.id] > 0
        await until(reader, lambda: reader.statistics().received == 80 - report.unsent)
        await until(other, lambda: other.statistics().received == 30)


async def test_who_is_torn_down_without_draining_says_so_too(caplog: pytest.LogCaptureFixture) -> None:
    meshes = MemoryMeshes()
    async with meshes.open("reader") as reader, reader.subscribe("t"):
        config = replace(CALM, drain_timeout=0.0)
        async with meshes.open("writer", config=config) as writer, writer.publisher("t") as publisher:
            with trio.fail_after(PATIENCE):
                await publisher.wait_for_subscribers(1)
            meshes.network.pipe = 1
            writer._transport.publish = lambda tag, frame: False  # type: ignore[method-assign]
            for value in range(10):
                await publisher.publish(value)
    assert dict(writer.statistics().unsent_by_topic) == {"t": 10}


def test_the_line_for_people() -> None:
    many = mesh.node.draining.Unsent({f"t/{n}": n for n in range(1, 7)}, {"ab" * 16: 5})
    assert many.text({"ab" * 16: "cellar"}) == (
        "26 messages were not sent to everybody (6 on t/6, 5 on t/5, 4 on t/4, 5 to cellar, and 3 more)"
    )
