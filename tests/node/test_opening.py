"""``open_node``: its defaults, its arguments, and what is said about wrong ones."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

import mesh
from mesh.home import Home
from tests.node.meshes import CALM, PATIENCE, take

LOCAL: dict[str, Any] = {"listen": ["tcp://127.0.0.1:0"], "discovery": (), "config": CALM}


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MESH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


async def test_the_first_use_makes_a_home(own_home: Path) -> None:
    assert not own_home.exists()
    async with mesh.open_node(**LOCAL) as node:
        assert node.name.endswith(f"-{os.getpid()}")
    assert (own_home / "credentials.json").stat().st_mode & 0o077 == 0
    assert own_home.stat().st_mode & 0o077 == 0


async def test_the_defaults() -> None:
    """No argument at all: all interfaces, mDNS and scout."""
    with trio.fail_after(PATIENCE):
        async with mesh.open_node() as node, node.subscribe("t") as messages:
            assert node.endpoints
            assert set(node.discovery_status) <= {"mdns", "scout"}
            await node.publish("t", 1)
            assert (await take(messages, 1))[0].value == 1


async def test_homes_given_as_text_and_as_path(tmp_path: Path) -> None:
    async with (
        mesh.open_node("one", home=str(tmp_path / "x"), **LOCAL) as one,
        mesh.open_node("two", home=tmp_path / "x", connect=one.endpoints, **LOCAL) as two,
    ):
        with trio.fail_after(PATIENCE):
            await two.wait_for_peers(1)
        assert [peer.name for peer in two.peers.values()] == ["one"]


async def test_the_meshs_name_is_for_a_home_that_is_new(tmp_path: Path) -> None:
    async with mesh.open_node(mesh_name="garden", **LOCAL):
        pass
    assert Home().credentials().mesh_name == "garden"
    async with mesh.open_node(mesh_name="garden", **LOCAL):
        pass
    with pytest.raises(mesh.CredentialError, match="garden"):
        async with mesh.open_node(mesh_name="cellar", **LOCAL):
            pass


async def test_members_of_other_meshes_stay_strangers(tmp_path: Path) -> None:
    async with (
        mesh.open_node("one", home=tmp_path / "a", **LOCAL) as one,
        mesh.open_node("two", home=tmp_path / "b", connect=one.endpoints, **LOCAL) as two,
    ):
        assert not two.peers
        with trio.fail_after(PATIENCE):
            while not two.refusals:
                await two._presence.changed.park()
        assert "another mesh" in two.refusals[one.endpoints[0]]
        assert not one.peers


async def test_one_seed_is_enough(tmp_path: Path) -> None:
    """Who knows one peer gets to know all."""
    async with (
        mesh.open_node("one", **LOCAL) as one,
        mesh.open_node("two", connect=one.endpoints, **LOCAL) as two,
        mesh.open_node("three", connect=two.endpoints, **LOCAL) as three,
    ):
        with trio.fail_after(PATIENCE):
            await three.wait_for_peers(2)
            await one.wait_for_peers(2)


async def test_opening_waits_for_the_seeds(tmp_path: Path) -> None:
    # For as long as it takes: the defaults give up after a second, and then the message is nobody's.
    patient = {**LOCAL, "config": replace(CALM, quick_discovery=PATIENCE, settle_timeout=PATIENCE)}
    async with (
        mesh.open_node("one", **LOCAL) as one,
        one.subscribe("t") as messages,
        mesh.open_node("two", connect=one.endpoints, **patient) as two,
    ):
        await two.publish("t", "at once")
        assert (await take(messages, 1))[0].value == "at once"


async def test_a_seed_where_nobody_is_does_not_hold_up_for_long(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        seed = f"tcp://127.0.0.1:{nobody.getsockname()[1]}"
        with trio.fail_after(PATIENCE):
            async with mesh.open_node(connect=[seed], **LOCAL) as node:
                assert not node.peers


async def test_a_seed_that_comes_later(tmp_path: Path) -> None:
    async with mesh.open_node("one", **LOCAL) as one, mesh.open_node("two", **LOCAL) as two:
        two.add_seed(one.endpoints[0])
        with trio.fail_after(PATIENCE):
            await two.wait_for_peers(1)


async def test_over_a_unix_socket(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir(mode=0o700)
    settings = {**LOCAL, "listen": [f"ipc://{folder}/one"]}
    async with (
        mesh.open_node("one", **settings) as one,
        mesh.open_node("two", connect=one.endpoints, **{**LOCAL, "listen": [f"ipc://{folder}/two"]}) as two,
        two.subscribe("t") as messages,
    ):
        await one.publish("t", 1)
        assert (await take(messages, 1))[0].sender.name == "one"


@pytest.mark.parametrize("name", ["", "x" * 65, "two\nlines", " spaces ", 7])
async def test_names(name: Any) -> None:
    with pytest.raises(mesh.ConfigError) as caught:
        async with mesh.open_node(name, **LOCAL):
            pass
    assert caught.value.key == "name"


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"listen": "tcp://*:0"}, "listen"),
        ({"listen": [7400]}, "listen"),
        ({"connect": "tcp://cellar:7400"}, "connect"),
        ({"connect": [None]}, "connect"),
        ({"connect": ["http://cellar"]}, "connect"),
        ({"connect": ["tcp://cellar:99999"]}, "connect"),
        ({"discovery": ["bluetooth"]}, "discovery"),
        ({"discovery": "mdns"}, "discovery"),
        ({"discovery": ["scout", "scout"]}, "discovery"),
        ({"config": {"buffer": 3}}, "config"),
    ],
    ids=repr,
)
async def test_wrong_settings(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(mesh.ConfigError) as caught:
        async with mesh.open_node(**{**LOCAL, **changes}):
            pass
    assert caught.value.key == key
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "listen", ["udp://*:1", "tcp://*", "tcp://*:70000", "ipc://relative", "tcp://192.0.2.1:0"]
)
async def test_endpoints_that_cannot_be(listen: str) -> None:
    with pytest.raises(mesh.TransportError) as caught:
        async with mesh.open_node(**{**LOCAL, "listen": [listen]}):
            pass
    assert caught.value.endpoint.startswith(listen[:6]) and "\n" not in str(caught.value)


async def test_no_endpoint_at_all() -> None:
    with pytest.raises(mesh.TransportError):
        async with mesh.open_node(**{**LOCAL, "listen": []}):
            pass


async def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        endpoint = f"tcp://127.0.0.1:{min(other.getsockname()[1], 65533)}"
        with pytest.raises(mesh.TransportError, match="in use") as caught:
            async with mesh.open_node(**{**LOCAL, "listen": [endpoint]}):
                pass
        assert caught.value.endpoint == endpoint


async def test_a_home_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(mesh.CredentialError, match="file"):
        async with mesh.open_node(home=tmp_path / "file", **LOCAL):
            pass
    damaged = tmp_path / "damaged"
    damaged.mkdir(mode=0o700)
    (damaged / "credentials.json").write_text("{")
    with pytest.raises(mesh.CredentialError, match=r"credentials\.json"):
        async with mesh.open_node(home=damaged, **LOCAL):
            pass
