"""Rules through the API, over real sockets: two members with homes of their own, and a rule in one of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import mesh
from mesh.core.identity import read_certificate
from mesh.core.join import Grant, Joined
from mesh.home import Home
from tests.node.meshes import CALM, PATIENCE, serving, take

RULES = """
[[allow]]
action = ["publish", "subscribe"]
pattern = "payroll/**"
role = "hr"

[[allow]]
action = "request"
pattern = "door/open"
member = "kitchen"
"""


def homes(folder: Path) -> tuple[Home, Home]:
    """A mesh of two members, kitchen (role admin) and cellar (role hr); kitchen goes by the rules."""
    kitchen, cellar = Home(folder / "kitchen"), Home(folder / "cellar")
    mine = kitchen.init("orchard", "kitchen")
    key = cellar.new_key()
    certificate = kitchen.issue(key.public, "cellar", ("hr",))
    grant = Grant("orchard", mine.ca_public_key, certificate, mine.secret, 1, mine.revocations_bytes)
    cellar.store_grant(
        key, Joined(grant, read_certificate(certificate, mine.ca_public_key), mine.revocations)
    )
    return kitchen, cellar


@asynccontextmanager
async def both(folder: Path, rules: str = RULES) -> AsyncIterator[tuple[mesh.Node, mesh.Node]]:
    kitchen, cellar = homes(folder)
    (kitchen.path / "mesh.toml").write_text(rules)
    options: Mapping[str, Any] = {"listen": ["tcp://127.0.0.1:0"], "discovery": (), "config": CALM}
    async with (
        mesh.open_node("kitchen", home=kitchen.path, **options) as a,
        mesh.open_node("cellar", home=cellar.path, connect=a.endpoints, **options) as b,
    ):
        with trio.fail_after(PATIENCE):
            for node in (a, b):
                await node.wait_for_peers(1)
        yield a, b


async def test_what_a_member_may_and_may_not(tmp_path: Path) -> None:
    async with both(tmp_path) as (kitchen, cellar):
        incidents = kitchen.watch_incidents()
        # Our own acts: refused at the call, with the rule.
        with pytest.raises(mesh.NotAuthorized, match=r"allow\[1\].*role hr") as caught:
            await kitchen.publish("payroll/june", 1)
        assert (caught.value.action, caught.value.topic) == ("publish", "payroll/june")
        with pytest.raises(mesh.NotAuthorized):
            kitchen.publisher("payroll/june")
        with pytest.raises(mesh.NotAuthorized, match="subscribe"):
            kitchen.subscribe("payroll/*")

        # A peer's: refused where it is received, and the error names the rule there.
        async def open_door(request: mesh.Request) -> str:
            return "open"

        async with serving(kitchen, "door/*", open_door):
            assert await cellar.request("door/ring", timeout=PATIENCE) == "open"
            with pytest.raises(mesh.NotAuthorized, match=r"kitchen: allow\[2\]") as caught:
                await cellar.request("door/open", timeout=PATIENCE)
            assert caught.value.action == "request"
            assert await kitchen.request("door/open", timeout=PATIENCE) == "open"
        with trio.fail_after(PATIENCE):
            incident = await anext(incidents)
        assert incident.kind == "not authorized"
        assert incident.detail.startswith("cellar may not request 'door/open' (allow[2]: ")
        assert ("cellar", "request", "door/open") in kitchen.statistics().denied
        assert kitchen.statistics().rejected_by_reason["not_authorized"] == 1
        assert "kitchen" in {peer.name for peer in cellar.peers.values()}  # denied, and not cut off


async def test_a_reader_gets_what_is_sealed_for_readers(tmp_path: Path) -> None:
    rules = RULES.replace('role = "hr"', 'role = ["hr", "admin"]')
    async with both(tmp_path, rules) as (kitchen, cellar), cellar.subscribe("**") as everything:
        with trio.fail_after(PATIENCE):
            await kitchen.publisher("payroll/june").wait_for_subscribers(1)
        await kitchen.publish("payroll/june", 1)
        await kitchen.publish("lobby", 2)
        assert {m.topic for m in await take(everything, 2)} == {"payroll/june", "lobby"}
        assert cellar.statistics().rejected == 0


async def test_who_may_not_read_gets_nothing(tmp_path: Path) -> None:
    rules = RULES.replace('role = "hr"', 'role = "admin"')
    async with both(tmp_path, rules) as (kitchen, cellar), cellar.subscribe("**") as everything:
        await kitchen.publish("payroll/june", "secret")
        await kitchen.publish("lobby", "open")
        assert [m.topic for m in await take(everything, 1)] == ["lobby"]
        [to] = kitchen.peers.values()
        with pytest.raises(mesh.NotAuthorized, match="cellar: allow"):
            await kitchen.publish("payroll/june", "secret", to=to)
        assert everything.queued == 0
        assert cellar.statistics().rejected == 0  # nothing of it came, not even sealed


async def test_a_mistake_in_the_rules_opens_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.init("orchard")
    (home.path / "mesh.toml").write_text("[[allow]]\naction = 'publish'\n")
    with pytest.raises(mesh.ConfigError, match=r"mesh\.toml:1: allow\[1\]: has no pattern"):
        async with mesh.open_node(home=home.path, listen=["tcp://127.0.0.1:0"], discovery=()):
            pass
