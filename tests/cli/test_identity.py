"""``init``, ``id``, ``invite``, ``join``, ``members``, as two people on two machines use them."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
import trio

from mesh.cli.identity import duration
from mesh.core.token import encode_token
from mesh.discovery import interfaces
from mesh.home import Home
from tests.cli.command import QUIET, daemon, home_at, mesh, mesh_here, started

TOKEN = re.compile(r"[0-9A-HJKMNP-TV-Z-]{60,}")


def test_init_id_and_members(own_home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = mesh_here(capfd, "init", "orchard", "--name", "kitchen")
    assert made.code == 0
    assert "mesh orchard is made, and kitchen is its first member" in made.stdout[0]

    shown = mesh_here(capfd, "id", "--json").json
    assert shown.keys() == {"mesh", "member", "fingerprint", "roles", "expires"}
    assert (shown["mesh"], shown["member"]) == ("orchard", "kitchen")
    assert shown["expires"] > time.time()
    assert re.fullmatch("[0-9a-f]{32}", shown["fingerprint"])
    assert "orchard" in mesh_here(capfd, "id").stdout[0]

    [member] = mesh_here(capfd, "members", "--json").json
    assert member.keys() == {"id", "name", "roles", "expires", "revoked"}
    assert (member["id"], member["name"], member["revoked"]) == (shown["fingerprint"], "kitchen", False)
    assert mesh_here(capfd, "members").stdout[1].startswith("kitchen")

    again = mesh_here(capfd, "init", "another")
    assert again.code == 1
    assert "is a member of mesh 'orchard' already" in again.line


def test_an_invitation_without_a_daemon_says_what_it_needs(
    own_home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    mesh_here(capfd, "init")
    done = mesh_here(capfd, "invite", "--uses", "2", "--expires", "15m")
    assert done.code == 0
    assert len(done.stdout) == 1
    assert TOKEN.fullmatch(done.stdout[0])
    assert done.stderr == [
        "no daemon runs here: start `mesh daemon` before the token is used (or use mesh invite --wait)"
    ]
    [invitation] = Home(own_home).invitations()
    assert invitation.uses == 2
    assert 0 < invitation.expires - time.time() <= 900


def test_expiry_times() -> None:
    assert [duration(text) for text in ("90s", "15m", "1h", "2d", "30", "0.5h")] == [
        90,
        900,
        3600,
        172800,
        30,
        1800,
    ]


async def test_joining_through_the_daemon(tmp_path: Path) -> None:
    kitchen, cellar = home_at(tmp_path / "kitchen"), home_at(tmp_path / "cellar")
    assert (await mesh("init", "orchard", "--name", "kitchen", home=kitchen)).code == 0
    async with daemon(kitchen):
        token = (await mesh("invite", "--role", "sensor", home=kitchen)).stdout[0]
        assert TOKEN.fullmatch(token)
        joined = await mesh("join", token.lower(), "--name", "cellar", home=cellar)
        assert joined.code == 0, joined
        assert joined.stdout == ["cellar is now a member of mesh orchard"]
        assert Home(cellar).credentials().certificate.roles == ("sensor",)

        used = await mesh("join", token, home=home_at(tmp_path / "third"))
        assert used.code == 1
        assert used.line == "cannot join: the invitation has been used: ask for a new one"

        bound = await mesh("join", token, home=kitchen)
        assert bound.code == 1
        assert "is a member of mesh 'orchard' already" in bound.line

    assert [each["name"] for each in (await mesh("members", "--json", home=kitchen)).json] == [
        "kitchen",
        "cellar",
    ]
    assert (await mesh("id", "--json", home=cellar)).json["member"] == "cellar"
    assert [each["name"] for each in (await mesh("members", "--json", home=cellar)).json] == ["cellar"]
    refused = await mesh("invite", home=cellar)
    assert refused.code == 1
    assert "do this on the machine that made the mesh" in refused.line

    gone = await mesh("join", token, "--timeout", "0.5", home=home_at(tmp_path / "fourth"))
    assert gone.code == 1
    # Nobody, or whoever has been given the daemon's port since.
    assert re.search(
        r"nobody answered at tcp://.*: is `mesh daemon` running there\?|refused|another mesh", gone.line
    )


async def test_a_member_that_cannot_invite_says_who_can(tmp_path: Path) -> None:
    kitchen, cellar = home_at(tmp_path / "kitchen"), home_at(tmp_path / "cellar")
    Home(kitchen).init("orchard")
    async with daemon(kitchen):
        token = (await mesh("invite", home=kitchen)).stdout[0]
        assert (await mesh("join", token, home=cellar)).code == 0
    async with daemon(cellar) as other:
        endpoint = re.search(r"tcp://127\S+", other.stdout[0])
        assert endpoint is not None
        token = encode_token(Home(kitchen).invite(endpoints=(endpoint[0],)))
        done = await mesh("join", token, "--timeout", "2", home=home_at(tmp_path / "third"))
    assert done.code == 1
    assert done.line == (
        f"cannot join: {endpoint[0]}: this node cannot admit newcomers: dial the one that made the invitation"
    )


async def test_a_token_of_another_mesh_at_this_address(tmp_path: Path) -> None:
    kitchen, other = home_at(tmp_path / "kitchen"), home_at(tmp_path / "other")
    Home(kitchen).init("orchard")
    Home(other).init("meadow")
    async with daemon(other) as running:
        endpoint = re.search(r"tcp://127\S+", running.stdout[0])
        assert endpoint is not None
        token = encode_token(Home(kitchen).invite(endpoints=(endpoint[0],)))
        done = await mesh("join", token, "--timeout", "2", home=home_at(tmp_path / "third"))
    assert done.code == 1
    assert done.line.startswith("cannot join: ")
    assert endpoint[0] in done.line


async def test_an_expired_invitation(tmp_path: Path) -> None:
    kitchen = home_at(tmp_path / "kitchen")
    assert (await mesh("init", home=kitchen)).code == 0
    async with daemon(kitchen):
        token = (await mesh("invite", "--expires", "0.001s", home=kitchen)).stdout[0]
        done = await mesh("join", token, home=home_at(tmp_path / "cellar"))
    assert done.code == 1
    assert done.line == "cannot join: the invitation has expired: ask for a new one"


async def test_inviting_without_a_daemon_by_waiting(tmp_path: Path) -> None:
    kitchen, cellar = home_at(tmp_path / "kitchen"), home_at(tmp_path / "cellar")
    assert (await mesh("init", "orchard", home=kitchen)).code == 0
    async with started("invite", "--wait", home=kitchen) as inviting:
        token = (await inviting.expect(TOKEN.pattern, within=30)).group()
        assert (await mesh("join", token, home=cellar)).code == 0
        assert await inviting.wait(within=30) == 0
    assert (await mesh("id", "--json", home=cellar)).json["mesh"] == "orchard"


async def test_joining_by_the_scout_when_the_addresses_have_changed(tmp_path: Path) -> None:
    multicast = QUIET.replace("[]", "['scout']")
    kitchen, cellar = home_at(tmp_path / "kitchen", multicast), home_at(tmp_path / "cellar", multicast)
    if all(interface.loopback for interface in interfaces.usable()):
        pytest.skip("no interface but loopback: the scout has nowhere to look")
    assert (await mesh("init", "orchard", home=kitchen)).code == 0
    invitation = Home(kitchen).invite(endpoints=("tcp://127.0.0.1:9",))
    async with daemon(kitchen):
        with trio.fail_after(60):
            done = await mesh("join", encode_token(invitation), home=cellar)
    assert done.code == 0, done
