"""``mesh top``: what it computes from two looks, and what it shows of a running mesh."""

from __future__ import annotations

import json
from contextlib import aclosing
from pathlib import Path

import pytest
import trio
from rich.console import Console

import mesh
from mesh.cli.top import _text
from mesh.daemon.operations import Operations
from mesh.daemon.top import rates, snapshot
from mesh.home import Home
from tests.cli.command import QUIET, home_at
from tests.cli.command import mesh as command
from tests.node.meshes import MemoryMeshes, take, until


async def test_accounts_of_subscriptions_and_rates_of_topics() -> None:
    meshes = MemoryMeshes()
    async with (
        meshes.of(2) as (left, right),
        right.subscribe("t/*", buffer=4) as messages,
        right.subscribe("**") as every,
    ):
        before = snapshot(right)
        for value in range(10):
            await left.publish("t/x", value)
        await left.publish("u", 1)
        await until(right, lambda: right.statistics().received == 11)
        await take(messages, 3)
        now = {**snapshot(right), "at": before["at"] + 2.0}
        seen = json.loads(json.dumps(rates(before, now)))
        for each, published in zip(seen["subscriptions"], (10, 11), strict=True):
            account = ("delivered", "dropped", "lost", "queued", "awaited")
            assert sum(each[name] for name in account) == published
        assert seen["subscriptions"][0]["dropped_by_reason"] == {"drop_oldest": 6}
        assert [(each["topic"], each["rate"], each["published"]) for each in seen["topics"]] == [
            ("t/x", 5.0, 10),
            ("u", 0.5, 1),
        ]
        assert (seen["peers"][0]["name"], seen["peers"][0]["rate"]) == (left.name, 5.5)
        assert seen["seconds"] == 2.0
        assert rates(None, now)["topics"][0]["rate"] is None
        # What this node publishes itself counts as well.
        assert {each["topic"]: each["publishers"] for each in snapshot(left)["topics"]} == {"t/x": 1, "u": 1}
        await take(every, 1)


async def test_losses_by_cause_stand_with_their_subscription() -> None:
    meshes = MemoryMeshes()
    async with meshes.of(2) as (left, right), right.subscribe("t") as messages:
        async with left.publisher("t") as publisher:
            await publisher.publish(0)
            await take(messages, 1)
            hosts = [node._transport.host for node in (left, right)]  # type: ignore[attr-defined]
            meshes.network.cut(*hosts)
            for value in range(20):
                await publisher.publish(value)
            await publisher.flush()
            meshes.network.reset(*hosts)
            meshes.network.heal(*hosts)
            await until(right, lambda: right.statistics().lost == 20)
        (seen,) = right.statistics().subscriptions
        assert (dict(seen.lost_by_cause), seen.lost, seen.awaited) == ({"network": 20}, 20, 0)


async def test_names_are_no_markup() -> None:
    meshes = MemoryMeshes()
    async with meshes.open("one") as node:
        await node.publish("evil/[red]x[/nothing]", 1)
        text = _text(Console(width=200), rates(None, snapshot(node)))
    assert "\x1b" not in text
    assert "evil/[red]x[/nothing]" in text


async def test_the_daemons_stream(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    async with mesh.open_node("d", home=home, listen=["tcp://127.0.0.1:0"], discovery=()) as node:
        stream = Operations(node, home).streams()["top"]({"interval": 0.1})
        with trio.fail_after(30):
            async with aclosing(stream) as looks:  # type: ignore[type-var]
                assert json.loads(json.dumps(await anext(looks)))["node"]["name"] == "d"
                await anext(looks)
        with pytest.raises(mesh.ConfigError, match="expected a number"):
            await anext(Operations(node, home).top({}))


async def test_without_a_daemon_and_without_a_terminal(tmp_path: Path) -> None:
    home = home_at(tmp_path / "home")
    async with (
        mesh.open_node("source", home=home, listen=["tcp://127.0.0.1:0"], discovery=()) as node,
        trio.open_nursery() as nursery,
    ):

        async def publish() -> None:
            while True:
                await node.publish("home/ticks", 1)
                await trio.sleep(0.02)

        nursery.start_soon(publish)
        home_at(tmp_path / "home", QUIET + f"connect = ['{node.endpoints[0]}']\n")
        done = await command("top", "--once", "--json", "--interval", "2", home=home)
        nursery.cancel_scope.cancel()
    assert done.code == 0, done
    assert (done.json["peers"][0]["name"], done.json["topics"][0]["topic"]) == ("source", "home/ticks")
    assert done.json["topics"][0]["rate"] > 0
