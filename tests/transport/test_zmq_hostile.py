"""What strangers and broken peers do to the real transport, and what it costs: nothing."""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

import psutil
import pytest
import trio
import zmq

from mesh.config import Config, Limits
from mesh.core.keys import intro_key_pair
from mesh.core.types import node_id
from mesh.transport.base import Verdict
from tests.lab import Running, running
from tests.transport import hostile
from tests.transport.contract import (
    LIMITS,
    MESH,
    Node,
    Recorder,
    World,
    link_up,
    listen_to,
    new_link,
    publish,
    subscribed,
)
from tests.transport.test_zmq import TcpWorld

needs_tcp_info = pytest.mark.skipif(
    not hasattr(socket, "TCP_INFO"), reason="the kernel does not tell what a connection took in"
)

PLANES = ("intro", "direct", "broadcast")


@pytest.fixture
def world() -> World:
    return TcpWorld("127.0.0.1", "127.0.0.1")


def resident() -> int:
    size: int = psutil.Process().memory_info().rss
    return size


async def still_works(a: Node, b: Node) -> None:
    """Both links between two nodes carry frames."""
    link_up(a, b)
    assert a.transport.send_direct(b.id, b"alive")
    await b.events.until(lambda: (a.id, b"alive") in b.events.direct)
    listen_to(a, b)
    a.transport.subscribe(b"me:alive")
    await subscribed(b, b"\1me:alive")
    await publish(b, b"alive", b"yes")
    await a.events.until(lambda: (b"alive", b"yes") in a.events.broadcast)


@pytest.mark.parametrize("plane", PLANES)
async def test_garbage_is_closed_and_counted(world: World, plane: str) -> None:
    async with world.node() as a, world.node() as b:
        b.transport.admit_broadcast(a.host)
        endpoint = getattr(b.address, plane)
        with trio.fail_after(10):
            async with await hostile.connect(endpoint) as stream:
                await hostile.greet(stream, b"NULL" if plane == "broadcast" else b"CURVE")
                await stream.send_all(hostile.short_frame(b"\x07GARBAGE") * 20)
                await hostile.closed_by_peer(stream)
        await b.events.until(lambda: any(key[0] == plane for key in b.events.rejections))
        await still_works(a, b)


@pytest.mark.parametrize("plane", ["intro", "direct"])
async def test_a_client_without_curve_is_refused(world: World, plane: str) -> None:
    async with world.node() as a, world.node() as b:
        with trio.fail_after(10):
            async with await hostile.connect(getattr(b.address, plane)) as stream:
                await hostile.greet(stream, b"NULL")
                await hostile.closed_by_peer(stream)
        await b.events.until(lambda: any(key[0] == plane for key in b.events.rejections))
        assert not b.events.intro
        await still_works(a, b)


@pytest.mark.parametrize("size", [1 << 30, 2048])
async def test_a_huge_frame_costs_no_memory(world: World, size: int) -> None:
    async with world.node() as a, world.node() as b:
        b.transport.admit_broadcast("127.0.0.1")
        before = resident()
        with trio.fail_after(10):
            for _ in range(3):
                async with await hostile.connect(b.address.broadcast) as stream:
                    await hostile.null_handshake(stream, b"XSUB")
                    await stream.send_all(hostile.long_frame(size, b"\1" * 1024))
                    await hostile.closed_by_peer(stream)
        assert resident() - before < 16 << 20
        assert not b.events.subscriptions
        await still_works(a, b)


async def test_before_the_handshake_frames_are_bounded_too(world: World) -> None:
    async with world.node() as b:
        before = resident()
        with trio.fail_after(10):
            for endpoint, mechanism in zip(b.address, (b"CURVE", b"CURVE", b"NULL"), strict=True):
                async with await hostile.connect(endpoint) as stream:
                    await hostile.greet(stream, mechanism)
                    await stream.send_all(b"\x06" + (1 << 30).to_bytes(8, "big") + bytes(1024))
                    await hostile.closed_by_peer(stream)
        assert resident() - before < 16 << 20


async def test_refused_subscriptions_cut_the_connection(world: World) -> None:
    """libzmq keeps each until its connection ends, so the connection has to end."""
    async with world.node() as a, world.node() as b:
        b.transport.admit_broadcast("127.0.0.1")
        with trio.fail_after(20):
            async with await hostile.connect(b.address.broadcast) as stream:
                await hostile.null_handshake(stream, b"XSUB")
                with pytest.raises(trio.BrokenResourceError):
                    for number in range(100_000):
                        await stream.send_all(hostile.short_frame(b"\1refused:%064d" % number))
        assert b.events.rejections["broadcast", "too_many_refused"]
        assert len(b.events.subscriptions) < 20_000
        await still_works(a, b)


async def test_frames_that_are_no_subscriptions_cut_the_connection(world: World) -> None:
    async with world.node() as a, world.node() as b:
        b.transport.admit_broadcast("127.0.0.1")
        with trio.fail_after(10):
            async with await hostile.connect(b.address.broadcast) as stream:
                await hostile.null_handshake(stream, b"XSUB")
                await stream.send_all(
                    hostile.short_frame(b"\2what", more=True) + hostile.short_frame(b"is this")
                )
                await hostile.closed_by_peer(stream)
        assert b.events.rejections["broadcast", "bad_frames"]
        await still_works(a, b)


async def test_a_subscription_with_a_wrong_mac_gets_no_byte(world: World) -> None:
    async with world.node() as b:
        b.transport.admit_broadcast("127.0.0.1")
        async with await hostile.connect(b.address.broadcast) as stream:
            await hostile.null_handshake(stream, b"XSUB")
            await stream.send_all(hostile.short_frame(b"\1refused:t") + hostile.short_frame(b"\1refused:"))
            await subscribed(b, b"\1refused:")
            await stream.send_all(hostile.short_frame(b"\1me:end"))
            await subscribed(b, b"\1me:end")
            assert b.transport.publish(b"t", b"secret")
            assert b.transport.publish(b"end", b"open")
            with trio.fail_after(10):
                got = b""
                while len(got) < 11:
                    got += await stream.receive_some(4096)
            assert got == b"\1\3end\0\4open"


async def test_the_end_of_a_connection_takes_nothing_back(world: World) -> None:
    """libzmq reports a dead connection's subscriptions as unsubscribed: they are not passed on."""

    class Once(Recorder):
        def subscription_received(self, body: bytes) -> Verdict:
            assert body[:1] == b"\1", "nobody unsubscribed"
            return super().subscription_received(body)

    async with world.node() as p, world.node() as s:
        p.events.__class__ = Once
        p.transport.admit_broadcast("127.0.0.1")
        async with await hostile.connect(p.address.broadcast) as stream:
            await hostile.null_handshake(stream, b"XSUB")
            await stream.send_all(hostile.short_frame(b"\1me:t"))
            await subscribed(p, b"\1me:t")
        s.transport.subscribe(b"me:t")
        listen_to(s, p)
        await p.events.until(lambda: p.events.subscriptions.count(b"\1me:t") == 2)
        await publish(p, b"t", b"x")
        await s.events.until(lambda: s.events.broadcast)


@pytest.mark.parametrize(("plane", "room"), [("broadcast", 2), ("intro", 3), ("direct", 3)])
async def test_an_address_has_so_many_connections(world: World, plane: str, room: int) -> None:
    """One beyond is closed before its handshake; when another ends there is room again."""
    config = Config.local(limits=Limits(connections_per_host=3))
    async with world.node(config=config) as b, AsyncExitStack() as stack:
        b.transport.admit_broadcast("127.0.0.1")
        endpoint = getattr(b.address, plane)
        with trio.fail_after(60):
            held = [await stack.enter_async_context(await hostile.connect(endpoint)) for _ in range(room)]
            async with await hostile.connect(endpoint) as beyond:
                await hostile.closed_by_peer(beyond)
            await b.events.until(lambda: b.events.rejections[plane, "too_many_connections"] == 1)
            await held[0].aclose()
            while True:  # libzmq's report comes when it comes
                async with await hostile.connect(endpoint) as again:
                    await hostile.greet(again, b"NULL" if plane == "broadcast" else b"CURVE")
                    with trio.move_on_after(0.2):
                        await hostile.closed_by_peer(again)
                        continue
                    return


def _curve_client(
    context: zmq.Context[zmq.Socket[bytes]], server_key: bytes, endpoint: str
) -> zmq.Socket[bytes]:
    raw: zmq.Socket[bytes] = context.socket(zmq.DEALER)
    raw.setsockopt(zmq.LINGER, 0)
    public, secret = zmq.curve_keypair()
    raw.setsockopt(zmq.CURVE_SERVERKEY, server_key)
    raw.setsockopt(zmq.CURVE_PUBLICKEY, public)
    raw.setsockopt(zmq.CURVE_SECRETKEY, secret)
    raw.connect(endpoint)
    return raw


async def test_a_message_of_many_parts_is_refused(world: World) -> None:
    async with world.node() as b:
        with (
            zmq.Context() as context,
            _curve_client(context, intro_key_pair(MESH)[0], b.address.intro) as raw,
        ):
            raw.send_multipart([b"one", b"two"])
            raw.send(b"fine")
            await b.events.until(lambda: b.events.intro)
        assert b.events.rejections["intro", "bad_frames"] == 1
        assert b.events.intro[0][1] == b"fine"


@asynccontextmanager
async def endless(kind: str, *words: str) -> AsyncIterator[Running]:
    async with running([sys.executable, "-m", "tests.transport.endless", kind, *words]) as program:
        yield program


def curve() -> tuple[str, str]:
    link = new_link()
    return link.public.hex(), link.secret.hex()


ENDLESS = 1 << 30
"""Bytes: more than loopback carries in the eighth of a second that two looks take. 1 Gbit/s carries 16 MB in it."""


async def cut_off(b: Node, plane: str, before: int) -> None:
    """What never became a whole message was ended, soon: without that it would grow for ever."""
    await b.events.until(lambda: b.events.rejections[plane, "endless"], seconds=60)
    grown = resident() - before
    assert grown < ENDLESS, f"{grown >> 20} MiB"


async def pour(stream: trio.SocketStream, socket_type: bytes) -> None:
    """Parts of a message that never ends, until the other side has enough."""
    some = hostile.long_frame(1000, bytes(1000), more=True) * 64
    with suppress(trio.BrokenResourceError):
        await hostile.null_handshake(stream, socket_type)
        while True:
            await stream.send_all(some)


@needs_tcp_info
@pytest.mark.parametrize("plane", ["intro", "direct"])
async def test_a_message_that_does_not_end_costs_no_memory(world: World, plane: str) -> None:
    """libzmq bounds a frame, and not the frames of a message."""
    async with world.node() as a, world.node() as b:
        before = resident()
        public, secret = curve()
        b.transport.allow(node_id(bytes.fromhex(public)), bytes.fromhex(public))
        server = b.link.public if plane == "direct" else intro_key_pair(MESH)[0]
        async with endless("DEALER", getattr(b.address, plane), server.hex(), public, secret):
            await cut_off(b, plane, before)
        await still_works(a, b)


@needs_tcp_info
async def test_nor_does_one_of_a_subscriber(world: World) -> None:
    async with world.node() as a, world.node() as b:
        b.transport.admit_broadcast("127.0.0.1")
        before = resident()
        async with await hostile.connect(b.address.broadcast) as stream:
            await pour(stream, b"XSUB")
        await cut_off(b, "broadcast", before)
        await still_works(a, b)


@needs_tcp_info
async def test_nor_does_one_of_a_publisher(world: World) -> None:
    async with world.node() as a, world.node() as b, trio.open_nursery() as nursery:
        before = resident()
        enough = trio.Event()

        async def publish_endlessly(stream: trio.SocketStream) -> None:
            await pour(stream, b"XPUB")
            enough.set()

        serve = partial(trio.serve_tcp, publish_endlessly, 0, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        port = listener.socket.getsockname()[1]
        b.transport.connect_broadcast(a.id, f"tcp://127.0.0.1:{port}")
        with trio.fail_after(60):
            await enough.wait()
        await cut_off(b, "broadcast", before)
        b.transport.disconnect_broadcast(a.id)
        await still_works(a, b)
        nursery.cancel_scope.cancel()


@needs_tcp_info
async def test_nor_one_that_comes_back_on_a_link(world: World) -> None:
    async with world.node() as a, world.node() as b:
        before = resident()
        public, secret = curve()
        async with endless("ROUTER", "bind", public, secret) as peer:
            b.transport.open_link(a.id, bytes.fromhex(public), (await peer.expect("^tcp")).string)
            assert b.transport.send_direct(a.id, b"hello")
            await cut_off(b, "direct", before)
            b.transport.close_link(a.id)
        await still_works(a, b)


@needs_tcp_info
async def test_nor_one_that_answers_an_introduction(world: World) -> None:
    async with world.node() as a, world.node() as b:
        before = resident()
        public, secret = (key.hex() for key in intro_key_pair(MESH))
        async with endless("ROUTER", "bind", public, secret) as peer:
            route = b.transport.dial_intro((await peer.expect("^tcp")).string)
            b.transport.send_intro(route, b"hello")
            await cut_off(b, "intro", before)
            b.transport.close_intro(route)
        await still_works(a, b)


@needs_tcp_info
async def test_whole_messages_are_no_overdraft(world: World) -> None:
    """However many: a busy link is not cut."""
    async with world.node() as a, world.node() as b:
        link_up(a, b)
        frame = bytes(LIMITS.frame_bytes)
        sent = 0
        while sent < 400:  # a hundred times what may come without a whole message
            if a.transport.send_direct(b.id, frame):
                sent += 1
            else:
                await a.transport.wait_direct_writable(b.id)
        await b.events.until(lambda: len(b.events.direct) == sent, seconds=60)
        assert not b.events.rejections


async def test_an_oversize_introduction_is_cut(world: World) -> None:
    async with world.node() as b:
        server_key = intro_key_pair(MESH)[0]
        with (
            zmq.Context() as context,
            _curve_client(context, server_key, b.address.intro) as over,
            _curve_client(context, server_key, b.address.intro) as within,
        ):
            over.send(bytes(5000))
            within.send(bytes(4096))
            await b.events.until(lambda: b.events.intro)
            over.send(b"what came before it never came")
            await b.events.until(lambda: len(b.events.intro) == 2)
        assert [len(frame) for _, frame, _ in b.events.intro] == [4096, 30]


async def test_introductions_are_let_in_at_a_bounded_rate(world: World) -> None:
    config = Config.local(limits=Limits(handshakes_per_second=2.0))
    async with world.node() as a, world.node(config=config) as b:
        for _ in range(4):
            a.transport.send_intro(a.transport.dial_intro(b.address.intro), b"hello")
        await b.events.until(lambda: b.events.rejections["intro", "rate"] >= 2)
        assert len(b.events.intro) <= 3


async def test_one_routing_id_for_two_does_not_mix_them_up(world: World) -> None:
    """Who a frame is from is its key, whatever its sender calls itself."""
    async with world.node() as a, world.node() as b:
        link_up(a, b)
        a.transport.send_direct(b.id, b"mine")
        await b.events.until(lambda: b.events.direct)
        with zmq.Context() as context, _curve_client(context, b.link.public, b.address.direct) as raw:
            raw.setsockopt(zmq.ROUTING_ID, a.id)
            raw.send(b"also mine")
            await b.events.until(lambda: b.events.rejections["direct", "unknown_key"])
        assert b.events.direct == [(a.id, b"mine")]
