"""``mesh.aio``: nodes of asyncio programs."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import mesh
import mesh.aio
from mesh.portal.tasks import Opening
from tests.foreign import Broke, Trigger, breaking, no_threads_left, settings

Main = Callable[[], Awaitable[None]]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    with no_threads_left():
        yield


def run(main: Main) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await main()

    asyncio.run(bounded())


@asynccontextmanager
async def pair(home: Path) -> AsyncIterator[tuple[Any, Any]]:
    async with (
        mesh.aio.open_node("left", **settings(home)) as left,
        mesh.aio.open_node("right", **settings(home, *left.endpoints)) as right,
    ):
        await left.wait_for_peers(1)
        await right.wait_for_peers(1)
        yield left, right


@asynccontextmanager
async def serving(node: Any, topic: str, handler: Any, **named: Any) -> AsyncIterator[asyncio.Task[None]]:
    ready = asyncio.Event()
    task = asyncio.create_task(node.serve(topic, handler, started=ready.set, **named))
    await ready.wait()
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# -- messages ------------------------------------------------------------------------------


def test_messages_arrive_in_order(tmp_path: Path) -> None:
    count = 5000

    async def main() -> None:
        async with pair(tmp_path) as (left, right), right.subscribe("numbers/*") as numbers:

            async def publish() -> None:
                for number in range(count):
                    await left.publish("numbers/all", number)

            async with asyncio.TaskGroup() as group:
                group.create_task(publish())
                received = []
                async for message in numbers:
                    assert message.topic == "numbers/all"
                    assert message.sender.name == "left"
                    received.append(message.value)
                    if len(received) == count:
                        break
            assert received == list(range(count))
            assert left.statistics().published == count
            assert right.statistics().delivered == count

    run(main)


def test_a_publisher_flushes_and_knows_its_subscribers(tmp_path: Path) -> None:
    async def main() -> None:
        async with pair(tmp_path) as (left, right), right.subscribe("a/b") as values:
            async with left.publisher("a/b") as publisher:
                await publisher.wait_for_subscribers(1)
                await publisher.publish({"n": 1}, headers={"unit": "K"})
                publisher.publish_nowait(b"raw")
                await publisher.flush()
            first, second = await anext(values), await anext(values)
            assert (first.value, first.headers, second.value) == ({"n": 1}, {"unit": "K"}, b"raw")
            with pytest.raises(mesh.NodeClosed):
                await publisher.publish(1)
            with pytest.raises(trio.WouldBlock):
                values.receive_nowait()
            await left.publish("a/b", 3, to="right")
            assert (await anext(values)).value == 3

    run(main)


def test_what_is_published_is_what_it_was_at_the_call(tmp_path: Path) -> None:
    async def main() -> None:
        async with mesh.aio.open_node(**settings(tmp_path)) as node, node.subscribe("**") as values:
            value = [0]
            for number in range(100):
                value[0] = number
                await node.publish("list", value)
            assert [(await anext(values)).value[0] for _ in range(100)] == list(range(100))

    run(main)


def test_a_mistake_is_raised_at_the_call(tmp_path: Path) -> None:
    async def main() -> None:
        async with mesh.aio.open_node(**settings(tmp_path)) as node:
            with pytest.raises(mesh.TopicError) as caught:
                await node.publish("a/*", 1)
            assert caught.value.topic == "a/*"
            with pytest.raises(mesh.ValueEncodingError):
                await node.publish("a", object())
            with pytest.raises(mesh.MessageTooLarge):
                await node.publish("a", bytes(17 << 20))
            with pytest.raises(mesh.ValueEncodingError):
                await node.publish("a", 1, headers={"n": 1})
            with pytest.raises(mesh.UnknownPeer):
                await node.publish("a", 1, to="nobody")
            with pytest.raises(mesh.TopicError):
                node.subscribe("a//b")
            with pytest.raises(mesh.ConfigError):
                node.subscribe("a", overflow="explode")
            with pytest.raises(mesh.NoResponders):
                await node.request("nobody/serves")
            with pytest.raises(TypeError):
                await node.publish("a")
            with pytest.raises(RuntimeError, match="enter the subscription first"):
                async for _ in node.subscribe("a"):
                    pass
            async with node.publisher("a") as publisher:
                with pytest.raises(mesh.ValueEncodingError):
                    publisher.publish_nowait({1: 2})
            assert node.statistics().published == 0

    run(main)


def test_an_error_keeps_its_traceback(tmp_path: Path) -> None:
    async def main() -> None:
        async with mesh.aio.open_node(**settings(tmp_path)) as node:
            with pytest.raises(mesh.NoResponders) as caught:
                await node.request("nobody/serves")
            assert "node.py" in [Path(entry.path).name for entry in caught.traceback]

    run(main)


def test_an_overflow_is_raised_where_the_messages_are_taken(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            mesh.aio.open_node(**settings(tmp_path)) as node,
            node.subscribe("a", buffer=3, overflow="raise") as values,
        ):
            for number in range(5):
                await node.publish("a", number)
            with pytest.raises(mesh.Overflowed) as caught:
                while True:
                    await anext(values)
            assert caught.value.dropped == 2

    run(main)


async def eventually(predicate: Callable[[], object]) -> None:
    while not predicate():  # noqa: ASYNC110 - nothing else tells
        await asyncio.sleep(0.01)


def test_publishers_wait_for_a_subscriber_that_asks_for_it(tmp_path: Path) -> None:
    """It is handed up to 512 messages at a time, so that it has room for so many more than its buffer."""

    async def main() -> None:
        patient = {"config": mesh.Config.local(backpressure_patience=3600.0)}
        async with (
            mesh.aio.open_node("left", **settings(tmp_path) | patient) as left,
            mesh.aio.open_node("right", **settings(tmp_path, *left.endpoints) | patient) as right,
            right.subscribe("a", buffer=5, overflow="backpressure") as values,
            left.publisher("a", reliable=True) as publisher,
        ):
            await publisher.publish(0)
            assert (await anext(values)).value == 0

            async def write() -> None:
                for number in range(1, 2000):
                    await publisher.publish(number)

            writing = asyncio.create_task(write())
            await eventually(lambda: any(window.waiting for window in left.statistics().windows))
            with pytest.raises(trio.WouldBlock):
                publisher.publish_nowait(0)
            assert [(await anext(values)).value for _ in range(1999)] == list(range(1, 2000))
            await writing
            assert right.statistics().dropped == 0

    run(main)


def test_a_cut_comes_behind_what_was_received(tmp_path: Path) -> None:
    async def main() -> None:
        hurried = {"config": mesh.Config.local(backpressure_patience=0.05)}
        async with (
            mesh.aio.open_node(**settings(tmp_path) | hurried) as node,
            node.subscribe("a", buffer=5, overflow="backpressure") as values,
            node.publisher("a") as publisher,
        ):
            await publisher.publish(0)
            await eventually(lambda: values.received == 1)
            for number in range(1, 100):
                await publisher.publish(number)
            await eventually(lambda: values.received == 100)
            got = []
            with pytest.raises(mesh.CutOff) as caught:
                async for message in values:
                    got.append(message.value)
            assert got == list(range(len(got)))
            assert caught.value.dropped == 100 - len(got) > 0

    run(main)


# -- cancellation ----------------------------------------------------------------------------


def test_a_cancelled_wait_loses_no_message(tmp_path: Path) -> None:
    async def main() -> None:
        async with mesh.aio.open_node(**settings(tmp_path)) as node, node.subscribe("a") as values:
            for number in range(50):
                task = asyncio.create_task(anext(values))
                for _ in range(number % 3):
                    await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await node.publish("a", number)
                assert (await anext(values)).value == number

    run(main)


def test_cancelling_a_request_cancels_its_handler(tmp_path: Path) -> None:
    async def main() -> None:
        begun, cancelled = asyncio.Event(), asyncio.Event()

        async def handler(request: mesh.Request) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        async with pair(tmp_path) as (left, right), serving(right, "slow", handler):
            task = asyncio.create_task(left.request("slow", timeout=15))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await cancelled.wait()
            assert left.statistics().requests_in_flight == 0

            begun.clear()
            cancelled.clear()
            with pytest.raises(mesh.RequestTimeout):
                await left.request("slow", timeout=0.1)
            await cancelled.wait()

    run(main)


def test_a_cancelled_opening_leaves_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        for steps in range(4):
            opening = mesh.aio.open_node(**settings(tmp_path / str(steps)))
            task = asyncio.create_task(opening.__aenter__())
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main)


def test_a_time_limit_around_the_block_closes_the_node(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as limit, mesh.aio.open_node(**settings(tmp_path)) as node:
                limit.reschedule(asyncio.get_running_loop().time() + 0.05)
                await node.wait_for_peers(1)
        with pytest.raises(mesh.NodeClosed):
            await node.wait_for_peers(1)

    run(main)


# -- requests --------------------------------------------------------------------------------

trace: contextvars.ContextVar[str] = contextvars.ContextVar("trace")


def test_handlers_run_on_the_loop_and_in_the_context_of_serve(tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        trace.set("mine")

        async def double(request: mesh.Request) -> int:
            assert threading.current_thread() is threading.main_thread()
            assert asyncio.get_running_loop() is loop
            assert trace.get() == "mine"
            return 2 * request.value  # type: ignore[no-any-return]

        async with pair(tmp_path) as (left, right), serving(right, "double", double):
            assert await left.request("double", 21) == 42
            assert await right.request("double", 4) == 8
            answers = await asyncio.gather(*(left.request("double", n) for n in range(100)))
            assert answers == [2 * n for n in range(100)]

    run(main)


def test_a_handlers_error_reaches_the_caller(tmp_path: Path) -> None:
    async def main() -> None:
        async def handler(request: mesh.Request) -> None:
            if request.value == "cancel":
                asyncio.current_task().cancel()  # type: ignore[union-attr]
                await asyncio.sleep(0)
            raise LookupError("no such thing")

        async with pair(tmp_path) as (left, right), serving(right, "fail", handler):
            with pytest.raises(mesh.RemoteError) as caught:
                await left.request("fail")
            assert (caught.value.type_name, caught.value.text) == ("LookupError", "no such thing")
            assert caught.value.peer_id == right.id
            with pytest.raises(mesh.RemoteError) as caught:
                await left.request("fail", "cancel")
            assert caught.value.type_name == "CancelledError"

    run(main)


def test_an_async_generator_streams(tmp_path: Path) -> None:
    async def main() -> None:
        closed = asyncio.Event()

        async def count(request: mesh.Request) -> AsyncIterator[int]:
            try:
                for number in range(request.value):
                    yield number
                if request.value == 3:
                    raise ValueError("three")
            finally:
                closed.set()

        async with pair(tmp_path) as (left, right), serving(right, "count", count):
            async with left.request_many("count", 200) as replies:
                assert [reply.value async for reply in replies] == list(range(200))
            await closed.wait()

            closed.clear()
            async with left.request_many("count", 100_000) as replies:
                assert (await anext(replies)).value == 0
            await closed.wait()

            async with left.request_many("count", 3) as replies:
                got = [reply async for reply in replies]
            assert [reply.value for reply in got[:-1]] == [0, 1, 2]
            assert isinstance(got[-1].error, mesh.RemoteError)
            assert got[-1].error.text == "three"

            assert await left.request("count", 5) == 0

    run(main)


def test_an_exception_in_a_block_passes_through_as_it_is(tmp_path: Path) -> None:
    async def main() -> None:
        async def handler(request: mesh.Request) -> int:
            return 1

        mine = Broke()
        async with mesh.aio.open_node(**settings(tmp_path)) as node, serving(node, "one", handler):
            for block in (node.subscribe("a"), node.publisher("a"), node.request_many("one")):
                with pytest.raises(Broke) as caught:
                    async with block:
                        raise mine
                assert caught.value is mine

    run(main)


def test_serve_ends_with_the_node_and_refuses_what_does_not_fit(tmp_path: Path) -> None:
    async def main() -> None:
        async def handler(request: mesh.Request) -> None: ...

        def generator(request: mesh.Request) -> Iterator[int]:
            yield 1

        async with mesh.aio.open_node(**settings(tmp_path)) as node:
            with pytest.raises(TypeError, match="async generator"):
                await node.serve("a", generator)
            with pytest.raises(mesh.ConfigError):
                await node.serve("a", handler, concurrency=0)
            with pytest.raises(Broke):
                await node.serve("a", handler, started=_break)
            ready = asyncio.Event()
            task = asyncio.create_task(node.serve("a", handler, started=ready.set))
            await ready.wait()
        assert await task is None

    run(main)


def _break() -> None:
    raise Broke


def test_supervise_runs_the_task_on_the_loop(tmp_path: Path) -> None:
    async def main() -> None:
        runs = []

        async def task(limit: int) -> None:
            runs.append(asyncio.get_running_loop())
            if len(runs) < limit:
                raise Broke

        async with mesh.aio.open_node(**settings(tmp_path)) as node:
            await node.supervise(task, 3, backoff=(0.0, 0.0))
            assert runs == [asyncio.get_running_loop()] * 3
            runs.clear()
            with pytest.raises(Broke):
                await node.supervise(task, 9, max_restarts=1, backoff=(0.0, 0.0))

    run(main)


# -- peers -----------------------------------------------------------------------------------


def test_peers_are_seen_and_pinged(tmp_path: Path) -> None:
    async def main() -> None:
        async with mesh.aio.open_node("left", **settings(tmp_path)) as left:
            changes = left.watch_peers()
            async with mesh.aio.open_node("right", **settings(tmp_path, *left.endpoints)) as right:
                joined = await anext(changes)
                assert isinstance(joined, mesh.PeerJoined)
                assert joined.peer.id == right.id
                assert left.peers[right.id].name == "right"
                assert 0 < await left.ping("right") < 5
                with pytest.raises(mesh.UnknownPeer):
                    await left.ping("nobody")
                assert set(left.statistics().peers) == {right.id}
            async for event in changes:
                if isinstance(event, mesh.PeerLeft):
                    break

    run(main)


# -- the end ---------------------------------------------------------------------------------


def test_nothing_works_after_the_block(tmp_path: Path) -> None:
    async def main() -> None:
        async with mesh.aio.open_node("left", **settings(tmp_path)) as node:
            publisher = node.publisher("a")
            async with node.subscribe("a") as values:
                await node.publish("a", 1)
                await node.wait_for_peers(0)
                waiting = asyncio.create_task(node.wait_for_peers(5))
                await asyncio.sleep(0)
        assert node.name == "left"
        assert node.peers == {}
        assert node.statistics().published == 1
        with pytest.raises(mesh.NodeClosed):
            await waiting
        for use in (
            lambda: node.publish("a", 1),
            lambda: publisher.publish(1),
            lambda: node.request("a"),
            lambda: anext(values),
        ):
            with pytest.raises(mesh.NodeClosed):
                await use()
        with pytest.raises(mesh.NodeClosed):
            node.subscribe("a")

    run(main)


def test_a_subscription_that_outlives_the_node(tmp_path: Path) -> None:
    async def main() -> None:
        opening = mesh.aio.open_node(**settings(tmp_path))
        node = await opening.__aenter__()
        async with node.subscribe("a") as values:
            await opening.__aexit__(None, None, None)
            with pytest.raises(mesh.NodeClosed):
                await anext(values)

    run(main)


def test_the_end_of_the_loop_closes_what_is_open(tmp_path: Path) -> None:
    opened = []

    async def main() -> None:
        opened.append(mesh.aio.open_node(**settings(tmp_path)))
        opened.append(await opened[0].__aenter__())

    run(main)
    with pytest.raises(mesh.NodeClosed):
        opened[1].subscribe("a")


def test_tasks_that_hold_nodes_are_cancelled_with_the_loop(tmp_path: Path) -> None:
    async def main() -> None:
        ready = asyncio.Event()

        async def hold() -> None:
            async with mesh.aio.open_node(**settings(tmp_path)) as node, node.subscribe("a") as values:
                ready.set()
                await anext(values)

        holders.append(asyncio.create_task(hold()))
        await ready.wait()

    holders: list[asyncio.Task[None]] = []
    run(main)
    assert holders[0].cancelled()


def test_a_node_that_fails_ends_the_block() -> None:
    async def main() -> None:
        trigger = Trigger()
        with pytest.raises(ExceptionGroup) as caught:
            async with Opening(breaking(trigger)) as inside:
                assert inside == "inside"
                trigger.pull()
                await asyncio.Event().wait()
        assert caught.group_contains(Broke)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    run(main)


def test_what_opening_raises_arrives(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(mesh.ConfigError):
            async with mesh.aio.open_node("bell\a", **settings(tmp_path)):
                pass
        with pytest.raises(TypeError):
            mesh.aio.open_node(colour="red")
        opening = mesh.aio.open_node(**settings(tmp_path))
        async with opening:
            pass
        with pytest.raises(RuntimeError, match="opened once"):
            await opening.__aenter__()

    run(main)


def test_the_names_and_signatures_are_those_of_mesh() -> None:
    for name, ours in (
        ("Node", mesh.Node),
        ("Publisher", mesh.Publisher),
        ("Subscription", mesh.Subscription),
    ):
        face = getattr(mesh.aio, name)
        assert face.__doc__ == ours.__doc__
        for member in [name for name in vars(face) if not name.startswith("_")]:
            original = inspect.getattr_static(ours, member, None)
            if inspect.isfunction(original):
                method = getattr(face, member)
                assert inspect.iscoroutinefunction(method) == inspect.iscoroutinefunction(original)
                names = [
                    "started" if parameter == "task_status" else parameter
                    for parameter in inspect.signature(original).parameters
                ]
                assert list(inspect.signature(method).parameters) == names
                assert method.__doc__
    assert inspect.signature(mesh.aio.open_node) == inspect.signature(mesh.open_node)
