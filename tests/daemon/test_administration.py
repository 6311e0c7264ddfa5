"""Who may ask the machine with the CA key to invite and to remove: by certificates, and by rules of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import mesh
from mesh.cli.administration import _check
from mesh.core.identity import read_certificate, verify_revocations
from mesh.core.join import Grant, Joined
from mesh.core.token import Invitation, decode_token, encode_token
from mesh.core.types import MeshId
from mesh.daemon.administration import TOPIC, Administration
from mesh.daemon.operations import Operations
from mesh.errors import CredentialError
from mesh.home import Custody, Home, wrapping
from mesh.home.wrapping import Cost
from tests.cli.command import QUIET, daemon, home_at
from tests.cli.command import mesh as command
from tests.node.meshes import CALM, PATIENCE

RULES = """
[[allow]]
action = "admin"
pattern = "invite/sensor"
role = "installer"

[[allow]]
action = "admin"
pattern = "members"
"""


def member(ca: Home, folder: Path, name: str, *roles: str) -> Home:
    home, mine = Home(folder / name), ca.credentials()
    key = home.new_key()
    certificate = ca.issue(key.public, name, roles)
    grant = Grant(mine.mesh_name, mine.ca_public_key, certificate, mine.secret, 1, mine.revocations_bytes)
    home.store_grant(key, Joined(grant, read_certificate(certificate, mine.ca_public_key), mine.revocations))
    return home


@asynccontextmanager
async def administered(tmp_path: Path, rules: str = "") -> AsyncIterator[tuple[Home, Any]]:
    """The CA's home, and a function that opens the node of a member of these roles."""
    kitchen = Home(tmp_path / "kitchen")
    kitchen.init("orchard", "kitchen")
    (kitchen.path / "mesh.toml").write_text(rules)
    options: dict[str, Any] = {"listen": ["tcp://127.0.0.1:0"], "discovery": (), "config": CALM}

    async with (
        mesh.open_node("kitchen", home=kitchen, **options) as node,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(Administration(node, Operations(node, kitchen), kitchen).run)

        @asynccontextmanager
        async def opened(name: str, *roles: str) -> AsyncIterator[mesh.Node]:
            home = member(kitchen, tmp_path, name, *roles)
            async with mesh.open_node(name, home=home, connect=node.endpoints, **options) as other:
                with trio.fail_after(PATIENCE):
                    while len(other._engine.router.responders(f"{TOPIC}/revoke")) < 1:  # noqa: ASYNC110
                        await trio.sleep(0.01)
                yield other

        yield kitchen, opened
        nursery.cancel_scope.cancel()


async def refused(node: mesh.Node, act: str, **asked: Any) -> str:
    with pytest.raises(mesh.RemoteError) as caught:
        await node.request(f"{TOPIC}/{act}", asked)
    return str(caught.value)


async def test_by_itself_it_is_for_the_role_admin(tmp_path: Path) -> None:
    async with administered(tmp_path) as (kitchen, opened):
        async with opened("cellar", "sensor") as cellar:
            before = (kitchen.invitations(), kitchen.members())
            for act, asked in (
                ("members", {}),
                ("invite", {"uses": 1, "lifetime": 60}),
                ("revoke", {"member": "kitchen"}),
            ):
                why = await refused(cellar, act, **asked)
                assert why == (
                    f"NotAuthorized: not allowed to admin {act!r} "
                    "(as long as no rule says otherwise: '**' is for role admin)"
                )
            assert (kitchen.invitations(), kitchen.members()) == before
        async with opened("attic", "admin") as attic:
            token = (await attic.request(f"{TOPIC}/invite", {"uses": 2, "lifetime": 60, "roles": ["admin"]}))[
                "token"
            ]
            assert decode_token(token).secret == kitchen.invitations()[-1].secret
            assert kitchen.invitations()[-1].roles == ("admin",)
            listed = await attic.request(f"{TOPIC}/members", {})
            assert {each["name"] for each in listed} == {"kitchen", "cellar", "attic"}
            done = await attic.request(f"{TOPIC}/revoke", {"member": "cellar"})
            revoked = verify_revocations(done["revocations"], kitchen.credentials().ca_public_key)
            assert bytes.fromhex(done["id"]) in revoked.members
            assert (await refused(attic, "revoke", member="kitchen")).endswith("it holds the CA key")
            assert "expected a list of texts" in await refused(attic, "invite", uses=1, lifetime=9, roles="x")
            assert "expected a number" in await refused(attic, "invite", uses="1", lifetime=9)


async def test_rules_open_acts_one_by_one(tmp_path: Path) -> None:
    async with administered(tmp_path, RULES) as (kitchen, opened):
        async with opened("cellar", "installer") as cellar:
            asked = {"uses": 1, "lifetime": 60}
            assert await cellar.request(f"{TOPIC}/invite", {**asked, "roles": ["sensor"]})
            assert kitchen.invitations()[-1].roles == ("sensor",)
            # Who may invite sensors makes nobody an admin, nor a member without a role.
            for roles in (["admin"], ["sensor", "admin"], []):
                assert "NotAuthorized" in await refused(cellar, "invite", **asked, roles=roles)
            assert len(await cellar.request(f"{TOPIC}/members", {})) == 2
            assert "NotAuthorized" in await refused(cellar, "revoke", member="kitchen")
        assert len(kitchen.invitations()) == 1


async def test_where_the_key_is_locked_and_where_it_is_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wrapping, "COST", Cost(1, 8, 1))
    monkeypatch.setattr("mesh.daemon.administration._LOOK_EVERY", 0.05)
    async with administered(tmp_path) as (kitchen, opened), opened("attic", "admin") as attic:
        Custody(kitchen).wrap("correct horse")
        Custody(kitchen).lock()
        assert (await refused(attic, "invite", uses=1, lifetime=60)).startswith(
            "CaLocked: the CA key is wrapped"
        )
        Custody(kitchen).hand_over(tmp_path / "file", "attic", "correct horse")
        with trio.fail_after(PATIENCE):
            while attic._engine.router.responders(f"{TOPIC}/invite"):  # noqa: ASYNC110
                await trio.sleep(0.02)
        with pytest.raises(mesh.NoResponders):
            await attic.request(f"{TOPIC}/invite", {"uses": 1, "lifetime": 60})


def test_a_made_up_answer_is_noticed(tmp_path: Path) -> None:
    """Any member can serve the topic; only the CA can sign, and only its mesh's tokens are of use."""
    home = Home(tmp_path / "home")
    mine = home.init("orchard")
    other = Home(tmp_path / "other").init("orchard")
    assert mine.revocations is not None
    listed = {"id": "00" * 16, "name": "x", "revocations": mine.revocations_bytes}
    for act, answer in (
        ("invite", {"token": encode_token(Invitation(bytes(16), MeshId(b"x" * 16)))}),
        ("invite", {"token": "ABC"}),
        ("invite", None),
        ("revoke", listed),
        ("revoke", {**listed, "revocations": other.revocations_bytes}),
        ("revoke", {"id": "00" * 16}),
        ("members", [1]),
        ("members", {"id": 1}),
    ):
        with pytest.raises(CredentialError, match="made an answer up"):
            _check(home, act, answer)


async def test_the_commands(tmp_path: Path) -> None:
    kitchen = home_at(tmp_path / "kitchen", QUIET + "listen = ['tcp://127.0.0.1:0']\n")
    Home(kitchen).init("orchard", "kitchen")
    attic = member(Home(kitchen), tmp_path, "attic", "admin")
    home_at(attic.path)
    alone = await command("invite", home=attic.path)
    assert alone.line.startswith(
        "the CA key is not in this home, and no daemon that holds it is in the mesh now: "
    )
    async with daemon(kitchen) as running:
        endpoint = next(word for word in running.stdout[0].split() if word.startswith("tcp://"))
        home_at(attic.path, QUIET + f"connect = ['{endpoint}']\n")
        invited = await command("invite", "--role", "sensor", home=attic.path)
        assert decode_token(invited.stdout[0]).mesh == Home(kitchen).credentials().mesh
        await running.expect("invite: attic asked for it \\(1 uses, roles sensor\\)", on="stderr")
