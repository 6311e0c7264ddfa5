"""The ZeroMQ transport holds the contract over TCP (IPv4, IPv6, wildcards) and Unix sockets."""

from __future__ import annotations

import itertools
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import zmq

from mesh.config import Config
from mesh.core.types import MeshId
from mesh.transport import zmqbroadcast
from mesh.transport.base import LinkKey, Transport
from mesh.transport.zmqtransport import ZmqTransport
from tests.transport.contract import Node, TransportContract, World, listen_to, publish, subscribed


def free_ports(host: str) -> int:
    """The first of three free ports in a row."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        sockets = [socket.socket(family) for _ in range(3)]
        try:
            sockets[0].bind((host, 0))
            port: int = sockets[0].getsockname()[1]
            if port > 65533:
                continue
            for number in (1, 2):
                sockets[number].bind((host, port + number))
        except OSError:
            continue
        else:
            return port
        finally:
            for each in sockets:
                each.close()


class TcpWorld(World):
    def __init__(self, host: str, seen_as: str) -> None:
        self.host = host
        self.seen_as = seen_as

    def make(self, place: str | None, link: LinkKey, mesh: MeshId, config: Config) -> tuple[Transport, str]:
        listen = place or f"tcp://{self.host}:0"
        return ZmqTransport([listen], link, mesh, config), self.seen_as

    def place(self) -> str:
        return f"tcp://{self.host}:{free_ports(self.seen_as)}"

    @asynccontextmanager
    async def stuck_subscriber(self, publisher: Node, body: bytes) -> AsyncIterator[Callable[[], None]]:
        publisher.transport.admit_broadcast(self.seen_as)
        released = trio.Event()
        with zmq.Context() as context, context.socket(zmq.XSUB) as raw:
            raw.setsockopt(zmq.LINGER, 0)
            raw.setsockopt(zmq.RCVHWM, 1)
            raw.setsockopt(zmq.RCVBUF, 4096)
            raw.setsockopt(zmq.IPV6, int("[" in publisher.address.broadcast))
            raw.connect(publisher.address.broadcast)
            raw.send(b"\1" + body)

            async def take() -> None:
                await released.wait()
                while True:
                    try:
                        raw.recv_multipart(zmq.NOBLOCK)
                    except zmq.Again:
                        await trio.sleep(0.001)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(take)
                yield released.set
                nursery.cancel_scope.cancel()


class IpcWorld(TcpWorld):
    def __init__(self, folder: Path) -> None:
        super().__init__("", "")
        self._folder = folder
        self._numbers = itertools.count()

    def make(self, place: str | None, link: LinkKey, mesh: MeshId, config: Config) -> tuple[Transport, str]:
        return ZmqTransport([place or self.place()], link, mesh, config), ""

    def place(self) -> str:
        return f"ipc://{self._folder}/{next(self._numbers)}"


class TestTcp4(TransportContract):
    @pytest.fixture
    def world(self) -> World:
        return TcpWorld("127.0.0.1", "127.0.0.1")


class TestTcp6(TransportContract):
    @pytest.fixture
    def world(self) -> World:
        try:
            with socket.socket(socket.AF_INET6) as probe:
                probe.bind(("::1", 0))
        except OSError as error:
            pytest.skip(f"NO IPv6 LOOPBACK, so IPv6 is not tested: {error}")
        return TcpWorld("[::1]", "::1")


class TestIpc(TransportContract):
    @pytest.fixture
    def world(self, tmp_path: Path) -> World:
        tmp_path.chmod(0o700)
        return IpcWorld(tmp_path)

    async def test_a_stranger_gets_no_byte(self, world: World) -> None:
        """Unix sockets have no address to admit: the kernel says whose the other end is."""
        async with world.node() as p, world.node() as s:
            s.transport.subscribe(b"me:t")
            s.transport.connect_broadcast(p.id, p.address.broadcast)
            await subscribed(p, b"\1me:t")
            await publish(p, b"t", b"open")
            await s.events.until(lambda: s.events.broadcast)


async def test_a_publisher_is_woken_by_news_not_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever call takes the FD's edge, nobody who waits for room misses it."""
    monkeypatch.setattr(zmqbroadcast, "_RECHECK", 60)
    world = TcpWorld("127.0.0.1", "127.0.0.1")
    async with world.node() as p, world.node() as s:
        s.transport.subscribe(b"me:t")
        listen_to(s, p)
        await subscribed(p, b"\1me:t")
        frame = bytes(1024)
        waits = published = 0
        with trio.fail_after(30):
            while waits < 10:  # how many frames fill the pipes is the kernel's affair
                if p.transport.publish(b"t", frame):
                    published += 1
                else:
                    waits += 1
                    await p.transport.wait_publishable()
        await s.events.until(lambda: len(s.events.broadcast) == published)
