"""``mesh.sync``: nodes of programs with plain threads."""

from __future__ import annotations

import contextvars
import inspect
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import mesh
import mesh.sync
from mesh.portal.threads import Opening
from tests.foreign import Broke, Trigger, breaking, no_threads_left, settings

PATIENCE = 20.0


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    with no_threads_left():
        yield


@contextmanager
def pair(home: Path) -> Iterator[tuple[Any, Any]]:
    with (
        mesh.sync.open_node("left", **settings(home)) as left,
        mesh.sync.open_node("right", **settings(home, *left.endpoints)) as right,
    ):
        left.wait_for_peers(1)
        right.wait_for_peers(1)
        yield left, right


@contextmanager
def in_thread(function: Callable[..., Any], *args: Any, **named: Any) -> Iterator[Any]:
    """``function`` in a thread of its own, which has ended when the block has."""
    with ThreadPoolExecutor(1) as executor:
        yield executor.submit(function, *args, **named)


@contextmanager
def serving(node: Any, topic: str, handler: Any, **named: Any) -> Iterator[Any]:
    """Serves until the node closes: enter it outside of the node's block."""
    ready = threading.Event()
    with in_thread(node.serve, topic, handler, started=ready.set, **named) as result:
        assert ready.wait(PATIENCE)
        yield result


@contextmanager
def interrupted() -> Iterator[Callable[[], None]]:
    """Gives a function that presses Ctrl-C, and expects it to be felt."""

    def interrupt() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        yield interrupt


# -- messages ------------------------------------------------------------------------------


def test_messages_arrive_in_order(tmp_path: Path) -> None:
    count = 5000
    with pair(tmp_path) as (left, right), right.subscribe("numbers/*") as numbers:

        def publish() -> None:
            for number in range(count):
                left.publish("numbers/all", number)

        received = []
        with in_thread(publish) as published:
            for message in numbers:
                assert message.topic == "numbers/all"
                assert message.sender.name == "left"
                received.append(message.value)
                if len(received) == count:
                    break
            published.result()
        assert received == list(range(count))
        assert left.statistics().published == count
        assert right.statistics().delivered == count


def test_a_publisher_flushes_and_knows_its_subscribers(tmp_path: Path) -> None:
    with pair(tmp_path) as (left, right), right.subscribe("a/b") as values:
        with left.publisher("a/b") as publisher:
            publisher.wait_for_subscribers(1)
            publisher.publish({"n": 1}, headers={"unit": "K"})
            publisher.publish_nowait(b"raw")
            publisher.flush()
        first, second = next(values), next(values)
        assert (first.value, first.headers, second.value) == ({"n": 1}, {"unit": "K"}, b"raw")
        with pytest.raises(mesh.NodeClosed):
            publisher.publish(1)
        with pytest.raises(trio.WouldBlock):
            values.receive_nowait()
        left.publish("a/b", 3, to="right")
        assert next(values).value == 3


def test_threads_share_a_subscription(tmp_path: Path) -> None:
    count, workers = 3000, 3
    with mesh.sync.open_node(**settings(tmp_path)) as node, node.subscribe("a") as values:

        def take() -> list[int]:
            got = []
            for message in values:
                if message.value is None:
                    break
                got.append(message.value)
            return got

        with ThreadPoolExecutor(workers) as executor:
            takers = [executor.submit(take) for _ in range(workers)]
            for number in range(count):
                node.publish("a", number)
            for _ in takers:
                node.publish("a", None)
        parts = [taker.result() for taker in takers]
        assert sorted(number for part in parts for number in part) == list(range(count))


def test_threads_publish_side_by_side(tmp_path: Path) -> None:
    count, workers = 2000, 4
    with mesh.sync.open_node(**settings(tmp_path)) as node, node.subscribe("*") as values:

        def publish(topic: str) -> None:
            for number in range(count):
                node.publish(topic, number)

        with ThreadPoolExecutor(workers) as executor:
            list(executor.map(publish, "abcd"))
        node.statistics()
        seen: dict[str, list[int]] = {topic: [] for topic in "abcd"}
        for _ in range(count * workers):
            message = next(values)
            seen[message.topic].append(message.value)
        assert all(numbers == list(range(count)) for numbers in seen.values())


def test_a_mistake_is_raised_at_the_call(tmp_path: Path) -> None:
    with mesh.sync.open_node(**settings(tmp_path)) as node:
        with pytest.raises(mesh.TopicError) as caught:
            node.publish("a/*", 1)
        assert caught.value.topic == "a/*"
        with pytest.raises(mesh.ValueEncodingError):
            node.publish("a", object())
        with pytest.raises(mesh.MessageTooLarge):
            node.publish("a", bytes(17 << 20))
        with pytest.raises(mesh.UnknownPeer):
            node.publish("a", 1, to="nobody")
        with pytest.raises(mesh.ConfigError):
            node.subscribe("a", overflow="explode")
        with pytest.raises(mesh.NoResponders) as missing:
            node.request("nobody/serves")
        assert "node.py" in [Path(entry.path).name for entry in missing.traceback]
        with pytest.raises(RuntimeError, match="enter the subscription first"):
            iter(node.subscribe("a"))
        assert node.statistics().published == 0


# -- requests --------------------------------------------------------------------------------

trace: contextvars.ContextVar[str] = contextvars.ContextVar("trace")


def test_handlers_run_in_worker_threads_as_many_as_asked(tmp_path: Path) -> None:
    together = threading.Barrier(2, timeout=PATIENCE)
    running, most = 0, 0
    lock = threading.Lock()

    def double(request: mesh.Request) -> int:
        nonlocal running, most
        assert threading.current_thread().name.startswith("mesh handler")
        with lock:
            running += 1
            most = max(most, running)
        together.wait()
        with lock:
            running -= 1
        return 2 * request.value  # type: ignore[no-any-return]

    with ExitStack() as outer, pair(tmp_path) as (left, right):
        outer.enter_context(serving(right, "double", double, concurrency=2))
        with ThreadPoolExecutor(8) as executor:
            answers = list(executor.map(lambda n: left.request("double", n), range(20)))
        assert answers == [2 * n for n in range(20)]
        assert most == 2


def test_handlers_run_in_the_context_of_serve(tmp_path: Path) -> None:
    def serve(node: Any, ready: threading.Event) -> None:
        trace.set("mine")
        node.serve("trace", lambda request: trace.get(), started=ready.set)

    ready = threading.Event()
    with ExitStack() as outer, mesh.sync.open_node(**settings(tmp_path)) as node:
        outer.enter_context(in_thread(serve, node, ready))
        assert ready.wait(PATIENCE)
        assert node.request("trace") == "mine"


def test_a_handlers_error_reaches_the_caller(tmp_path: Path) -> None:
    def handler(request: mesh.Request) -> None:
        raise LookupError("no such thing")

    with ExitStack() as outer, pair(tmp_path) as (left, right):
        outer.enter_context(serving(right, "fail", handler))
        with pytest.raises(mesh.RemoteError) as caught:
            left.request("fail")
        assert (caught.value.type_name, caught.value.text) == ("LookupError", "no such thing")


def test_a_generator_streams(tmp_path: Path) -> None:
    closed = threading.Event()

    def count(request: mesh.Request) -> Iterator[int]:
        try:
            yield from range(request.value)
            if request.value == 3:
                raise ValueError("three")
        finally:
            closed.set()

    with ExitStack() as outer, pair(tmp_path) as (left, right):
        outer.enter_context(serving(right, "count", count, concurrency=1))
        with left.request_many("count", 200) as replies:
            assert [reply.value for reply in replies] == list(range(200))
        assert closed.wait(PATIENCE)

        closed.clear()
        with left.request_many("count", 100_000) as replies:
            assert next(replies).value == 0
        assert closed.wait(PATIENCE)

        with left.request_many("count", 3) as replies:
            got = list(replies)
        assert [reply.value for reply in got[:-1]] == [0, 1, 2]
        assert isinstance(got[-1].error, mesh.RemoteError)


def test_a_handler_whose_request_is_over_keeps_its_worker(tmp_path: Path) -> None:
    begun, release = threading.Event(), threading.Event()
    called = []

    def slow(request: mesh.Request) -> int:
        called.append(request.value)
        begun.set()
        assert release.wait(PATIENCE)
        return 1

    with ExitStack() as outer, pair(tmp_path) as (left, right):
        outer.enter_context(serving(right, "slow", slow, concurrency=1))
        with pytest.raises(mesh.RequestTimeout):
            left.request("slow", 1, timeout=0.2)
        assert begun.wait(PATIENCE)
        with pytest.raises(mesh.RequestTimeout):
            left.request("slow", 2, timeout=0.2)
        assert called == [1]
        release.set()
        assert left.request("slow", 3) == 1
        assert [value for value in called if value != 2] == [
            1,
            3,
        ]  # news of 2's end may come after the release


def test_serve_ends_with_the_node_and_refuses_what_does_not_fit(tmp_path: Path) -> None:
    async def coroutine(request: mesh.Request) -> None: ...

    with ExitStack() as outer, mesh.sync.open_node(**settings(tmp_path)) as node:
        with pytest.raises(TypeError, match="plain function"):
            node.serve("a", coroutine)
        with pytest.raises(mesh.ConfigError):
            node.serve("a", print, concurrency=0)
        with pytest.raises(Broke):
            node.serve("a", print, started=_break)
        result = outer.enter_context(serving(node, "a", print))
    assert result.result() is None


def _break() -> None:
    raise Broke


def test_supervise_restarts_a_plain_function(tmp_path: Path) -> None:
    runs = []

    def task(limit: int) -> None:
        runs.append(threading.current_thread())
        if len(runs) < limit:
            raise Broke

    with mesh.sync.open_node(**settings(tmp_path)) as node:
        node.supervise(task, 3, backoff=(0.0, 0.0))
    assert len(runs) == 3


# -- peers -----------------------------------------------------------------------------------


def test_peers_are_seen_and_pinged(tmp_path: Path) -> None:
    with mesh.sync.open_node("left", **settings(tmp_path)) as left:
        changes = left.watch_peers()
        with mesh.sync.open_node("right", **settings(tmp_path, *left.endpoints)) as right:
            joined = next(changes)
            assert isinstance(joined, mesh.PeerJoined)
            assert joined.peer.id == right.id
            assert left.peers[right.id].name == "right"
            assert 0 < left.ping("right") < 5
            with pytest.raises(mesh.UnknownPeer):
                left.ping("nobody")
            assert set(left.statistics().peers) == {right.id}
        for event in changes:
            if isinstance(event, mesh.PeerLeft):
                break


# -- the end ---------------------------------------------------------------------------------


def test_nothing_works_after_the_block(tmp_path: Path) -> None:
    with ExitStack() as outer, mesh.sync.open_node("left", **settings(tmp_path)) as node:
        publisher = node.publisher("a")
        values = node.subscribe("a")
        outer.enter_context(values)
        node.publish("a", 1)
        waiting = outer.enter_context(in_thread(node.wait_for_peers, 5))
    assert node.name == "left"
    assert node.peers == {}
    assert node.statistics().published == 1
    with pytest.raises(mesh.NodeClosed):
        waiting.result()
    for use in (
        lambda: node.publish("a", 1),
        lambda: publisher.publish(1),
        lambda: node.request("a"),
        lambda: node.subscribe("a"),
        lambda: node.wait_for_peers(1),
    ):
        with pytest.raises(mesh.NodeClosed):
            use()


def test_closing_the_node_ends_those_who_iterate(tmp_path: Path) -> None:
    got: list[Any] = []
    first = threading.Event()

    def take(values: Any) -> None:
        with values:
            for message in values:
                got.append(message.value)
                first.set()

    with ExitStack() as outer, mesh.sync.open_node(**settings(tmp_path)) as node:
        taker = outer.enter_context(in_thread(take, node.subscribe("a")))
        with node.publisher("a") as publisher:
            publisher.wait_for_subscribers(1)
            publisher.publish(1)
        assert first.wait(PATIENCE)
    with pytest.raises(mesh.NodeClosed):
        taker.result()
    assert got == [1]


def test_an_exception_in_a_block_passes_through_as_it_is(tmp_path: Path) -> None:
    mine = Broke()
    with ExitStack() as outer, mesh.sync.open_node(**settings(tmp_path)) as node:
        outer.enter_context(serving(node, "one", lambda request: 1))
        for block in (node.subscribe("a"), node.publisher("a"), node.request_many("one")):
            with pytest.raises(Broke) as caught, block:
                raise mine
            assert caught.value is mine


def test_a_node_that_fails_says_so_at_the_end_of_the_block() -> None:
    trigger = Trigger()
    with pytest.raises(ExceptionGroup) as caught, Opening(breaking(trigger)) as inside:
        assert inside == "inside"
        trigger.pull()
    assert caught.group_contains(Broke)


def test_what_opening_raises_arrives(tmp_path: Path) -> None:
    with pytest.raises(mesh.ConfigError), mesh.sync.open_node("bell\a", **settings(tmp_path)):
        pass
    with pytest.raises(TypeError):
        mesh.sync.open_node(colour="red")
    opening = mesh.sync.open_node(**settings(tmp_path))
    with opening:
        pass
    with pytest.raises(RuntimeError, match="opened once"):
        opening.__enter__()


def test_ctrl_c_ends_a_wait_and_its_request(tmp_path: Path) -> None:
    release = threading.Event()

    with ExitStack() as outer, pair(tmp_path) as (left, right):
        with interrupted() as interrupt:

            def handler(request: mesh.Request) -> None:
                interrupt()
                assert release.wait(PATIENCE)

            outer.enter_context(serving(right, "slow", handler))
            left.request("slow", timeout=PATIENCE)
        release.set()
        assert left.statistics().requests_in_flight == 0
        assert 0 < left.ping("right") < 5

        with interrupted() as interrupt:
            right.serve("other", lambda request: None, started=interrupt)
        with pytest.raises(mesh.NoResponders):
            right.request("other")


def test_ctrl_c_ends_an_iteration(tmp_path: Path) -> None:
    with mesh.sync.open_node(**settings(tmp_path)) as node, node.subscribe("a") as values:
        node.publish("a", 0)
        with interrupted() as interrupt:
            finger = threading.Thread(target=interrupt)
            for message in values:
                assert message.value == 0
                finger.start()
        finger.join()
        node.publish("a", 1)
        assert next(values).value == 1


def test_a_fork_is_noticed(tmp_path: Path) -> None:
    with mesh.sync.open_node(**settings(tmp_path)) as node, node.subscribe("a") as values:
        publisher = node.publisher("a")
        child = os.fork()
        if child == 0:
            # Only the parent's test may report: whatever happens, the child ends here.
            code = 1
            try:
                code = _in_the_fork(node, publisher, values)
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        node.publish("a", 1)
        assert next(values).value == 1


def _in_the_fork(node: Any, publisher: Any, values: Any) -> int:
    for number, use in enumerate(
        (
            lambda: node.publish("a", 1),
            lambda: publisher.publish_nowait(1),
            lambda: node.request("a"),
            lambda: node.id,
            lambda: next(values),
        ),
        10,
    ):
        try:
            use()
        except mesh.ForkError as error:
            if error.opened_in != os.getppid():
                return number
        else:
            return number
    values.__exit__(None, None, None)
    return 0


PROGRAM = """
import sys, mesh.sync
from mesh.config import Config
opening = mesh.sync.open_node(
    home=sys.argv[1], listen=["tcp://127.0.0.1:0"], discovery=(), connect=sys.argv[2:], config=Config.local()
)
node = opening.__enter__()
node.wait_for_peers(1)
print("here", flush=True)
"""


def test_a_program_that_forgets_to_close_ends_and_says_goodbye(tmp_path: Path) -> None:
    with mesh.sync.open_node(**settings(tmp_path)) as node:
        changes = node.watch_peers()
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path), *node.endpoints],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "here\n", "")
        events = [next(changes), next(changes)]
        assert [type(event) for event in events] == [mesh.PeerJoined, mesh.PeerLeft]
        assert "goodbye" in events[1].why


def test_the_names_and_signatures_are_those_of_mesh() -> None:
    for name, ours in (
        ("Node", mesh.Node),
        ("Publisher", mesh.Publisher),
        ("Subscription", mesh.Subscription),
    ):
        face = getattr(mesh.sync, name)
        for member in [name for name in vars(face) if not name.startswith("_")]:
            original = inspect.getattr_static(ours, member, None)
            if inspect.isfunction(original):
                method = getattr(face, member)
                assert not inspect.iscoroutinefunction(method)
                assert method.__doc__
    assert hasattr(mesh.sync.Subscription, "__iter__")
    assert not hasattr(mesh.sync.Subscription, "__aiter__")
