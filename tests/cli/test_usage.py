"""What a person can do wrong on the command line, and what each is told: one line, no traceback."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest
import trio

from tests.cli.command import home_at, mesh, mesh_here


async def test_help_names_every_command() -> None:
    done = await mesh("--help")
    assert done.code == 0
    text = "\n".join(done.stdout)
    for name in (
        *("init", "invite", "join", "members", "id", "daemon", "pub", "sub"),
        *("request", "serve", "peers", "ping", "doctor", "demo"),
    ):
        assert f"\n  {name} " in text
    alone = await mesh()
    assert (alone.code, alone.stdout) == (2, done.stdout)
    assert (await mesh("--version")).stdout[0].startswith("zeromesh ")


async def test_help_of_a_command_has_examples() -> None:
    done = await mesh("sub", "--help")
    assert done.code == 0
    assert "  mesh sub 'home/*/temperature'" in "\n".join(done.stdout)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("sbu",), "Did you mean 'sub'? (try mesh --help)"),
        (("sub",), "missing argument 'PATTERN' (try mesh sub --help)"),
        (("sub", "a", "--jsno"), "no such option: --jsno"),
        (("sub", "a", "--count", "many"), "--count"),
        (("sub", "a", "--count", "0"), "--count"),
        (("sub", "a", "--json", "--raw"), "--json and --raw: one of them"),
        (("pub", "a", "--rwa"), "no such option: --rwa"),
        (("pub", "a", "1", "--header", "x"), "expected NAME=TEXT"),
        (("pub", "a", "1", "--connect", "udp://x"), 'expected the endpoint of a peer, such as "tcp:'),
        (("request", "a", "--all", "--to", "b"), "--all and --to: one of them"),
        (("serve", "a"), "--exec"),
        (("invite", "--expires", "soon"), "expected a time such as 90s, 15m, 1h or 2d"),
        (("init", "x\ty"), "printable characters"),
        (("daemon", "--name", ""), "expected a name"),
    ],
)
def test_usage_mistakes_are_one_line_and_exit_2(
    words: tuple[str, ...], expected: str, own_home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done = mesh_here(capfd, *words)
    assert done.code == 2, done
    assert expected in done.line


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("pub", "a//b", "1"), "topic 'a//b'"),
        (("pub", "a/*", "1"), "topic 'a/*'"),
        (("sub", "a/b*"), "topic 'a/b*'"),
        (("sub", ""), "topic ''"),
        (("request", "a/**"), "topic 'a/**'"),
        (("serve", "a//b", "--exec", "true"), "topic 'a//b'"),
        (("id",), "not a member of a mesh: `mesh init` makes one, `mesh join TOKEN` joins one"),
        (("members",), "not a member of a mesh"),
        (("invite",), "not a member of a mesh"),
        (("join", "hello"), "the token is too short"),
        (("join", "0-U-0"), "'U' (character 2) cannot be in a token: was it mistyped?"),
        (("join", ""), "the token is empty"),
        (("join", "0" * 60), "the token"),
        (("daemon", "--config", "/nonexistent.toml"), "/nonexistent.toml: cannot be read: No such file"),
        (("ping", "nobody"), "no such peer: 'nobody'"),
        (("request", "nothing/here"), "nobody serves 'nothing/here'"),
    ],
)
def test_failures_are_one_line_and_exit_1(
    words: tuple[str, ...], expected: str, own_home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done = mesh_here(capfd, *words)
    assert done.code == 1, done
    assert expected in done.line


def test_a_mistake_in_the_configuration_names_file_line_and_key(
    own_home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    home_at(own_home, "[node]\nlisten = ['tcp://*:7400']\ndiscvery = []\n")
    for words in (("daemon",), ("pub", "a", "1"), ("peers",)):
        done = mesh_here(capfd, *words)
        assert done.code == 1
        assert f"{own_home / 'mesh.toml'}:3: node.discvery: " in done.line
        assert 'did you mean "discovery"?' in done.line


def test_a_mistake_in_the_rules_keeps_the_daemon_from_starting(
    own_home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    home_at(own_home, "[[allow]]\naction = 'publish'\n")
    done = mesh_here(capfd, "daemon")
    assert done.code == 1
    assert "allow[1]: has no pattern" in done.line


def test_homes_that_cannot_be_used(own_home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("")
    done = mesh_here(capfd, "pub", "a", "1", "--home", str(file))
    assert done.code == 1
    assert str(file) in done.line

    assert mesh_here(capfd, "init").code == 0
    secret = own_home / "credentials.json"
    secret.chmod(0o644)
    done = mesh_here(capfd, "id")
    assert done.code == 1
    assert "chmod 600" in done.line
    secret.chmod(0o600)
    secret.write_text("{")
    done = mesh_here(capfd, "pub", "a", "1")
    assert done.code == 1
    assert "credentials.json: the file is damaged" in done.line


def test_a_port_in_use(own_home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        home_at(own_home, f"[node]\nlisten = ['{endpoint}']\ndiscovery = []\n")
        done = mesh_here(capfd, "daemon")
    assert done.code == 1
    assert endpoint in done.line
    assert "already in use" in done.line


async def test_home_stands_after_the_subcommand_too(tmp_path: Path) -> None:
    home = home_at(tmp_path / "home")
    assert (await mesh("init", "orchard", "--home", str(home), home=tmp_path / "other")).code == 0
    done = await mesh("id", "--json", "--home", str(home))
    assert done.json["mesh"] == "orchard"
    assert not (tmp_path / "other").exists()


async def test_a_reader_that_has_enough_is_no_failure(tmp_path: Path) -> None:
    home = home_at(tmp_path / "home")
    assert (await mesh("init", home=home)).code == 0
    read, write = os.pipe()
    os.close(read)
    try:
        done = await trio.run_process(
            [sys.executable, "-m", "mesh.cli.main", "id"],
            stdout=write,
            capture_stderr=True,
            check=False,
            env={**os.environ, "MESH_HOME": str(home)},
        )
    finally:
        os.close(write)
    assert done.returncode == 0
    assert done.stderr == b""
