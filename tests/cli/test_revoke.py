"""``mesh revoke``: two members of one mesh, and then one."""

from __future__ import annotations

import json
from pathlib import Path

import trio

from mesh.daemon.control import ask
from mesh.daemon.operations import control_socket
from mesh.home import Home
from tests.cli.command import QUIET, daemon, home_at, mesh, started
from tests.lab import Running


async def joined(tmp_path: Path, kitchen: Path, first: Running, name: str) -> Path:
    """The home of a member that knows where the first daemon is."""
    endpoint = next(word for word in first.stdout[0].split() if word.startswith("tcp://"))
    home = home_at(tmp_path / name, QUIET + f"connect = ['{endpoint}']\nlisten = ['tcp://127.0.0.1:0']\n")
    token = (await ask(kitchen, control_socket(Home(kitchen)), "invite", uses=1, lifetime=600))["token"]
    assert (await mesh("join", token, "--name", name, home=home)).code == 0
    return home


async def peers(home: Path) -> set[str]:
    return {each["member"] for each in await ask(home, control_socket(Home(home)), "peers")}


async def until_peers(home: Path, expected: set[str]) -> None:
    with trio.fail_after(60):
        while await peers(home) != expected:  # noqa: ASYNC110 - another process
            await trio.sleep(0.2)


async def test_a_member_is_cut_off_everywhere(tmp_path: Path) -> None:
    kitchen = home_at(tmp_path / "kitchen", QUIET + "listen = ['tcp://127.0.0.1:0']\n")
    Home(kitchen).init("orchard", "kitchen")
    async with daemon(kitchen) as first:
        cellar = await joined(tmp_path, kitchen, first, "cellar")
        attic = await joined(tmp_path, kitchen, first, "attic")
        async with daemon(cellar) as second, daemon(attic):
            for home, others in ((kitchen, {"cellar", "attic"}), (attic, {"kitchen", "cellar"})):
                await until_peers(home, others)
            async with (
                started("sub", "**", "--json", "--count", "1", home=cellar) as spy,
                started("sub", "**", "--json", "--count", "1", home=attic) as friend,
            ):
                for program in (spy, friend):
                    await program.expect("^live: ", on="stderr", within=30)
                done = await mesh("revoke", "cellar", "--json", home=kitchen)
                assert done.code == 0, done
                # Two daemons and the two commands: whoever was a peer then was told.
                assert (done.json["name"], done.json["told"] >= 1) == ("cellar", True)
                await until_peers(kitchen, {"attic"})
                await until_peers(attic, {"kitchen", "attic"})  # its own command is one, too
                await second.expect("revoked", on="stderr", within=30)
                assert (await mesh("pub", "secret", "plans", home=kitchen)).code == 0
                assert await friend.wait(within=30) == 0
                assert json.loads(friend.stdout[0])["value"] == "plans"
                assert spy.stdout == []
        # A new process of the member is not let in either, and says why.
        async with daemon(cellar) as again:
            await again.expect("your certificate has been revoked", on="stderr", within=30)
        states = {
            each["name"]: each["revoked"] for each in (await mesh("members", "--json", home=kitchen)).json
        }
        assert states == {"kitchen": False, "cellar": True, "attic": False}
    # The list is where it survives: a daemon that starts now knows it.
    assert listed(attic) == listed(kitchen) == 2


def listed(home: Path) -> int:
    revocations = Home(home).credentials(create=False).revocations
    assert revocations is not None
    return revocations.version


async def test_without_a_daemon(tmp_path: Path) -> None:
    home = home_at(tmp_path / "home", QUIET + "listen = ['tcp://127.0.0.1:0']\n")
    kitchen = Home(home)
    kitchen.init("orchard", "kitchen")
    kitchen.issue(kitchen.new_key().public, "cellar")
    assert (await mesh("revoke", "nobody", home=home)).line == (
        "there is no member 'nobody' (`mesh members` lists them)"
    )
    own = await mesh("revoke", "kitchen", home=home)
    assert "this machine's own membership cannot be revoked" in own.line
    done = await mesh("revoke", "cellar", home=home)
    assert done.code == 0, done
    assert done.stdout[0].startswith("cellar (")
    assert done.stderr == ["nobody could be told now: peers hear of it when they next meet this machine"]
    assert listed(home) == 2
