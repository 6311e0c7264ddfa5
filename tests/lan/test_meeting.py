"""Nodes on different hosts find each other, by whatever works on that network."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from tests.lab import Host, Lan
from tests.lan.nodes import WITHIN, Mesh, both_hear

Lans = Callable[..., Lan]


@pytest.mark.parametrize("discovery", ["scout", "mdns", "mdns,scout"])
async def test_two_hosts_meet_and_talk(lan: Lans, home: Mesh, discovery: str) -> None:
    net, options = lan(2), ("--discovery", discovery)
    async with home.node("a", net[0], *options) as a, home.node("b", net[1], *options) as b:
        await a.event("joined", "b")
        await b.event("joined", "a")
        await both_hear(a, b)
        assert f"tcp://{net[0].ipv4}:" in " ".join(a.ready["endpoints"])


async def test_what_is_published_as_soon_as_the_node_is_open_arrives(lan: Lans, home: Mesh) -> None:
    """open_node() returns when those who are there are subscribed here, and here to them."""
    net = lan(2)
    async with home.node("a", net[0]) as a, home.node("b", net[1]) as b:
        await b.publish("hello")
        assert (await a.event("message"))["value"] == "hello"


async def test_several_nodes_of_one_host_and_one_of_another(lan: Lans, home: Mesh) -> None:
    net = lan(2)
    async with AsyncExitStack() as stack:
        names = ["a1", "a2", "a3"]
        nodes = [await stack.enter_async_context(home.node(name, net[0])) for name in names]
        b = await stack.enter_async_context(home.node("b", net[1]))
        await b.meets(*names)
        for node in nodes:
            await node.meets(*(name for name in [*names, "b"] if name != node.name))
        await b.publish("to all")
        for node in nodes:
            assert (await node.event("message"))["sender"] == "b"


async def test_without_multicast_one_seed_is_enough_for_four_hosts(lan: Lans, home: Mesh) -> None:
    net = lan(4)
    net.set_multicast(False)
    seed = ("--connect", f"tcp://{net[0].ipv4}:7400")
    async with (
        home.node("a", net[0], "--listen", "tcp://*:7400") as a,
        home.node("b", net[1], *seed) as b,
        home.node("c", net[2], *seed) as c,
        home.node("d", net[3], *seed) as d,
    ):
        nodes = (a, b, c, d)
        for node in nodes:
            await node.meets(*(other.name for other in nodes if other is not node))
        await both_hear(b, d)
        await c.publish("to all")
        for node in (a, b, d):
            await node.program.expect('^{"event": "message".*"value": "to all"')


async def test_a_seed_that_starts_last(lan: Lans, home: Mesh) -> None:
    net = lan(3)
    net.set_multicast(False)
    seed = ("--connect", f"tcp://{net[0].ipv4}:7400")
    async with (
        home.node("b", net[1], *seed) as b,
        home.node("c", net[2], *seed) as c,
        home.node("a", net[0], "--listen", "tcp://*:7400") as a,
    ):
        await a.meets("b", "c")
        await b.meets("a", "c")
        await c.meets("a", "b")


async def test_only_ipv6(lan: Lans, home: Mesh) -> None:
    net = lan(2)
    if not net.has_ipv6:
        pytest.skip("this kernel has no IPv6")
    listen = [("--listen", f"tcp://[{host.ipv6}]:0") for host in net]
    async with home.node("a", net[0], *listen[0]) as a, home.node("b", net[1], *listen[1]) as b:
        await a.event("joined", "b")
        await both_hear(a, b)


@pytest.mark.parametrize(
    ("away", "back"),
    [(Host.link_down, Host.link_up), (Host.remove_interface, Host.insert_interface)],
    ids=["the link comes up", "the interface appears"],
)
async def test_a_network_that_comes_later(
    lan: Lans, home: Mesh, away: Callable[[Host], None], back: Callable[[Host], None]
) -> None:
    """Started on loopback alone: the new address is advertised, and used."""
    net = lan(2)
    away(net[1])
    async with home.node("a", net[0]) as a, home.node("b", net[1]) as b:
        assert f"tcp://{net[1].ipv4}:" not in " ".join(b.ready["endpoints"])
        back(net[1])
        await a.event("joined", "b")
        await both_hear(a, b)
        assert f"tcp://{net[1].ipv4}:" in " ".join((await b.count())["endpoints"])


async def test_an_address_that_comes_later_is_advertised_to_peers_and_used(lan: Lans, home: Mesh) -> None:
    net = lan(2)
    net[0]._ip("address add 10.99.0.1/24 dev eth0")
    async with home.node("a", net[0]) as a, home.node("b", net[1]) as b:
        await a.event("joined", "b")
        await b.event("joined", "a")
        net[1]._ip("address add 10.99.0.2/24 dev eth0")
        with trio.fail_after(WITHIN):
            while "tcp://10.99.0.2:" not in " ".join((await a.count())["known"]["b"]):  # noqa: ASYNC110
                await trio.sleep(0.05)  # a record that arrives is no event
        gone = [f"address delete {net[1].ipv4}/24 dev eth0"]
        if net.has_ipv6:
            gone.append(f"address delete {net[1].ipv6}/64 dev eth0")
        net[1]._ip(*gone)  # now it is the only one
        await both_hear(a, b)
        await a.meets("b")
        assert not a.events("left")


async def test_another_mesh_on_the_same_network_is_not_met(lan: Lans, home: Mesh, tmp_path: Path) -> None:
    net, other = lan(3), Mesh(tmp_path / "other")
    async with home.node("a", net[0]) as a, other.node("x", net[1]) as x, home.node("b", net[2]) as b:
        await a.event("joined", "b")
        await both_hear(a, b)
        assert (await x.count())["peers"] == {}
        assert x.events("joined") == []
        assert a.events("joined") == [("joined", "b")]
