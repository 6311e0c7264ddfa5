"""``mesh ca``: the key under a passphrase, with a daemon; and its passphrase nowhere to be read."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from mesh.daemon.control import DaemonError, ask
from mesh.daemon.operations import control_socket
from mesh.home import Custody, Home
from tests.cli.command import QUIET, daemon, home_at, mesh, mesh_here

PASSPHRASE = "correct horse battery"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.touch(mode=0o600)
    path.write_text(PASSPHRASE + "\n")
    return path


async def test_a_daemon_and_its_wrapped_key(tmp_path: Path, file: Path) -> None:
    kitchen = home_at(tmp_path / "kitchen", QUIET + "listen = ['tcp://127.0.0.1:0']\n")
    Home(kitchen).init("orchard", "kitchen")
    Custody(Home(kitchen)).wrap(PASSPHRASE)
    socket = control_socket(Home(kitchen))
    async with daemon(kitchen) as locked:
        await locked.expect("until `mesh ca unlock`, nobody can join", on="stderr")
        with pytest.raises(DaemonError, match="the CA key is wrapped, and this process"):
            await ask(kitchen, socket, "invite", uses=1, lifetime=60)
        with pytest.raises(DaemonError, match="the passphrase is wrong"):
            await ask(kitchen, socket, "unlock", passphrase="wrong horse battery")
        assert (await mesh("ca", "unlock", "--passphrase-file", str(file), home=kitchen)).code == 0
        token = (await ask(kitchen, socket, "invite", uses=1, lifetime=600))["token"]
        await locked.expect("the CA key is unlocked", on="stderr")
        assert await ask(kitchen, socket, "lock") == {"locked": True}
        cellar = home_at(tmp_path / "cellar")
        sent_away = await mesh("join", token, "--name", "cellar", home=cellar)
        assert sent_away.line == (
            "cannot join: the CA key of that machine is locked: unlock it there (mesh ca unlock)"
        )
        said = "\n".join(locked.stdout + locked.stderr)
    async with daemon(kitchen, "--passphrase-file", str(file)) as unlocked:
        # A use that could not be redeemed is not spent; the daemon listens elsewhere now.
        endpoint = next(word for word in unlocked.stdout[0].split() if word.startswith("tcp://"))
        joined = await mesh("join", token, "--name", "cellar", "--connect", endpoint, home=cellar)
        assert joined.code == 0, joined
        said += "\n".join(unlocked.stdout + unlocked.stderr)
        arguments = Path(f"/proc/{unlocked.process.pid}/cmdline").read_bytes()
    assert PASSPHRASE not in said
    assert PASSPHRASE.encode() not in arguments


async def test_a_daemon_with_a_wrong_passphrase_says_so_and_ends(tmp_path: Path) -> None:
    home = home_at(tmp_path / "home")
    Home(home).init("orchard")
    Custody(Home(home)).wrap(PASSPHRASE)
    done = await mesh("daemon", home=home, env={"MESH_CA_PASSPHRASE": "wrong horse battery"})
    assert (done.code, done.line) == (1, "the passphrase is wrong (or the file was changed)")


def test_it_is_asked_for_without_an_echo(tmp_path: Path) -> None:
    Home(tmp_path / "home").init("orchard")
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "mesh.cli.main", "ca", "wrap"],
        env={**os.environ, "MESH_HOME": str(tmp_path / "home"), "PYTHONPATH": str(Path.cwd())},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,  # without a terminal of its own to open: it asks on this one
    ) as program:
        os.close(theirs)
        said = b""
        for prompt in (b"Passphrase of the CA key of mesh orchard: ", b"The same again: "):
            while not said.endswith(prompt):
                said += os.read(ours, 1)
            os.write(ours, PASSPHRASE.encode() + b"\n")
        while b"is wrapped" not in said:
            said += os.read(ours, 1024)
        assert program.wait(30) == 0
    os.close(ours)
    assert PASSPHRASE.encode() not in said
    assert Home(tmp_path / "home").custodian.state == "wrapped"


def test_mistakes(
    tmp_path: Path, file: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    at = ("--home", str(home))
    assert "not a member of a mesh" in mesh_here(capfd, "ca", "show", *at).line
    Home(home).init("orchard")
    assert "there is no terminal to ask on" in mesh_here(capfd, "ca", "wrap", *at).line
    by_file = (*at, "--passphrase-file", str(file))
    file.chmod(0o644)
    assert mesh_here(capfd, "ca", "wrap", *by_file).line.endswith(f"chmod 600 {file}")
    file.chmod(0o600)
    file.write_text("\n")
    assert "no passphrase in its first line" in mesh_here(capfd, "ca", "wrap", *by_file).line
    file.write_text("hunter2\n")
    short = mesh_here(capfd, "ca", "wrap", *by_file).line
    assert short == "a passphrase has at least 8 characters"
    monkeypatch.setenv("MESH_CA_PASSPHRASE_FILE", str(tmp_path / "nothing"))
    assert mesh_here(capfd, "ca", "wrap", *at).line.endswith("cannot be read: No such file or directory")
    monkeypatch.delenv("MESH_CA_PASSPHRASE_FILE")
    assert "no daemon runs" in mesh_here(capfd, "ca", "unlock", *at).line
    assert "no daemon runs" in mesh_here(capfd, "ca", "lock", *at).line
    assert mesh_here(capfd, "ca", "show", *at).stdout == [
        "the CA key of mesh orchard is here, and not wrapped: who can read this home has it"
    ]
    assert mesh_here(capfd, "ca", "show", "--json", *at).json == {
        "mesh": "orchard",
        "state": "clear",
        "unlocked": True,
        "moved_to": None,
        "moved_at": None,
    }
