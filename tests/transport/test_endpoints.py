"""Endpoints: three sockets from one, and what is wrong said so that one knows what to do."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from mesh.errors import TransportError
from mesh.transport.endpoints import (
    bind,
    is_own_unix_peer,
    needs_resolving,
    peer_host,
    plane_endpoints,
    resolve,
    without_zone,
)


@pytest.fixture
def router() -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as raw:
        raw.setsockopt(zmq.LINGER, 0)
        yield raw


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.mark.parametrize(
    ("listen", "three"),
    [
        ("tcp://*:7400", ("tcp://*:7400", "tcp://*:7401", "tcp://*:7402")),
        ("tcp://*:0", ("tcp://*:0",) * 3),
        ("tcp://[::1]:65533", ("tcp://[::1]:65533", "tcp://[::1]:65534", "tcp://[::1]:65535")),
        (
            "tcp://[fe80::1%eth0]:1",
            ("tcp://[fe80::1%eth0]:1", "tcp://[fe80::1%eth0]:2", "tcp://[fe80::1%eth0]:3"),
        ),
        ("ipc:///run/m", ("ipc:///run/m.intro", "ipc:///run/m.direct", "ipc:///run/m.broadcast")),
    ],
)
def test_one_listen_endpoint_names_three(listen: str, three: tuple[str, str, str]) -> None:
    assert plane_endpoints(listen) == three


@pytest.mark.parametrize(
    "listen",
    [
        "",
        "7400",
        "tcp://*",
        "tcp://:1",
        "tcp://*:65534",
        "tcp://a b:1",
        "udp://*:1",
        "ipc://",
        "ipc://relative/path",
    ],
)
def test_what_is_no_endpoint_is_told_so(listen: str) -> None:
    with pytest.raises(TransportError) as caught:
        plane_endpoints(listen)
    assert caught.value.endpoint == listen
    assert caught.value.reason


def test_a_wildcard_stays_as_it_is_and_gets_its_port(router: zmq.Socket[bytes]) -> None:
    host, _, port = bind(router, "tcp://*:0").rpartition(":")
    assert host == "tcp://*"
    assert int(port) > 0


def test_a_port_in_use(router: zmq.Socket[bytes]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        endpoint = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(TransportError, match="address already in use: stop what listens there") as caught:
            bind(router, endpoint)
        assert caught.value.endpoint == endpoint


def test_an_address_of_another_machine(router: zmq.Socket[bytes]) -> None:
    with pytest.raises(TransportError, match="no such address"):
        bind(router, "tcp://192.0.2.1:0")


def test_a_host_name_is_no_address_to_bind(router: zmq.Socket[bytes]) -> None:
    with pytest.raises(TransportError, match="no such address"):
        bind(router, "tcp://no-such-interface:0")


def test_a_unix_socket_is_its_owners(router: zmq.Socket[bytes], folder: Path) -> None:
    path = folder / "new" / "m.intro"
    assert bind(router, f"ipc://{path}") == f"ipc://{path}"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_can_reach_is_refused(router: zmq.Socket[bytes], folder: Path) -> None:
    folder.chmod(0o755)
    with pytest.raises(TransportError, match="chmod 700"):
        bind(router, f"ipc://{folder}/m.intro")


def test_a_stale_unix_socket_is_replaced(router: zmq.Socket[bytes], folder: Path) -> None:
    path = folder / "m.intro"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    bind(router, f"ipc://{path}")


def test_a_living_unix_socket_is_not(router: zmq.Socket[bytes], folder: Path) -> None:
    path = folder / "m.intro"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(TransportError, match="another node listens there"):
            bind(router, f"ipc://{path}")


def test_a_file_in_the_way_is_left_alone(router: zmq.Socket[bytes], folder: Path) -> None:
    path = folder / "m.intro"
    path.write_text("precious")
    with pytest.raises(TransportError, match="no socket is in the way"):
        bind(router, f"ipc://{path}")
    assert path.read_text() == "precious"


def test_a_path_too_long(router: zmq.Socket[bytes], folder: Path) -> None:
    with pytest.raises(TransportError, match="too long"):
        bind(router, f"ipc://{folder}/{'x' * 120}.intro")


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::1", "::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("localhost:0:0:123", ""),
        ("", ""),
    ],
)
def test_the_host_at_the_other_end(address: str, host: str) -> None:
    assert peer_host(address) == host


def test_an_address_without_its_zone() -> None:
    assert without_zone("fe80::1%eth0") == "fe80::1"


def test_own_unix_peers() -> None:
    assert is_own_unix_peer(f"localhost:{os.getuid()}:5:123")
    assert is_own_unix_peer("localhost:0:0:123")
    assert not is_own_unix_peer(f"localhost:{os.getuid() + 1}:5:123")
    assert not is_own_unix_peer("")
    assert not is_own_unix_peer("fe80::1:0:0:123")
    assert not is_own_unix_peer("127.0.0.1")


@pytest.mark.parametrize(
    "endpoint", ["tcp://127.0.0.1:1", "tcp://[::1]:1", "tcp://[fe80::1%lo]:1", "ipc:///x"]
)
async def test_addresses_are_not_resolved(endpoint: str) -> None:
    assert not needs_resolving(endpoint)
    assert await resolve(endpoint) == endpoint


async def test_names_are() -> None:
    assert needs_resolving("tcp://localhost:7400")
    assert await resolve("tcp://localhost:7400") in ("tcp://127.0.0.1:7400", "tcp://[::1]:7400")
