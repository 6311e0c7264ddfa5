"""``node.request`` and ``node.serve``: one reply, and everything that can happen instead."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest
import trio

import mesh
from mesh.node.node import Node
from tests.node.meshes import HASTY, PATIENCE, Meshes, background, serving, until, vanish

MeshOf = Callable[..., AbstractAsyncContextManager[list[Node]]]


async def echo(request: mesh.Request) -> Any:
    return request.value


async def forever(request: mesh.Request) -> None:
    await trio.sleep_forever()


class Handling:
    """A handler that says when it began and how it ended."""

    def __init__(self) -> None:
        self.began = trio.Event()
        self.cancelled = trio.Event()
        self.deadline = math.inf
        self.requests: list[mesh.Request] = []

    async def __call__(self, request: mesh.Request) -> None:
        self.requests.append(request)
        self.deadline = trio.current_effective_deadline()
        self.began.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            self.cancelled.set()
            raise


async def within(event: trio.Event) -> None:
    with trio.fail_after(PATIENCE):
        await event.wait()


# -- replies -----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, 1, "text", b"bytes", {"a": [1.5]}], ids=repr)
async def test_a_reply(mesh_of: MeshOf, value: Any) -> None:
    async with mesh_of(2) as (left, right), serving(right, "echo", echo):
        assert await left.request("echo", value) == value


async def test_what_a_handler_sees(mesh_of: MeshOf) -> None:
    async def describe(request: mesh.Request) -> Any:
        return [request.topic, request.value, request.data, dict(request.headers), request.sender.id]

    async with mesh_of(2) as (left, right), serving(right, "echo/*", describe):
        assert await left.request("echo/x", "v", headers={"k": "v"}) == [
            "echo/x",
            "v",
            b"\x61v",
            {"k": "v"},
            left.id,
        ]
        assert await left.request("echo/y") == ["echo/y", None, b"\xf6", {}, left.id]


async def test_a_nodes_own_responder(meshes: Meshes) -> None:
    async def who(request: mesh.Request) -> Any:
        return [request.sender.name, request.value]

    async with meshes.open("alone") as node, serving(node, "who", who):
        assert await node.request("who", 7) == ["alone", 7]


async def test_of_a_stream_the_first_value_is_the_reply(mesh_of: MeshOf) -> None:
    closed = trio.Event()

    async def count(request: mesh.Request) -> AsyncGenerator[int, None]:
        try:
            for n in range(1000):
                yield n
        finally:
            closed.set()

    async def nothing(request: mesh.Request) -> AsyncGenerator[int, None]:
        for n in range(0):
            yield n

    async with (
        mesh_of(2) as (left, right),
        serving(right, "count", count),
        serving(right, "nothing", nothing),
    ):
        assert await left.request("count") == 0
        await within(closed)
        with pytest.raises(mesh.RemoteError) as caught:
            await left.request("nothing")
        assert caught.value.type_name == "StopAsyncIteration"


async def test_handlers_of_every_kind(mesh_of: MeshOf) -> None:
    class Service:
        async def method(self, request: mesh.Request) -> str:
            return "method"

        async def __call__(self, request: mesh.Request) -> str:
            return "call"

    async def prefixed(prefix: str, request: mesh.Request) -> str:
        return prefix + request.value

    async def stream(prefix: str, request: mesh.Request) -> AsyncGenerator[str, None]:
        yield prefix

    service = Service()
    async with (
        mesh_of(2) as (left, right),
        serving(right, "method", service.method),
        serving(right, "call", service),
        serving(right, "partial", partial(prefixed, "x")),
        serving(right, "stream", partial(stream, "s")),
    ):
        assert await left.request("method") == "method"
        assert await left.request("call") == "call"
        assert await left.request("partial", "y") == "xy"
        assert await left.request("stream") == "s"


async def test_many_requests_at_once(mesh_of: MeshOf) -> None:
    replies: list[int] = []

    async def ask(node: Node, n: int) -> None:
        replies.append(await node.request("echo", n, timeout=PATIENCE))

    async with mesh_of(3) as (left, right, third), serving(right, "echo", echo, concurrency=5):
        async with trio.open_nursery() as nursery:
            for n in range(200):
                nursery.start_soon(ask, (left, right, third)[n % 3], n)
        assert sorted(replies) == list(range(200))
        assert right.statistics().requests_served == 200
        assert left.statistics().requests_in_flight == 0


# -- errors ------------------------------------------------------------------------------


async def test_no_responders_at_once(mesh_of: MeshOf) -> None:
    async with mesh_of(2) as (left, right), serving(right, "other", echo), right.subscribe("topic"):
        with trio.fail_after(PATIENCE):  # and no time-out of an hour
            with pytest.raises(mesh.NoResponders) as caught:
                await left.request("topic", timeout=3600)
            assert caught.value.topic == "topic"
            with pytest.raises(mesh.NoResponders):
                async with left.request_many("topic", timeout=3600):
                    pass


async def test_no_responders_once_serving_has_ended(mesh_of: MeshOf) -> None:
    async with mesh_of(2) as (left, right), serving(right, "topic", echo) as scope:
        assert await left.request("topic", 1) == 1
        scope.cancel()
        await until(left, lambda: not left._engine.router.responders("topic"))
        with pytest.raises(mesh.NoResponders):
            await left.request("topic", 1)


async def test_time_out(mesh_of: MeshOf) -> None:
    handling = Handling()
    async with mesh_of(2) as (left, right), serving(right, "slow", handling):
        with pytest.raises(mesh.RequestTimeout) as caught:
            await left.request("slow", timeout=0.05)
        assert (caught.value.topic, caught.value.timeout) == ("slow", 0.05)
        assert isinstance(caught.value, TimeoutError)
        await within(handling.cancelled)
        assert left.statistics().requests_in_flight == 0


async def test_a_time_out_of_nothing(mesh_of: MeshOf) -> None:
    async with mesh_of(2) as (left, right), serving(right, "slow", forever):
        for timeout in (0, -1, math.nan):
            with pytest.raises(mesh.RequestTimeout):
                await left.request("slow", timeout=timeout)


async def test_no_time_out_at_all(mesh_of: MeshOf) -> None:
    async with mesh_of(2) as (left, right), serving(right, "echo", echo):
        assert await left.request("echo", 1, timeout=math.inf) == 1


async def test_the_deadline_reaches_the_handler(mesh_of: MeshOf) -> None:
    handling = Handling()
    async with mesh_of(2) as (left, right), serving(right, "slow", handling):

        async def ask() -> None:
            await left.request("slow", timeout=1000)

        async with background(ask):
            await within(handling.began)
            assert 900 < handling.deadline - trio.current_time() <= 1000


async def test_a_remote_error(mesh_of: MeshOf) -> None:
    class VerySpecial(Exception):
        pass

    async def fail(request: mesh.Request) -> None:
        raise VerySpecial("it is broken: é")

    async with mesh_of(2) as (left, right), serving(right, "fail", fail):
        for _ in range(2):  # and it goes on serving
            with pytest.raises(mesh.RemoteError) as caught:
                await left.request("fail")
            assert (caught.value.type_name, caught.value.text) == ("VerySpecial", "it is broken: é")
            assert caught.value.peer_id == right.id
            assert str(caught.value) == "VerySpecial: it is broken: é"


async def test_whatever_a_handler_raises_serving_goes_on(mesh_of: MeshOf) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    class NoResponders(Exception):
        pass

    errors: list[BaseException] = [
        ValueError("x" * 100_000),
        ValueError("\ud800"),
        Mute(),
        ExceptionGroup("several", [ValueError(), TypeError()]),
        KeyError("k"),
        NoResponders("of a handler's own"),
    ]

    async def fail(request: mesh.Request) -> None:
        raise errors[request.value]

    async with mesh_of(2) as (left, right), serving(right, "fail", fail):
        for n, error in enumerate(errors):
            with pytest.raises(mesh.RemoteError) as caught:
                await left.request("fail", n)
            assert caught.value.type_name == type(error).__name__


async def test_a_handlers_own_errors_of_the_mesh_are_remote_errors(mesh_of: MeshOf) -> None:
    """A handler that asks on and finds nobody has run: nobody else may be asked in its place."""
    asked: list[str] = []

    async with mesh_of(3) as (left, right, third):

        async def ask_on(node: Node, request: mesh.Request) -> Any:
            asked.append(node.name)
            return await node.request("nowhere")

        async with serving(right, "t", partial(ask_on, right)), serving(third, "t", partial(ask_on, third)):
            with pytest.raises(mesh.RemoteError) as caught:
                await left.request("t")
            assert caught.value.type_name == "NoResponders"
            assert len(asked) == 1


async def test_a_reply_that_cannot_be_sent(mesh_of: MeshOf) -> None:
    async def unsendable(request: mesh.Request) -> Any:
        return object() if request.value == "type" else bytes(17 << 20)

    async def not_async(request: mesh.Request) -> Any:
        return 1

    def plain(request: mesh.Request) -> int:
        return 1

    async with mesh_of(2) as (left, right), serving(right, "t", unsendable), serving(right, "plain", plain):
        for value, name in (("type", "ValueEncodingError"), ("size", "MessageTooLarge")):
            with pytest.raises(mesh.RemoteError) as caught:
                await left.request("t", value)
            assert caught.value.type_name == name
        with pytest.raises(mesh.RemoteError, match="await"):
            await left.request("plain")


async def test_what_a_caller_does_wrong(mesh_of: MeshOf) -> None:
    async with mesh_of(2) as (left, right), serving(right, "echo", echo):
        with pytest.raises(mesh.ValueEncodingError):
            await left.request("echo", object())
        with pytest.raises(mesh.MessageTooLarge):
            await left.request("echo", bytes(17 << 20))
        with pytest.raises(mesh.ValueEncodingError):
            await left.request("echo", 1, headers={"k": 1})  # type: ignore[dict-item]
        with pytest.raises(mesh.TopicError):
            await left.request("echo/*", 1)
        with pytest.raises(mesh.UnknownPeer):
            await left.request("echo", 1, to="nobody")
        for bad, key in (({"concurrency": 0}, "concurrency"), ({"handler": 3}, "handler")):
            with pytest.raises(mesh.ConfigError) as caught:
                await left.serve(**{"topic": "t", "handler": echo, **bad})
            assert caught.value.key == key
        for topic in ("a//b", "@mesh/x", "@mesh/**"):
            with pytest.raises(mesh.TopicError):
                await left.serve(topic, echo)
        assert await left.request("echo", 1) == 1


WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


async def test_a_handler_sees_the_context_of_serve_and_of_no_other_request(mesh_of: MeshOf) -> None:
    async def handler(request: mesh.Request) -> str:
        before = WHO.get()
        WHO.set(request.value)
        await trio.lowlevel.checkpoint()
        return f"{before}, {WHO.get()}"

    token = WHO.set("server")
    async with mesh_of(2) as (left, right), serving(right, "t", handler):
        for name in ("a", "b", "c"):
            assert await left.request("t", name) == f"server, {name}"
    WHO.reset(token)


async def test_workers_serve_again_and_end_when_there_is_nothing_to_do(mesh_of: MeshOf) -> None:
    tasks: list[trio.lowlevel.Task] = []

    async def handler(request: mesh.Request) -> None:
        tasks.append(trio.lowlevel.current_task())
        if request.value == "wait":
            await trio.sleep_forever()

    def idle(node: Node) -> int:
        return sum(len(service.idle) for service in node._board.responder._services.values())

    async with mesh_of(2) as (left, right), serving(right, "t", handler):
        for _ in range(5):
            await left.request("t", timeout=PATIENCE)
        assert len(set(tasks)) == 1
        with pytest.raises(mesh.RequestTimeout):
            await left.request("t", "wait", timeout=0.05)  # its worker goes with it
        await until(right, lambda: right._board.responder.load == 0)
        await left.request("t", timeout=PATIENCE)
        assert len(set(tasks)) == 2
        with suppress(mesh.RequestTimeout):
            await left.request("t", timeout=0.5)
        with trio.fail_after(PATIENCE):
            while idle(right):  # noqa: ASYNC110 - the last request's time is over; nobody tells
                await trio.sleep(0.02)
        await left.request("t", timeout=PATIENCE)


# -- cancellation and death ----------------------------------------------------------------


async def test_a_cancelled_request_cancels_its_handler(mesh_of: MeshOf) -> None:
    handling = Handling()
    async with mesh_of(2) as (left, right), serving(right, "slow", handling):
        with trio.CancelScope() as scope:

            async def cancel() -> None:
                await handling.began.wait()
                scope.cancel()

            async with background(cancel):
                await left.request("slow", timeout=3600)
        assert scope.cancelled_caught
        await within(handling.cancelled)
        await until(right, lambda: right._board.responder.load == 0)


async def test_a_handler_ends_when_its_caller_leaves(meshes: Meshes) -> None:
    handling = Handling()
    async with meshes.open("server") as server, serving(server, "slow", handling):
        async with meshes.open("caller") as caller:

            async def ask() -> None:
                await caller.request("slow", timeout=3600)

            with trio.fail_after(PATIENCE):
                await caller.wait_for_peers(1)
                while not caller._engine.router.responders("slow"):
                    await caller._presence.changed.park()
            async with background(ask):
                await within(handling.began)
        await within(handling.cancelled)


async def test_peer_gone_when_the_responder_leaves(meshes: Meshes) -> None:
    handling = Handling()
    life = trio.CancelScope()

    async def live(*, task_status: trio.TaskStatus[None]) -> None:
        with life:
            async with meshes.open("server") as server, serving(server, "slow", handling):
                task_status.started()
                await trio.sleep_forever()

    async def die() -> None:
        await handling.began.wait()
        life.cancel()

    async with meshes.open("caller") as caller, trio.open_nursery() as nursery:
        await nursery.start(live)
        nursery.start_soon(die)
        await until(caller, lambda: caller._engine.router.responders("slow"))
        with trio.fail_after(PATIENCE), pytest.raises(mesh.PeerGone) as caught:
            await caller.request("slow", timeout=3600)
        assert caught.value.name == "server"


async def test_peer_gone_when_the_responder_dies_without_a_word(meshes: Meshes) -> None:
    handling = Handling()
    async with (
        meshes.open("caller", config=HASTY) as caller,
        meshes.open("server") as server,
        serving(server, "slow", handling),
    ):
        server_id = server.id

        async def die() -> None:
            await handling.began.wait()
            vanish(server)

        async with background(die):
            with trio.fail_after(PATIENCE):
                await until(caller, lambda: caller._engine.router.responders("slow"))
                with pytest.raises(mesh.PeerGone) as caught:
                    await caller.request("slow", timeout=3600)
        assert caught.value.peer_id == server_id


async def test_peer_gone_when_serving_ends_in_the_middle(mesh_of: MeshOf) -> None:
    handling = Handling()
    async with mesh_of(2) as (left, right), serving(right, "slow", handling) as scope:

        async def stop() -> None:
            await handling.began.wait()
            scope.cancel()

        async with background(stop):
            with trio.fail_after(PATIENCE), pytest.raises(mesh.PeerGone, match="stopped serving 'slow'"):
                await left.request("slow", timeout=3600)


async def test_requests_that_no_handler_has_seen_go_elsewhere(mesh_of: MeshOf) -> None:
    """One that waits for its turn when serving ends is passed on to another responder."""
    go = trio.Event()
    outcomes: list[str] = []

    async def slow(node: Node, request: mesh.Request) -> str:
        await go.wait()
        return node.name

    async with mesh_of(3) as (left, right, third):

        async def ask() -> None:
            try:
                outcomes.append(await left.request("t", timeout=3600))
            except mesh.PeerGone:
                outcomes.append("gone")

        async with (
            serving(right, "t", partial(slow, right), concurrency=1) as scope,
            serving(third, "t", partial(slow, third), concurrency=1),
            background(ask, ask, ask, ask),
        ):
            for node in (right, third):
                await until(node, lambda node=node: node._board.responder.load == 2)  # type: ignore[misc]
            scope.cancel()
            await until(third, lambda: third._board.responder.load == 3)
            go.set()
            await until(left, lambda: len(outcomes) == 4)
    assert Counter(outcomes) == {"gone": 1, "node-2": 3}


# -- which responder ------------------------------------------------------------------------


async def named(node: Node, request: mesh.Request) -> str:
    return node.name


async def test_to_a_chosen_responder(mesh_of: MeshOf) -> None:
    async with (
        mesh_of(3) as (left, right, third),
        serving(right, "who", partial(named, right)),
        serving(third, "who", partial(named, third)),
    ):
        for _ in range(3):
            assert await left.request("who", to="node-1") == "node-1"
            assert await left.request("who", to=left.peers[third.id]) == "node-2"
        async with serving(right, "only", echo):
            with pytest.raises(mesh.NoResponders):
                await left.request("only", to=third.id)


async def test_idle_responders_take_turns(mesh_of: MeshOf) -> None:
    async with (
        mesh_of(3) as nodes,
        serving(nodes[0], "who", partial(named, nodes[0])),
        serving(nodes[1], "who", partial(named, nodes[1])),
        serving(nodes[2], "who", partial(named, nodes[2])),
    ):
        answered = Counter([await nodes[0].request("who") for _ in range(30)])
        assert set(answered.values()) == {10}, answered


async def test_the_least_busy_responder_is_asked(mesh_of: MeshOf) -> None:
    release = trio.Event()

    async def slow(node: Node, request: mesh.Request) -> str:
        if request.value == "wait":
            await release.wait()
        return node.name

    async with (
        mesh_of(3) as (left, right, third),
        serving(right, "work", partial(slow, right)),
        serving(third, "work", partial(slow, third)),
    ):

        async def occupy() -> None:
            await left.request("work", "wait", to=right.id, timeout=PATIENCE)

        async with background(occupy):
            await until(right, lambda: right._board.responder.load == 1)
            assert {await left.request("work") for _ in range(6)} == {third.name}
            # Another caller learns of the load from what the responders tell.
            await third.ping(right.id)
            assert {await third.request("work") for _ in range(6)} == {third.name}
            release.set()


async def test_serving_a_pattern_and_several_handlers_on_one_node(mesh_of: MeshOf) -> None:
    counts: Counter[str] = Counter()

    async def counted(name: str, request: mesh.Request) -> None:
        counts[name] += 1

    async with (
        mesh_of(2) as (left, right),
        serving(right, "a/*", partial(counted, "pattern")),
        serving(right, "a/b", partial(counted, "exact")),
    ):
        await left.request("a/c")
        assert counts == {"pattern": 1}
        await left.request("a/b")
        assert counts.total() == 2


# -- bounds ---------------------------------------------------------------------------------


async def test_concurrency_is_bounded(mesh_of: MeshOf) -> None:
    running = most = 0
    full = trio.Event()
    go = trio.Event()

    async def handler(request: mesh.Request) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 3:
            full.set()
        await go.wait()
        running -= 1
        return int(request.value)

    replies = []

    async def ask(node: Node, n: int) -> None:
        replies.append(await node.request("t", n, timeout=PATIENCE))

    async with mesh_of(2) as (left, right), serving(right, "t", handler, concurrency=3):
        async with trio.open_nursery() as nursery:
            for n in range(10):
                nursery.start_soon(ask, left, n)
            await within(full)
            await until(right, lambda: right._board.responder.load == 10)
            assert running == 3
            go.set()
        assert sorted(replies) == list(range(10))
        assert most == 3


async def test_a_request_that_waits_for_its_turn_can_be_cancelled(mesh_of: MeshOf) -> None:
    handling = Handling()
    async with mesh_of(2) as (left, right), serving(right, "t", handling, concurrency=1):

        async def ask() -> None:
            await left.request("t", timeout=3600)

        async with background(ask):
            await within(handling.began)
            with pytest.raises(mesh.RequestTimeout):
                await left.request("t", timeout=0.05)
            await until(right, lambda: right._board.responder.load == 1)
            assert len(handling.requests) == 1


async def test_requests_of_one_peer_are_bounded(meshes: Meshes) -> None:
    from dataclasses import replace

    config = mesh.Config.local(limits=replace(mesh.Limits(), served_per_peer=2, pending_requests=3))
    handling = Handling()
    errors: list[BaseException] = []
    async with meshes.open("caller", config=config) as caller, meshes.open("server", config=config) as server:

        async def ask() -> None:
            try:
                await caller.request("t", timeout=3600)
            except (mesh.RemoteError, mesh.MeshError) as error:
                errors.append(error)

        async with serving(server, "t", handling):
            await until(caller, lambda: caller._engine.router.responders("t"))
            async with background(ask, ask, ask, ask):
                await until(caller, lambda: len(errors) == 2)
                await until(server, lambda: len(handling.requests) == 2)
    assert sorted(type(error).__name__ for error in errors) == ["MeshError", "RemoteError"]
