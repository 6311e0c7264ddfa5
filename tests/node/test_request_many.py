"""``node.request_many``: every responder's replies, streams, and leaving early."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

import mesh
from mesh.node.node import Node
from tests.node.meshes import CALM, HASTY, PATIENCE, Meshes, background, serving, until, vanish

MeshOf = Callable[..., AbstractAsyncContextManager[list[Node]]]


async def named(node: Node, request: mesh.Request) -> list[Any]:
    return [node.name, request.value]


class Counting:
    """A handler that streams numbers, and tells how far it came and how it ended."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.sent = 0
        self.closed = trio.Event()

    async def __call__(self, request: mesh.Request) -> Any:
        raise NotImplementedError

    async def stream(self, request: mesh.Request) -> AsyncGenerator[int, None]:
        try:
            for n in range(self.count):
                self.sent = n + 1
                yield n
        finally:
            self.closed.set()


async def everything(replies: Any) -> list[mesh.Reply]:
    with trio.fail_after(PATIENCE):
        return [reply async for reply in replies]


async def test_every_responder_replies(mesh_of: MeshOf) -> None:
    async with (
        mesh_of(3) as (left, right, third),
        serving(left, "who", partial(named, left)),
        serving(right, "who", partial(named, right)),
        serving(third, "who", partial(named, third)),
    ):
        async with left.request_many("who", 7) as replies:
            received = await everything(replies)
        assert {(r.sender.name, *r.value) for r in received} == {(f"node-{n}",) * 2 + (7,) for n in range(3)}
        assert {r.topic for r in received} == {"who"}
        assert all(r.error is None for r in received)
        assert left.statistics().requests_in_flight == 0


async def test_a_node_that_serves_twice_replies_once(mesh_of: MeshOf) -> None:
    async with (
        mesh_of(2) as (left, right),
        serving(right, "who", partial(named, right)),
        serving(right, "*", partial(named, right)),
        left.request_many("who") as replies,
    ):
        assert len(await everything(replies)) == 1


async def test_errors_are_replies(mesh_of: MeshOf) -> None:
    async def fail(request: mesh.Request) -> None:
        raise ValueError("no")

    async with (
        mesh_of(3) as (left, right, third),
        serving(right, "t", fail),
        serving(third, "t", partial(named, third)),
    ):
        async with left.request_many("t") as replies:
            by_name = {reply.sender.name: reply for reply in await everything(replies)}
        error = by_name[right.name].error
        assert isinstance(error, mesh.RemoteError)
        assert (error.type_name, error.text, error.peer_id) == ("ValueError", "no", right.id)
        with pytest.raises(mesh.RemoteError):
            _ = by_name[right.name].value
        assert by_name[third.name].error is None
        assert by_name[third.name].value == [third.name, None]


async def test_streams(mesh_of: MeshOf) -> None:
    async with mesh_of(3) as (left, right, third):
        first, second = Counting(500), Counting(3)
        async with (
            serving(right, "t", first.stream),
            serving(third, "t", second.stream),
            left.request_many("t") as replies,
        ):
            received = await everything(replies)
        for node, count in ((right, 500), (third, 3)):
            assert [r.value for r in received if r.sender.id == node.id] == list(range(count))
        assert first.closed.is_set() and second.closed.is_set()


async def test_a_streams_own_error_comes_last(mesh_of: MeshOf) -> None:
    async def stream(request: mesh.Request) -> AsyncGenerator[int, None]:
        yield 1
        yield 2
        raise KeyError("third")

    async with mesh_of(2) as (left, right), serving(right, "t", stream):
        async with left.request_many("t") as replies:
            one, two, error = await everything(replies)
        assert (one.value, two.value) == (1, 2)
        assert isinstance(error.error, mesh.RemoteError) and error.error.type_name == "KeyError"


async def test_a_stream_is_no_further_than_its_window(mesh_of: MeshOf) -> None:
    """A caller that does not read holds the handler back."""
    counting = Counting(100_000)
    window = CALM.stream_window
    async with mesh_of(2) as (left, right), serving(right, "t", counting.stream):
        async with left.request_many("t", timeout=PATIENCE) as replies:
            first = await anext(aiter(replies))
            assert first.value == 0
            await until(right, lambda: counting.sent > window // 2)
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert counting.sent <= 2 * window + 2
            taken = 1
            with trio.fail_after(PATIENCE):
                async for reply in replies:
                    assert reply.value == taken
                    taken += 1
                    if taken == 10 * window:
                        break
        with trio.fail_after(PATIENCE):
            await counting.closed.wait()
        assert counting.sent <= 12 * window + 2


async def test_of_this_nodes_own_stream_too(meshes: Meshes) -> None:
    counting = Counting(1000)
    async with (
        meshes.open() as node,
        serving(node, "t", counting.stream),
        node.request_many("t") as replies,
    ):
        assert [reply.value for reply in await everything(replies)] == list(range(1000))


async def test_leaving_early_cancels(mesh_of: MeshOf) -> None:
    ended: Counter[str] = Counter()
    both = trio.Event()

    async def slow(node: Node, request: mesh.Request) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended[node.name] += 1
            if len(ended) == 2:
                both.set()

    async with (
        mesh_of(4) as (left, right, third, quick),
        serving(right, "t", partial(slow, right)),
        serving(third, "t", partial(slow, third)),
        serving(quick, "t", partial(named, quick)),
    ):
        async with left.request_many("t", timeout=3600) as replies:
            async for reply in replies:
                assert reply.sender.id == quick.id
                break
            await until(right, lambda: right._board.responder.load == 1)
            await until(third, lambda: third._board.responder.load == 1)
        with trio.fail_after(PATIENCE):
            await both.wait()
        assert left.statistics().requests_in_flight == 0


async def test_the_time_ends_the_replies(mesh_of: MeshOf) -> None:
    async def slow(request: mesh.Request) -> None:
        await trio.sleep_forever()

    async with (
        mesh_of(3) as (left, right, third),
        serving(right, "t", slow),
        serving(third, "t", partial(named, third)),
    ):
        for timeout in (0.3, 3.0, PATIENCE / 2):
            async with left.request_many("t", timeout=timeout) as replies:
                received = await everything(replies)
                assert await everything(replies) == []  # and it stays ended
            if received:
                break  # else the machine was too busy for even the quick one to answer in that time
        assert [reply.sender.name for reply in received] == [third.name]


async def test_the_blocks_exception_passes_as_it_is(mesh_of: MeshOf) -> None:
    async def slow(request: mesh.Request) -> None:
        await trio.sleep_forever()

    async with mesh_of(2) as (left, right), serving(right, "t", slow):
        with pytest.raises(KeyError, match="mine"):
            async with left.request_many("t", timeout=3600):
                raise KeyError("mine")
        with trio.move_on_after(0.01) as scope:
            async with left.request_many("t", timeout=3600) as replies:
                await everything(replies)
        assert scope.cancelled_caught


async def test_a_peer_that_dies_is_an_error_of_its_own(meshes: Meshes) -> None:
    async with (
        meshes.open("caller", config=HASTY) as caller,
        meshes.open("quick") as quick,
        meshes.open("dying") as dying,
        serving(quick, "t", partial(named, quick)),
    ):
        began = trio.Event()

        async def slow(request: mesh.Request) -> None:
            began.set()
            await trio.sleep_forever()

        async def die() -> None:
            await began.wait()
            vanish(dying)

        async with serving(dying, "t", slow), background(die):
            await until(caller, lambda: len(caller._engine.router.responders("t")) == 2)
            async with caller.request_many("t", timeout=3600) as replies:
                by_name = {type(reply.error): reply for reply in await everything(replies)}
            assert set(by_name) == {type(None), mesh.PeerGone}


async def test_what_a_caller_does_wrong(mesh_of: MeshOf) -> None:
    async with mesh_of(2) as (left, right), serving(right, "t", partial(named, right)):
        for topic, value, error in (
            ("nowhere", 1, mesh.NoResponders),
            ("t/*", 1, mesh.TopicError),
            ("t", object(), mesh.ValueEncodingError),
        ):
            with pytest.raises(error):
                async with left.request_many(topic, value):
                    pass
        with pytest.raises(mesh.ValueEncodingError):
            async with left.request_many("t", headers={"k": None}):  # type: ignore[dict-item]
                pass


async def test_headers_reach_every_responder(mesh_of: MeshOf) -> None:
    async def show(request: mesh.Request) -> dict[str, str]:
        return dict(request.headers)

    async with (
        mesh_of(3) as (left, right, third),
        serving(right, "t", show),
        serving(third, "t", show),
        left.request_many("t", headers={"k": "v"}) as replies,
    ):
        assert [reply.value for reply in await everything(replies)] == [{"k": "v"}] * 2
