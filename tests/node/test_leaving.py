"""How a node ends: drained, with a word to its peers, and with nothing left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import mesh
from mesh.node.node import Node
from tests.node.meshes import CALM, PATIENCE, Meshes, ZmqMeshes, serving, take, until, vanish

MeshOf = Callable[..., AbstractAsyncContextManager[list[Node]]]


# -- draining -----------------------------------------------------------------------------


@pytest.mark.parametrize("cancelled", [False, True], ids=["left", "cancelled"])
@pytest.mark.parametrize(("count", "size"), [(1, 1), (20_000, 8), (3_000, 8_000)])
async def test_what_was_published_before_leaving_arrives(
    meshes: Meshes, cancelled: bool, count: int, size: int
) -> None:
    async with meshes.open("reader") as reader, reader.subscribe("t") as messages:
        with trio.CancelScope() as scope:
            async with (
                meshes.open("writer", config=replace(CALM, drain_timeout=PATIENCE)) as writer,
                writer.publisher("t") as publisher,
            ):
                with trio.fail_after(PATIENCE):
                    await publisher.wait_for_subscribers(1)
                for value in range(count):
                    await publisher.publish(value.to_bytes(4, "big") + bytes(size))
                if cancelled:
                    scope.cancel()
                    await trio.sleep_forever()
        received = await take(messages, count)
        assert [int.from_bytes(message.data[:4], "big") for message in received] == list(range(count))
        assert {message.sender.name for message in received} == {"writer"}
        await until(reader, lambda: not reader.peers)
        assert reader.statistics().lost == 0


async def test_directed_messages_arrive_too(meshes: Meshes) -> None:
    async with (
        meshes.open("reader") as reader,
        reader.subscribe("t", group="g") as grouped,
        reader.subscribe("u") as directed,
    ):
        async with meshes.open("writer") as writer, writer.publisher("t") as publisher:
            with trio.fail_after(PATIENCE):
                await publisher.wait_for_subscribers(1)
            for value in range(500):
                await writer.publish("t", value)
                await writer.publish("u", value, to="reader")
        assert [message.value for message in await take(grouped, 500)] == list(range(500))
        assert [message.value for message in await take(directed, 500)] == list(range(500))


async def test_peers_are_told_at_once_even_by_one_that_is_cancelled(meshes: Meshes) -> None:
    async with meshes.open() as staying:
        events = staying.watch_peers()
        with trio.CancelScope() as scope:
            async with meshes.open() as leaving:
                await until(staying, lambda: leaving.id in staying.peers)
                scope.cancel()
                await trio.sleep_forever()
        with trio.fail_after(PATIENCE):
            assert isinstance(await anext(events), mesh.PeerJoined)
            event = await anext(events)
        assert isinstance(event, mesh.PeerLeft) and event.why == "said goodbye"


async def test_leaving_is_bounded_when_a_peer_does_not_listen(meshes: Meshes) -> None:
    async with meshes.open("deaf") as deaf:
        with trio.fail_after(PATIENCE):
            async with meshes.open("leaving") as leaving:
                await until(leaving, lambda: leaving.peers)
                vanish(deaf)


# -- after the end ------------------------------------------------------------------------


async def test_everything_says_node_closed(meshes: Meshes) -> None:
    async def handler(request: mesh.Request) -> None:
        pass

    async with meshes.open() as node:
        publisher = node.publisher("t")
        entered = node.subscribe("t")
        await entered.__aenter__()
        unentered = node.subscribe("t")
        watch = node.watch_peers()
    asynchronous: list[Callable[[], Awaitable[Any]]] = [
        lambda: node.publish("t", 1),
        lambda: node.publish("t", 1, to="x"),
        lambda: publisher.publish(1),
        lambda: publisher.wait_for_subscribers(1),
        lambda: unentered.__aenter__(),
        lambda: anext(entered),
        lambda: node.request("t"),
        lambda: node.serve("t", handler),
        lambda: node.ping("x"),
        lambda: node.wait_for_peers(1),
    ]
    with trio.fail_after(PATIENCE):
        for call in asynchronous:
            with pytest.raises(mesh.NodeClosed):
                await call()
        synchronous: list[Callable[[], Any]] = [
            lambda: publisher.publish_nowait(1),
            lambda: node.publisher("t"),
            lambda: node.subscribe("t"),
            lambda: node.request_many("t"),
            lambda: node.watch_peers(),
            lambda: node.add_seed("tcp://127.0.0.1:7400"),
        ]
        for sync_call in synchronous:
            with pytest.raises(mesh.NodeClosed):
                sync_call()
        await entered.__aexit__(None, None, None)  # leaving is no error
        async with publisher:
            pass
        with pytest.raises(StopAsyncIteration):
            await anext(watch)
    assert node.statistics().queued == 0


async def test_who_waits_when_the_node_closes_is_told(meshes: Meshes) -> None:
    outcomes: dict[str, str] = {}

    async def wait(name: str, call: Callable[[], Awaitable[Any]]) -> None:
        try:
            await call()
        except (mesh.MeshError, StopAsyncIteration) as error:
            outcomes[name] = type(error).__name__
        else:
            outcomes[name] = "returned"

    async def slow(request: mesh.Request) -> None:
        await trio.sleep_forever()

    async with meshes.open("other") as other, serving(other, "slow", slow), trio.open_nursery() as nursery:
        async with meshes.open("closing") as node:
            with trio.fail_after(PATIENCE):
                await node.wait_for_peers(1)
            await until(node, lambda: node._engine.router.responders("slow"))
            messages = node.subscribe("t")
            await messages.__aenter__()
            watch = node.watch_peers()
            await anext(watch)
            publisher = node.publisher("t")
            calls: dict[str, Callable[[], Awaitable[Any]]] = {
                "iterate": lambda: anext(messages),
                "request": lambda: node.request("slow", timeout=3600),
                "serve": lambda: node.serve("mine", slow),
                "peers": lambda: node.wait_for_peers(5),
                "subscribers": lambda: publisher.wait_for_subscribers(5),
                "watch": lambda: anext(watch),
            }
            for name, call in calls.items():
                nursery.start_soon(wait, name, call)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert outcomes == {}
        with trio.fail_after(PATIENCE):
            while len(outcomes) < len(calls):
                await trio.testing.wait_all_tasks_blocked(0.01)
    assert outcomes == {**dict.fromkeys(calls, "NodeClosed"), "watch": "StopAsyncIteration"}


# -- exceptions -----------------------------------------------------------------------------


class Mine(Exception):
    pass


@pytest.mark.parametrize("error", [Mine(), KeyboardInterrupt(), SystemExit(3), mesh.NodeClosed()], ids=repr)
async def test_the_blocks_exception_passes_as_it_is(meshes: Meshes, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        async with meshes.open() as node, node.subscribe("t"), node.publisher("t"):
            raise error
    assert caught.value is error


async def test_a_group_of_the_programs_own_stays_what_it_is(meshes: Meshes) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with meshes.open(), trio.open_nursery():
            raise Mine
    assert [type(error) for error in caught.value.exceptions] == [Mine]


async def test_a_crash_inside_surfaces(meshes: Meshes) -> None:
    """A mistake of ours ends the block, loudly and as a group."""

    def broken(*args: Any) -> None:
        raise ZeroDivisionError("a bug")

    with trio.fail_after(PATIENCE), pytest.raises(ExceptionGroup) as caught:
        async with meshes.open() as node, node.subscribe("t") as messages:
            node._board.inbox.deliver_local = broken  # type: ignore[method-assign]
            await node.publish("t", 1)
            await anext(messages)
    assert caught.group_contains(ZeroDivisionError, match="a bug")


async def test_a_time_out_around_everything(meshes: Meshes) -> None:
    with pytest.raises(trio.TooSlowError), trio.fail_after(0.2):
        async with meshes.open() as node, node.subscribe("t") as messages:
            await anext(messages)


# -- what is left -----------------------------------------------------------------------------


def sockets_and_threads(*, collect: bool = True) -> tuple[set[str], int, set[str]]:
    """Open files by what they are, native threads, Python threads."""
    if collect:
        gc.collect()
    files = set()
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            files.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")  # noqa: PTH115
        except FileNotFoundError:
            pass
    native = len(os.listdir("/proc/self/task"))  # noqa: PTH208
    return files, native, {thread.name for thread in threading.enumerate()}


def more_than(before: tuple[set[str], int, set[str]], *, collect: bool = True) -> list[object]:
    """What there is now beside that. (An idle worker thread of an earlier test may have ended meanwhile.)"""
    files, native, threads = sockets_and_threads(collect=collect)
    more: list[object] = sorted((files - before[0]) | (threads - before[2]))
    return more if native <= before[1] else [*more, f"{native - before[1]} more native threads"]


async def busy(meshes: Meshes) -> None:
    """A little of everything, until cancelled."""

    async def answer(request: mesh.Request) -> Any:
        return request.value

    async with (
        meshes.open() as left,
        meshes.open() as right,
        right.subscribe("t/**") as messages,
        left.publisher("t/p") as publisher,
        serving(right, "echo", answer),
    ):
        await left.wait_for_peers(1)
        await publisher.wait_for_subscribers(1)
        await left.publish("t/x", 1)
        await publisher.publish(2)
        await anext(messages)
        await left.publish("t/x", 1, to=right.id)
        await left.request("echo", 1)
        async with left.request_many("echo", 1) as replies:
            async for _ in replies:
                pass
        await left.ping(right.id)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_nothing_is_left(meshes: Meshes) -> None:
    await busy(meshes)  # once: what the first use of a library leaves is not ours
    before = sockets_and_threads()
    with trio.fail_after(PATIENCE):
        await busy(meshes)
    assert more_than(before) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_cancel_at_any_await_leaves_nothing(meshes: Meshes) -> None:
    await busy(meshes)
    before = sockets_and_threads()
    steps, finished = 0, False
    while not finished:
        with trio.CancelScope() as scope, trio.fail_after(PATIENCE):

            async def cancel_after(turns: int, scope: trio.CancelScope = scope) -> None:
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                scope.cancel()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_after, steps)
                await busy(meshes)
                finished = True
                nursery.cancel_scope.cancel()
        # Most awaits are at the beginning; what waits for the network takes many turns at one await.
        steps = steps + 1 if steps < 40 else int(steps * 1.5)
        tasks = trio.lowlevel.current_statistics().tasks_living
        # Garbage that holds none of it need not be looked for: that takes longer than all the rest.
        if more_than(before, collect=False):
            assert more_than(before) == [], f"cancelled after {steps} turns"
        assert tasks == trio.lowlevel.current_statistics().tasks_living
        if steps > 100_000:
            break


async def test_no_task_is_left(meshes: Meshes) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    await busy(meshes)
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_nodes_one_after_the_other(meshes: Meshes) -> None:
    for _ in range(5):
        async with meshes.open("same") as first, meshes.open("same") as second:
            with trio.fail_after(PATIENCE):
                await first.wait_for_peers(1)
                await second.wait_for_peers(1)


# -- processes --------------------------------------------------------------------------------


def run_program(home: Path, source: str, *, interrupt: bool = False) -> subprocess.CompletedProcess[str]:
    """A program of its own; with ``interrupt``, Ctrl-C once it says ready."""
    program = textwrap.dedent(source)
    environment = {**os.environ, "MESH_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-c", program],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        if interrupt:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


OPENED = 'mesh.open_node("n", listen=["tcp://127.0.0.1:0"], discovery=())'


def test_control_c_is_a_keyboard_interrupt(tmp_path: Path) -> None:
    done = run_program(
        tmp_path / "home",
        f"""
        import threading, trio, mesh

        async def main():
            async with {OPENED} as node, node.subscribe("**") as messages, node.publisher("t") as publisher:
                print("ready", flush=True)
                while True:
                    await publisher.publish(1)
                    await trio.lowlevel.checkpoint()

        try:
            trio.run(main)
        except KeyboardInterrupt:
            print("interrupted", [t.name for t in threading.enumerate() if not t.daemon])
        """,
        interrupt=True,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("interrupted ['MainThread']\n", "", 0)


async def test_control_c_strikes_no_task_behind_a_node(
    meshes: Meshes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could leave one half inside ``Event.wait``, and Trio breaks down when that event is set."""
    waits: dict[str, bool] = {}
    wait = trio._core.wait_task_rescheduled
    programs = {trio.lowlevel.current_task()}

    async def spy(abort: Any) -> Any:
        task = trio.lowlevel.current_task()
        if task not in programs:
            name = task.name.partition(" ")[0]
            waits[name] = waits.get(name, True) and trio.lowlevel.currently_ki_protected()
        return await wait(abort)

    monkeypatch.setattr(trio._core, "wait_task_rescheduled", spy)
    async with meshes.open("one") as one, one.subscribe("t") as messages, meshes.open("two") as two:
        with trio.fail_after(PATIENCE):
            await two.wait_for_peers(1)
            await two.publish("t", 1)
            await take(messages, 1)
    assert any("run_timers" in name for name in waits), waits
    assert [name for name, protected in waits.items() if not protected] == []


def test_a_fork_is_noticed(tmp_path: Path) -> None:
    done = run_program(
        tmp_path / "home",
        f"""
        import os, warnings, trio, mesh
        warnings.simplefilter("ignore", DeprecationWarning)  # of os.fork with threads, from Python 3.12 on

        async def main():
            async with {OPENED} as node, node.subscribe("t") as messages:
                publisher = node.publisher("t")
                child = os.fork()
                if child == 0:
                    for call in (
                        lambda: node.publish("t", 1),
                        lambda: publisher.publish(1),
                        lambda: node.request("t"),
                        lambda: node.ping("x"),
                        lambda: node.wait_for_peers(1),
                    ):
                        try:
                            await call()
                        except mesh.ForkError as error:
                            assert (error.opened_in, error.used_in) == (os.getppid(), os.getpid())
                        else:
                            os._exit(1)
                    try:
                        node.subscribe("t")
                    except mesh.ForkError:
                        os._exit(7)
                    os._exit(2)
                print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
                await node.publish("t", "the parent goes on")
                print((await anext(messages)).value)

        trio.run(main)
        """,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("7\nthe parent goes on\n", "", 0)


async def test_several_nodes_in_one_process(tmp_path: Path) -> None:
    meshes, strangers = ZmqMeshes(tmp_path / "one"), ZmqMeshes(tmp_path / "other")
    async with meshes.of(3) as nodes, strangers.of(2) as others:
        assert {len(node.peers) for node in nodes} == {2}
        assert {len(node.peers) for node in others} == {1}
        assert len({node.id for node in (*nodes, *others)}) == 5
