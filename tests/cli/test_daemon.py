"""The daemon as its machine sees it: ready, reloaded, stopped, alone in its home."""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from mesh.daemon.control import ask
from tests.cli.command import QUIET, daemon, home_at, mesh, started


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[socket.socket]:
    """What systemd's end of NOTIFY_SOCKET is."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.setblocking(False)
        yield receiver


async def told(receiver: socket.socket, wanted: str) -> str:
    """The next notification with this in it."""
    with trio.fail_after(30):
        while True:
            await trio.lowlevel.wait_readable(receiver)
            text = receiver.recv(4096).decode()
            if wanted in text:
                return text


async def test_a_life_under_a_supervisor(tmp_path: Path, supervisor: socket.socket) -> None:
    home = home_at(tmp_path / "home", QUIET + "name = 'kitchen'\n")
    async with started("daemon", home=home, env={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as running:
        ready = await running.expect("^ready kitchen [0-9a-f]{32} tcp://", within=30)
        assert "STATUS=kitchen: 0 peers" in await told(supervisor, "READY=1")
        assert f"ipc://{home}/run/daemon.intro" in ready.string

        (home / "mesh.toml").write_text(
            QUIET + "name = 'cellar'\nconnect = ['tcp://127.0.0.1:9']\nlog = 'debug'\n"
        )
        running.signal(signal.SIGHUP)
        await told(supervisor, "RELOADING=1")
        await told(supervisor, "READY=1")
        await running.expect("new seed tcp://127.0.0.1:9", on="stderr")
        await running.expect("node.name changed: restart the daemon for that", on="stderr")
        await running.expect("reloaded", on="stderr")

        (home / "mesh.toml").write_text("[node]\nnmae = 'cellar'\n")
        running.signal(signal.SIGHUP)
        await running.expect(r"not reloaded: .*mesh\.toml:2: node\.nmae: .*did you mean", on="stderr")

        running.signal(signal.SIGTERM)
        await told(supervisor, "STOPPING=1")
        assert await running.wait(within=10) == 0
    assert not (home / "daemon.sock").exists()
    assert not list((home / "run").iterdir())


async def test_ctrl_c_stops_it_in_order(tmp_path: Path) -> None:
    async with daemon(home_at(tmp_path / "home")) as running:
        running.signal(signal.SIGINT)
        assert await running.wait(within=10) == 0
        assert len(running.stdout) == 1


async def test_only_one_runs_in_a_home(tmp_path: Path) -> None:
    home = home_at(tmp_path / "home")
    async with daemon(home):
        second = await mesh("daemon", home=home)
        assert second.code == 1
        assert "a daemon runs in this home already" in second.line
        assert (await mesh("peers", "--json", home=home)).json == []


async def test_a_killed_daemon_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    home = home_at(tmp_path / "home")
    async with daemon(home) as running:
        running.signal(signal.SIGKILL)
        await running.wait()
    assert (home / "daemon.sock").exists()
    async with daemon(home, "--name", "again"):
        assert (await mesh("ping", "again", "--count", "1", home=home)).code == 0


async def test_two_daemons_of_one_machine_share_the_ports(tmp_path: Path) -> None:
    """Without a configured port the second takes what is free."""
    async with daemon(home_at(tmp_path / "one")) as one, daemon(home_at(tmp_path / "two")) as two:
        ports = [re.findall(r"tcp://\S+:(\d+)", each.stdout[0]) for each in (one, two)]
        assert not set(ports[0]) & set(ports[1])


async def test_two_machines_meet_by_a_seed(tmp_path: Path) -> None:
    kitchen, cellar = home_at(tmp_path / "kitchen"), tmp_path / "cellar"
    async with daemon(kitchen, "--name", "kitchen") as first:
        token = (await mesh("invite", home=kitchen)).stdout[0]
        endpoint = re.search(r"tcp://127\S+", first.stdout[0])
        assert endpoint is not None
        home_at(cellar, QUIET + f"connect = ['{endpoint[0]}']\n")
        assert (await mesh("join", token, "--name", "cellar", home=cellar)).code == 0
        async with daemon(cellar) as second, started("peers", "--watch", "--json", home=kitchen) as watch:
            event = json.loads((await watch.expect('"cellar"', within=30)).string)
            assert (event["change"], event["peer"]["member"]) == ("joined", "cellar")
            second.signal(signal.SIGTERM)
            assert await second.wait(within=10) == 0
            event = json.loads((await watch.expect('"left"', within=10)).string)
            assert event["peer"]["name"] == "cellar"


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[tuple[Path, Path]]:
    home = home_at(tmp_path / "home")
    async with daemon(home, "--name", "kitchen"):
        yield home, home / "daemon.sock"


async def test_what_can_be_asked(control: tuple[Path, Path]) -> None:
    home, path = control
    status = await ask(home, path, "status")
    assert status["name"] == "kitchen"
    assert status["counters"]["lost"] == 0
    assert len(await ask(home, path, "members")) == 1
    from mesh.daemon.control import DaemonError

    with pytest.raises(DaemonError, match="uses: expected a number"):
        await ask(home, path, "invite", uses="many", lifetime=1)
    with pytest.raises(DaemonError, match="no such peer: 'x'"):
        await ask(home, path, "ping", peer="x", timeout=1)
