"""What breaks between hosts is said, and heals by itself: nobody but the broken one is restarted."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from tests.lab import Host, Lan
from tests.lan.nodes import LanNode, Mesh, both_hear

Lans = Callable[..., Lan]
QUICK = ("--patience", "0.6", "0.6", "3")
"""Suspected after 1.2 s of silence and gone after 4.2, where the LAN preset has 2.5 and 10.5."""
PATIENT = ("--patience", "0.6", "0.6", "60")
"""Suspected as soon, and never gone while a test lasts."""

Three = tuple[Lan, LanNode, LanNode, LanNode]


@asynccontextmanager
async def three(
    lan: Lans, home: Mesh, *options: str, patience: Sequence[str] = QUICK
) -> AsyncIterator[Three]:
    """Three hosts with a node each that know each other; ``a`` and ``b`` stay well."""
    net, options = lan(3), (*patience, *options)
    async with (
        home.node("a", net[0], *options) as a,
        home.node("b", net[1], *options) as b,
        home.node("c", net[2], *options) as c,
    ):
        await a.meets("b", "c")
        await b.meets("a", "c")
        await c.meets("a", "b")
        yield net, a, b, c


def undisturbed(one: LanNode, other: LanNode) -> None:
    """Those who stayed well never let go of each other."""
    assert ("left", other.name) not in one.events("left")
    assert ("left", one.name) not in other.events("left")


async def test_killed(lan: Lans, home: Mesh) -> None:
    async with three(lan, home) as (_, a, b, c):
        c.program.signal(signal.SIGKILL)
        for node in (a, b):
            await node.event("suspected", "c")
            assert (await node.count())["peers"].get("c") != "alive"
        for node in (a, b):
            assert "silent" in (await node.event("left", "c"))["why"]
        undisturbed(a, b)


async def test_stopped(lan: Lans, home: Mesh) -> None:
    async with three(lan, home) as (_, a, b, c):
        await c.publish("last words")
        await c.program.send("stop\n")
        for node in (a, b):
            assert (await node.event("message"))["value"] == "last words"
            assert (await node.event("left", "c"))["why"] == "said goodbye"
        assert await c.program.wait() == 0
        undisturbed(a, b)


async def test_paused_shorter_than_patience(lan: Lans, home: Mesh) -> None:
    async with three(lan, home, patience=PATIENT) as (_, a, b, c):
        c.program.signal(signal.SIGSTOP)
        await a.event("suspected", "c")
        await b.event("suspected", "c")
        c.program.signal(signal.SIGCONT)
        await a.event("recovered", "c")
        await b.event("recovered", "c")
        await both_hear(a, c)
        assert not a.events("left")
        assert not c.events("left")  # it was away itself: their silence is not held against them
        undisturbed(a, b)


async def test_paused_longer_than_patience(lan: Lans, home: Mesh) -> None:
    async with three(lan, home) as (_, a, b, c):
        c.program.signal(signal.SIGSTOP)
        await a.event("left", "c")
        await b.event("left", "c")
        c.program.signal(signal.SIGCONT)
        await a.event("joined", "c")
        await b.event("joined", "c")
        await both_hear(a, c)
        undisturbed(a, b)


@pytest.mark.parametrize("listen", ["tcp://*:0", "tcp://*:7400"], ids=["elsewhere", "at the same ports"])
async def test_killed_and_restarted_at_once(lan: Lans, home: Mesh, listen: str) -> None:
    async with three(lan, home, "--listen", listen) as (net, a, b, c):
        first = c.ready["id"]
        c.program.signal(signal.SIGKILL)
        await c.program.wait()
        async with home.node("c", net[2], *QUICK, "--listen", listen) as again:
            assert again.ready["id"] != first
            await both_hear(a, again)
            await both_hear(b, again)
            left = await a.event("left", "c")
            assert left["id"] == first
            if listen.endswith("7400"):
                assert left["why"] == "restarted"
            await a.meets("b", "c")
            await both_hear(a, again)  # the end of the old one took nothing of the new one with it
        undisturbed(a, b)


async def test_moved_to_another_address(lan: Lans, home: Mesh) -> None:
    async with three(lan, home) as (net, a, b, c):
        net[2].change_address()
        await both_hear(a, c)
        await both_hear(b, c)
        await a.meets("b", "c")
        undisturbed(a, b)


@pytest.mark.parametrize(
    ("away", "back"),
    [
        (Host.link_down, Host.link_up),
        (Host.unplug, Host.plug),
        (Host.isolate, Host.rejoin),
        (Host.remove_interface, Host.insert_interface),
    ],
    ids=["down", "unplugged", "isolated", "removed"],
)
async def test_a_link_that_goes_and_comes(
    lan: Lans, home: Mesh, away: Callable[[Host], None], back: Callable[[Host], None]
) -> None:
    async with three(lan, home) as (net, a, b, c):
        away(net[2])
        await a.event("suspected", "c")
        back(net[2])
        await both_hear(a, c)
        await both_hear(b, c)
        await a.meets("b", "c")
        await c.meets("a", "b")
        undisturbed(a, b)


async def test_a_partition_in_which_each_side_let_the_other_go(lan: Lans, home: Mesh) -> None:
    async with three(lan, home) as (net, a, b, c):
        net[2].isolate()
        for node, peer in ((a, "c"), (b, "c"), (c, "a"), (c, "b")):
            await node.event("left", peer)
        net[2].rejoin()
        await a.meets("b", "c")
        await c.meets("a", "b")
        await both_hear(a, c)
        undisturbed(a, b)


async def test_unicast_lost_one_way(lan: Lans, home: Mesh) -> None:
    async with three(lan, home) as (net, a, b, c):
        net[0].lose_towards(net[2])
        await a.event("suspected", "c")
        net[0].reach(net[2])
        await both_hear(a, c)
        await a.meets("b", "c")
        await c.meets("a", "b")
        undisturbed(a, b)


async def test_unicast_lost_one_way_until_they_let_go(lan: Lans, home: Mesh) -> None:
    async with three(lan, home) as (net, a, b, c):
        net[0].lose_towards(net[2])
        await a.event("left", "c")
        await c.event("left", "a")
        await both_hear(b, c)
        net[0].reach(net[2])
        await a.meets("b", "c")
        await c.meets("a", "b")
        await both_hear(a, c)
        undisturbed(a, b)


async def test_a_seed_that_was_restarted_is_found_again_without_multicast(lan: Lans, home: Mesh) -> None:
    net = lan(2)
    net.set_multicast(False)
    listen = (*QUICK, "--listen", "tcp://*:7400")
    async with home.node("b", net[1], *QUICK, "--connect", f"tcp://{net[0].ipv4}:7400") as b:
        async with home.node("a", net[0], *listen) as a:
            await b.event("joined", "a")
            a.program.signal(signal.SIGKILL)
            await a.program.wait()
        async with home.node("a", net[0], *listen) as a:
            await b.event("joined", "a")
            await b.meets("a")
            await both_hear(a, b)
