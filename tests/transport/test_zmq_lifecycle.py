"""How the real transport starts, refuses to start, and ends without a trace."""

from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import trio
import zmq

from mesh.core.pace import TokenBucket
from mesh.core.types import node_id
from mesh.errors import TransportError
from mesh.transport import zmqsocket
from mesh.transport.base import Bound, TransportEvents
from mesh.transport.zap import Gate
from mesh.transport.zmqtransport import ZmqTransport
from tests.transport.contract import (
    CONFIG,
    MESH,
    Recorder,
    World,
    link_up,
    listen_to,
    new_link,
    publish,
    subscribed,
)
from tests.transport.test_zmq import TcpWorld, free_ports


@pytest.fixture
def world() -> World:
    return TcpWorld("127.0.0.1", "127.0.0.1")


def transport(*listen: str) -> ZmqTransport:
    return ZmqTransport(listen, new_link(), MESH, CONFIG)


async def start(*listen: str) -> Bound:
    """Start, stop, and tell what was bound."""
    async with trio.open_nursery() as nursery:
        bound: Bound = await nursery.start(transport(*listen).run, Recorder())
        nursery.cancel_scope.cancel()
    return bound


def traces() -> tuple[list[str], int]:
    gc.collect()
    return sorted(thread.name for thread in threading.enumerate()), len(list(Path("/proc/self/fd").iterdir()))


@contextmanager
def nobody_accepts() -> Iterator[str]:
    """An endpoint where connections begin and neither succeed nor fail: its queue of them is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"


async def test_introductions_given_up_while_they_connect_do_not_stop_the_others(world: World) -> None:
    """libzmq reports the end of a connection, when it has lingered out, from the thread that serves all
    sockets; and waits there until somebody takes the report."""
    with nobody_accepts() as silent:
        async with world.node() as a, world.node() as b:
            link_up(a, b)
            a.transport.send_direct(b.id, b"before")
            await b.events.until(lambda: b.events.direct)
            _, files = traces()
            routes = [a.transport.dial_intro(silent) for _ in range(4)]
            for route in routes:
                a.transport.send_intro(route, b"x")
                a.transport.close_intro(route)
            with trio.fail_after(30):
                while traces()[1] > files:  # noqa: ASYNC110
                    await trio.sleep(0.01)  # their end is no event: nobody is to be told any more
            a.transport.send_direct(b.id, b"after")
            await b.events.until(lambda: len(b.events.direct) == 2)


async def test_it_ends_without_a_trace(world: World) -> None:
    async with world.node():
        pass
    before = traces()
    for _ in range(3):
        async with world.node() as a, world.node() as b:
            link_up(a, b)
            a.transport.send_direct(b.id, b"x")
            await b.events.until(lambda: b.events.direct)
            listen_to(b, a)
            b.transport.subscribe(b"me:t")
            await subscribed(a, b"\1me:t")
            await publish(a, b"t", b"x")
            await b.events.until(lambda: b.events.broadcast)
            route = a.transport.dial_intro(b.address.intro)
            a.transport.send_intro(route, b"x")
            await b.events.until(lambda: b.events.intro)
            a.transport.dial_intro(b.address.intro)
            a.transport.dial_intro("tcp://192.0.2.1:7400")
            a.transport.close_intro(a.transport.dial_intro("tcp://192.0.2.1:7400"))
            a.transport.open_link(b.id, new_link().public, b.address.direct)
    assert traces() == before


async def test_dead_peers_hold_up_the_end_only_briefly(world: World) -> None:
    with trio.fail_after(2 + zmqsocket.LINGER / 1000):
        async with world.node() as a:
            for _ in range(20):
                key = new_link().public
                a.transport.open_link(node_id(key), key, "tcp://127.0.0.1:9")
                a.transport.send_direct(node_id(key), b"x")


async def test_three_ports_in_a_row() -> None:
    port = free_ports("127.0.0.1")
    (address,) = (await start(f"tcp://127.0.0.1:{port}")).addresses
    assert address == tuple(f"tcp://127.0.0.1:{port + n}" for n in range(3))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    tmp_path.chmod(0o700)
    yield tmp_path
    assert not list(tmp_path.iterdir()), "its Unix sockets are removed"


async def test_several_endpoints_are_one_node(world: World, folder: Path) -> None:
    link, events = new_link(), Recorder()
    node = ZmqTransport(["tcp://127.0.0.1:0", f"ipc://{folder}/m"], link, MESH, CONFIG)
    async with trio.open_nursery() as nursery, world.node() as a:
        bound: Bound = await nursery.start(node.run, events)
        node.allow(a.id, a.link.public)
        for number, address in enumerate(bound.addresses):
            a.transport.open_link(node_id(link.public), link.public, address.direct)
            a.transport.send_direct(node_id(link.public), b"%d" % number)
            await events.until(lambda number=number: len(events.direct) == number + 1)
        assert [host for _, host in events.seen] == ["127.0.0.1", ""]
        nursery.cancel_scope.cancel()


async def test_a_wildcard_is_both_families() -> None:
    world = TcpWorld("*", "127.0.0.1")
    async with world.node() as a, world.node() as b:
        port = b.address.direct.rpartition(":")[2]
        b.transport.allow(a.id, a.link.public)
        hosts = ["127.0.0.1", "::1"]
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            hosts = ["127.0.0.1"]
        for number, host in enumerate(hosts):
            a.transport.open_link(
                b.id, b.link.public, f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
            )
            a.transport.send_direct(b.id, b"x")
            await b.events.until(lambda number=number: len(b.events.direct) == number + 1)
        assert [host for _, host in b.events.seen] == hosts


async def test_host_names_are_looked_up(world: World) -> None:
    async with world.node() as a, world.node() as b:

        def named(endpoint: str) -> str:
            return endpoint.replace("127.0.0.1", "localhost")

        a.transport.send_intro(a.transport.dial_intro(named(b.address.intro)), b"x")
        await b.events.until(lambda: b.events.intro)
        b.transport.allow(a.id, a.link.public)
        a.transport.open_link(b.id, b.link.public, named(b.address.direct))
        while not a.transport.send_direct(b.id, b"x"):
            await a.transport.wait_direct_writable(b.id)
        await b.events.until(lambda: b.events.direct)
        b.transport.admit_broadcast("127.0.0.1")
        b.transport.admit_broadcast("::1")
        a.transport.subscribe(b"me:t")
        a.transport.connect_broadcast(b.id, named(b.address.broadcast))
        await subscribed(b, b"\1me:t")
        a.transport.disconnect_broadcast(b.id)


async def test_what_is_no_endpoint_is_counted_not_raised(world: World) -> None:
    async with world.node() as a:
        key = new_link().public
        peer = node_id(key)
        for endpoint, reason in (
            ("nonsense", "bad_endpoint"),
            ("tcp://no-such-host.invalid:1", "no_such_host"),
        ):
            route = a.transport.dial_intro(endpoint)
            await a.events.until(lambda route=route: route in dict(a.events.failed))
            a.transport.open_link(peer, key, endpoint)
            a.transport.connect_broadcast(peer, endpoint)
            for plane in ("direct", "broadcast"):
                await a.events.until(lambda key=(plane, reason): a.events.rejections[key])
            a.transport.disconnect_broadcast(peer)
            assert not a.transport.send_direct(peer, b"x")
        assert dict(a.events.failed)[route] == "no such host"


# -- refusing to start -----------------------------------------------------------


async def refusal(*listen: str) -> TransportError:
    with pytest.raises(TransportError) as caught, trio.fail_after(30):
        await transport(*listen).run(Recorder())
    return caught.value


async def test_a_port_in_use_is_one_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        error = await refusal("tcp://127.0.0.1:0", f"tcp://127.0.0.1:{port}")
    assert error.endpoint == f"tcp://127.0.0.1:{port}"
    assert "address already in use" in error.reason


async def test_nowhere_to_listen() -> None:
    assert "at least one endpoint" in (await refusal()).reason


async def test_no_curve_no_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zmq, "has", lambda what: False)
    assert "no CURVE" in (await refusal("tcp://127.0.0.1:0")).reason


async def test_it_does_not_run_if_strangers_are_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def everybody(
        self: Gate, request: Sequence[bytes], events: TransportEvents, intro_rate: TokenBucket
    ) -> tuple[bytes, bytes, bytes]:
        assert self._probe is not None
        self._probe[1]()
        return b"200", b"OK", b""

    monkeypatch.setattr(Gate, "_judge", everybody)
    assert "let a stranger's key in" in (await refusal("tcp://127.0.0.1:0")).reason


async def test_it_does_not_run_if_nobody_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    async def deaf(self: Gate, *args: object, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()

    monkeypatch.setattr(Gate, "run", deaf)
    monkeypatch.setattr("mesh.transport.zmqselftest._PATIENCE", 0.5)
    assert "its own test" in (await refusal("tcp://127.0.0.1:0")).reason


async def test_out_of_sockets_is_an_error_not_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zmqsocket, "_MAX_SOCKETS", 3)
    assert "too many open files" in (await refusal("tcp://127.0.0.1:0")).reason


async def test_out_of_sockets_later_raises_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zmqsocket, "_MAX_SOCKETS", 16)
    async with world.node() as a, world.node() as b:
        for _ in range(16):
            key = new_link().public
            a.transport.open_link(node_id(key), key, b.address.direct)
        assert a.events.rejections["direct", "too_many_sockets"]
        route = a.transport.dial_intro(b.address.intro)
        await a.events.until(lambda: a.events.failed)
        assert a.events.failed == [(route, "too many open files")]
