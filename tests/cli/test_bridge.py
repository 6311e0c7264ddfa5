"""Bridges by the command: in a node of their own, in the daemon, and what a mistake is told in one line."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
from pathlib import Path

import pytest
import redis
import trio

from mesh.daemon.control import ask
from mesh.daemon.operations import control_socket
from mesh.home import Home
from tests.bridges.conftest import redis_server as redis_server
from tests.bridges.redis_broker import PASSWORD, Broker
from tests.cli.command import QUIET, Done, daemon, home_at, mesh, mesh_here, started

ROUTES = """
[[bridge.export]]
pattern = "home/**"
to = "home.{1}"
reliable = true
format = "json"
[[bridge.import]]
from = "commands.*"
topic = "commands/{1}"
format = "json"
"""


def toml(url: str, more: str = "") -> str:
    return f"{QUIET}[[bridge]]\nkind = 'redis'\nurl = '{url}'\n{more}{ROUTES}"


@pytest.fixture
def client(redis_server: Broker) -> redis.Redis:
    redis_server.start_if_dead()
    client = redis.Redis(port=redis_server.port, password=PASSWORD, decode_responses=True)
    client.flushall()
    return client


async def entries(client: redis.Redis, stream: str, n: int) -> list[str]:
    """The first entries' values of a stream."""
    with trio.fail_after(60):
        while client.exists(stream) == 0 or client.xlen(stream) < n:  # noqa: ASYNC110 - another program's doing
            await trio.sleep(0.05)
    return [fields["data"] for _, fields in client.xrange(stream)]


async def test_the_daemon_runs_its_bridges(tmp_path: Path, redis_server: Broker, client: redis.Redis) -> None:
    home = home_at(tmp_path / "home", toml(f"redis://:${{SECRET}}@127.0.0.1:{redis_server.port}"))
    async with started("daemon", "-v", home=home, env={"SECRET": PASSWORD}) as running:
        await running.expect("^ready ", within=60)
        await running.expect("bridge redis: connected to", on="stderr", within=60)
        assert (await mesh("pub", "home/kitchen", "21.5", home=home)).code == 0
        assert await entries(client, "home.kitchen", 1) == ["21.5"]
        async with started("sub", "commands/*", "--json", "--count", "1", home=home) as reader:
            await reader.expect("live|subscribed", on="stderr", within=60)
            with trio.fail_after(60):
                while not client.publish("commands.light", '"on"'):  # noqa: ASYNC110 - until it listens
                    await trio.sleep(0.05)
            assert (
                '"topic": "commands/light", "value": "on"'
                in (await reader.expect("commands", within=60)).string
            )
        status = await ask(home, control_socket(Home(home)), "status")
        (bridge,) = status["bridges"]
        assert (bridge["name"], bridge["state"], bridge["leads"]) == ("redis", "connected", True)
        assert bridge["routes"][0]["moved"] == 1
        assert bridge["spool"]["messages"] == 0
        running.signal(signal.SIGTERM)
        assert await running.wait(within=20) == 0
        assert PASSWORD not in running.report() + str(status)


async def test_a_bridge_that_is_killed_keeps_what_it_took(
    tmp_path: Path, redis_server: Broker, client: redis.Redis
) -> None:
    """SIGKILL between spool and broker: the next one sends it."""
    home = home_at(tmp_path / "home", QUIET)
    config = tmp_path / "bridges.toml"
    config.write_text(toml(f"redis://:{PASSWORD}@127.0.0.1:{redis_server.port}"))
    await trio.to_thread.run_sync(redis_server.kill)
    async with daemon(home):
        async with started("bridge", "--config", str(config), home=home) as running:
            await running.expect("^ready .* redis$", within=60)
            done = await mesh("pub", "home/n", home=home, stdin="0\n1\n2\n")
            assert done.code == 0
            with trio.fail_after(60):
                while spooled(home / "bridges") < 3:  # noqa: ASYNC110 - another program's doing
                    await trio.sleep(0.05)
            running.signal(signal.SIGKILL)
            assert await running.wait(within=20) == -signal.SIGKILL
        await trio.to_thread.run_sync(redis_server.start)
        async with started("bridge", "--config", str(config), home=home) as running:
            await running.expect("^ready ", within=60)
            assert await entries(client, "home.n", 3) == ["0", "1", "2"]
            running.signal(signal.SIGTERM)
            assert await running.wait(within=20) == 0
            assert PASSWORD not in running.report()


def spooled(folder: Path) -> int:
    """Messages in the only spool there."""
    (file,) = folder.glob("*.spool")
    with contextlib.closing(sqlite3.connect(file)) as database:
        (count,) = database.execute("SELECT coalesce(sum(count), 0) FROM packets").fetchone()
    return int(count)


async def test_check(tmp_path: Path, redis_server: Broker, client: redis.Redis) -> None:
    config = tmp_path / "bridges.toml"

    async def check(url: str, env: dict[str, str] | None = None) -> Done:
        config.write_text(toml(url))
        return await mesh("bridge", "--config", str(config), "--check", home=tmp_path / "home", env=env)

    done = await check(f"redis://127.0.0.1:{redis_server.port}/3")
    assert done.code == 1
    assert done.line.startswith(f"bridge redis: redis://127.0.0.1:{redis_server.port}/3: credentials")
    done = await check(f"redis://:${{SECRET}}@127.0.0.1:{redis_server.port}", {"SECRET": PASSWORD})
    assert (done.code, done.stdout) == (0, [f"redis: redis://127.0.0.1:{redis_server.port}: connected"])
    assert client.dbsize() == 0
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("[[bridge]]\nkind='redis'\nurl='canary'\n[[bridge.export]]\npattern='a'\nto='b'", 3, "bridge[1].url: expected"),
        ("[[bridge]]\nkind='redis'\nurl='redis://x'\n[[bridge.export]]\npattern='a'\ntoo='b'", 6, 'export[1].too: is not known here (did you mean "to"?)'),
        ("[[bridge]]\nkind='redis'\nurl='redis://x'\n[[bridge.export]]\npattern='a//'\nto='b'", 5, "bridge[1].export[1].pattern: it has an empty level"),
        ("[[bridge]]\nkind='redis'\nurl='redis://x'\n[[bridge.import]]\nfrom='a'\ntopic='{1}'", 6, "bridge[1].import[1].topic: has {1}"),
        ("[[bridge]]\nkind='redis'\nurl='redis://x'\npassword_file='/nowhere'\n[[bridge.export]]\npattern='a'\nto='b'", 4, "bridge[1].password_file: /nowhere cannot be read"),
        ("[node]\n", 0, "has no [[bridge]]"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_line(
    own_home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str, line: int, expected: str
) -> None:
    config = tmp_path / "bridges.toml"
    config.write_text(text)
    for command in (["bridge"], ["bridge", "--check"]):
        done = mesh_here(capfd, *command, "--config", str(config))
        assert done.code == 1
        where = f"{config}:{line}: " if line else f"{config}: "
        assert done.line.startswith(where)
        assert expected in done.line
        assert "canary" not in done.line


def test_two_of_one_name(own_home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "bridges.toml"
    one = "[[bridge]]\nkind='redis'\nurl='redis://x'\n[[bridge.export]]\npattern='a'\nto='b'\n"
    config.write_text(one + one)
    done = mesh_here(capfd, "bridge", "--config", str(config), "--check")
    assert 'bridges.toml:8: bridge[2].kind: another bridge of this file is called "redis"' in done.line
