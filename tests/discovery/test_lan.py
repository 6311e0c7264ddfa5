"""Between hosts: how soon they find each other, and what happens to their links meanwhile."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.lab import Host, Lan, Running

MECHANISMS = ("scout", "mdns")
SOON = 8.0
"""Seconds within which what changed on the network must have been noticed."""


def node(mechanism: str, letter: str, *rounds: int) -> list[str]:
    return [sys.executable, "-m", "tests.discovery.node", mechanism, letter, *map(str, rounds)]


async def counts(program: Running) -> dict[str, Any]:
    await program.send("count\n")
    counted: dict[str, Any] = json.loads((await program.expect("^counted (.*)"))[1])
    return counted


@pytest.mark.parametrize(("mechanism", "bound"), [("scout", 40.0), ("mdns", 200.0)])
async def test_how_soon_a_newcomer_finds(
    lan: Callable[..., Lan], mechanism: str, bound: float, record_property: Callable[[str, object], None]
) -> None:
    """From the start of its discovery to the candidate, in milliseconds.

    On an idle machine 5 and 75; the bounds leave room for one that is busy with other tests.
    """
    net, rounds = lan(2), 12
    async with net[0].running(node(mechanism, "a")) as first:
        await first.expect("^ready$")
        async with net[1].running(node(mechanism, "-", rounds)) as newcomers:
            times = [float((await newcomers.expect("^found a (.*)"))[1]) for _ in range(rounds)]
            await newcomers.expect("^done$")
    summary = f"p50 {statistics.median(times):.1f} ms, {min(times):.1f}-{max(times):.1f} ms"
    record_property(f"{mechanism}_found", summary)
    print(f"{mechanism}: {summary}")
    assert statistics.median(times) < bound, summary


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_both_learn_of_each_other_and_of_nothing_local(lan: Callable[..., Lan], mechanism: str) -> None:
    net = lan(2)
    async with net[0].running(node(mechanism, "a")) as a, net[1].running(node(mechanism, "b")) as b:
        for program, letter, other in ((a, "b", net[1]), (b, "a", net[0])):
            endpoints = (await program.expect(f"^found {letter} [0-9.]+ (.*)"))[1].split(",")
            assert f"tcp://{other.ipv4}:7400" in endpoints
            assert not net.has_ipv6 or f"tcp://[{other.ipv6}]:7400" in endpoints
            assert not [each for each in endpoints if "127.0.0.1" in each]


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_two_nodes_of_one_host_without_a_network(lan: Callable[..., Lan], mechanism: str) -> None:
    net = lan(1)
    net[0].link_down()
    async with net[0].running(node(mechanism, "a")) as a, net[0].running(node(mechanism, "b")) as b:
        await a.expect("^found b .*tcp://127.0.0.1:7400")
        await b.expect("^found a .*tcp://127.0.0.1:7400")


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_an_interface_that_comes_later(lan: Callable[..., Lan], mechanism: str) -> None:
    net = lan(2)
    net[1].link_down()
    async with net[0].running(node(mechanism, "a")) as a, net[1].running(node(mechanism, "b")) as b:
        await a.expect("^ready$")
        await b.expect("^ready$")  # on loopback
        net[1].link_up()
        await a.expect(f"^found b .*{net[1].ipv4}", within=SOON)
        await b.expect(f"^found a .*{net[0].ipv4}", within=SOON)


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_a_cable_that_is_plugged_in_again(lan: Callable[..., Lan], mechanism: str) -> None:
    net = lan(2)
    async with net[0].running(node(mechanism, "a")) as a, net[1].running(node(mechanism, "b")) as b:
        await a.expect("^found b")
        net[1].unplug()
        await b.expect("^announces")
        net[1].plug()
        await b.expect(f"^announces .*{net[1].ipv4}", within=SOON)
        await a.expect(f"^found b .*{net[1].ipv4}", within=SOON)


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_a_host_that_moves(lan: Callable[..., Lan], mechanism: str) -> None:
    net = lan(2)
    async with net[0].running(node(mechanism, "a")) as a, net[1].running(node(mechanism, "b")):
        await a.expect(f"^found b .*{net[1].ipv4}")
        net[1].change_address()
        await a.expect(f"^found b .*{net[1].ipv4}", within=SOON)


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_no_interface_at_all_is_a_reason_and_not_the_end(
    lan: Callable[..., Lan], mechanism: str
) -> None:
    net = lan(2)
    silence(net[1])
    async with net[0].running(node(mechanism, "a")) as a, net[1].running(node(mechanism, "b")) as b:
        await a.expect("^ready$")
        await b.expect("^inactive no usable network interface$")
        net[1].link_up()
        await b.expect("^found a", within=SOON)
        await a.expect("^found b", within=SOON)


def silence(host: Host) -> None:
    host.link_down()
    host._ip("link set lo down")


async def test_a_flood_of_spoofed_services(lan: Callable[..., Lan]) -> None:
    """6,000 services that no member announced: none is reported, and the next real one is."""
    net = lan(3)
    flood = [sys.executable, "-m", "tests.discovery.flood", "6000"]
    async with net[0].running(node("mdns", "a")) as a:
        await a.expect("^ready$")
        before = await counts(a)
        async with net[1].running(flood) as attacker:
            await attacker.expect("^sent$", within=30)
        async with net[2].running(node("mdns", "b")) as b:
            await a.expect("^found b", within=30)
            await b.expect("^found a", within=30)
        after = await counts(a)
    print(f"flood: {before} → {after}")
    assert after["found"] <= 3  # b alone, perhaps on another interface, perhaps again
    assert after["mac"] > 1000  # what the kernel's buffer let through
    assert after["cpu"] - before["cpu"] < 20
