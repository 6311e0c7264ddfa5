"""The laboratory itself: if these fail, no other test of the LAN means anything.

That something does *not* arrive is shown by what was sent after it and does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.lab import Host, Lan, Running, running
from tests.lab.netns import PREFIX, sweep

GROUP = "239.77.77.77"
GROUP6 = "ff02::7777"
PORT = 7777
PROGRAM = [sys.executable, str(Path(__file__).with_name("datagrams.py")), str(PORT), GROUP, GROUP6]


@asynccontextmanager
async def talking(first: Host, second: Host) -> AsyncIterator[tuple[Running, Running]]:
    async with first.running(PROGRAM) as one, second.running(PROGRAM) as two:
        await one.expect("^ready$")
        await two.expect("^ready$")
        yield one, two


async def test_two_hosts_hear_each_other(lan: Callable[..., Lan]) -> None:
    net = lan(2)
    async with talking(net[0], net[1]) as (one, two):
        await one.send(f"send {GROUP} to-all\n")
        await two.expect(f"^got to-all from {net[0].ipv4}$")
        await two.send(f"send {net[0].ipv4} answer\n")
        await one.expect(f"^got answer from {net[1].ipv4}$")


async def test_over_ipv6_too(lan: Callable[..., Lan]) -> None:
    net = lan(2)
    if not net.has_ipv6:
        pytest.skip("this kernel has no IPv6")
    async with talking(net[0], net[1]) as (one, two):
        await one.send(f"send {GROUP6} to-all\n")
        await two.expect("^got to-all from f")
        await two.send(f"send {net[0].ipv6} answer\n")
        await one.expect(f"^got answer from {net[1].ipv6}$")


async def test_a_third_host_hears_multicast_and_not_unicast(lan: Callable[..., Lan]) -> None:
    net = lan(3)
    async with talking(net[0], net[1]) as (one, two), net[2].running(PROGRAM) as three:
        await three.expect("^ready$")
        await one.send(f"send {net[1].ipv4} for-two\n")
        await two.expect("^got for-two")
        await one.send(f"send {GROUP} for-all\n")
        await three.expect("^got for-all")
        assert not [line for line in three.stdout if "for-two" in line]


async def test_a_switch_without_multicast(lan: Callable[..., Lan]) -> None:
    net = lan(2)
    net.set_multicast(False)
    async with talking(net[0], net[1]) as (one, two):
        await one.send(f"send {GROUP} lost\nsend {net[1].ipv4} first\n")
        await two.expect("^got first")
        net.set_multicast(True)
        await one.send(f"send {GROUP} heard\n")
        await two.expect("^got heard")
        assert not [line for line in two.stdout if "lost" in line]


@pytest.mark.parametrize(
    ("away", "back"),
    [(Host.link_down, Host.link_up), (Host.unplug, Host.plug), (Host.isolate, Host.rejoin)],
    ids=["down", "unplugged", "isolated"],
)
async def test_a_link_that_goes_and_comes(
    lan: Callable[..., Lan], away: Callable[[Host], None], back: Callable[[Host], None]
) -> None:
    net = lan(2)
    async with talking(net[0], net[1]) as (one, two):
        away(net[1])
        await one.send(f"send {GROUP} lost\n")
        await one.send(f"send {net[0].ipv4} done\n")  # to itself: the one before has been sent
        await one.expect("^got done")
        back(net[1])
        await one.send(f"send {GROUP} heard\n")
        await two.expect("^got heard")
        await two.send(f"send {net[0].ipv4} answer\n")
        await one.expect("^got answer")
        assert not [line for line in two.stdout if "lost" in line]


async def test_an_interface_that_is_taken_out_and_put_in(lan: Callable[..., Lan]) -> None:
    net = lan(2)
    net[1].remove_interface()
    async with net[1].running(["ip", "-brief", "link"]) as listing:
        await listing.wait()
    assert "eth0" not in "".join(listing.stdout)
    net[1].insert_interface()
    async with talking(net[0], net[1]) as (one, two):
        await one.send(f"send {GROUP} heard\n")
        await two.expect("^got heard")
        await two.send(f"send {net[0].ipv4} answer\n")
        await one.expect(f"^got answer from {net[1].ipv4}$")


async def test_deaf_one_way(lan: Callable[..., Lan]) -> None:
    net = lan(2)
    async with talking(net[0], net[1]) as (one, two):
        await one.send(f"send {net[1].ipv4} before\n")
        await two.expect("^got before")
        net[1].deafen()
        await one.send(f"send {net[1].ipv4} lost-1\nsend {GROUP} lost-2\n")
        await two.send(f"send {GROUP} still-speaking\n")
        await one.expect("^got still-speaking")
        net[1].undeafen()
        await one.send(f"send {GROUP} after\n")
        await two.expect("^got after")
        assert not [line for line in two.stdout if "lost" in line]


async def test_unicast_lost_one_way(lan: Callable[..., Lan]) -> None:
    net = lan(2)
    async with talking(net[0], net[1]) as (one, two):
        net[0].lose_towards(net[1])
        await one.send(f"send {net[1].ipv4} lost\nsend {GROUP} multicast\n")
        await two.expect("^got multicast")
        await two.send(f"send {net[0].ipv4} back\n")
        await one.expect("^got back")
        net[0].reach(net[1])
        await one.send(f"send {net[1].ipv4} after\n")
        await two.expect("^got after")
        assert not [line for line in two.stdout if "lost" in line]


async def test_a_host_that_moves(lan: Callable[..., Lan]) -> None:
    net = lan(2)
    before = net[1].ipv4
    async with talking(net[0], net[1]) as (one, two):
        net[1].change_address()
        assert net[1].ipv4 != before
        await one.send(f"send {net[1].ipv4} hello\n")
        await two.expect("^got hello")
        await two.send(f"send {GROUP} here\n")
        await one.expect(f"^got here from {net[1].ipv4}$")


def namespaces() -> str:
    return subprocess.run(["ip", "netns", "list"], capture_output=True, check=True, text=True).stdout


async def test_nothing_is_left_behind(lan: Callable[..., Lan]) -> None:
    lan(1)  # asks whether namespaces may be made at all
    async with running([sys.executable, "-c", "input()"]) as bystander:
        with Lan(3) as net:
            assert net.name in namespaces()
            inside = subprocess.Popen(net[0].command(["sleep", "1000"]))
        assert net.name not in namespaces()
        assert inside.wait(timeout=10) == -signal.SIGKILL
        assert bystander.process.poll() is None


def test_what_a_killed_run_left_is_swept(lan: Callable[..., Lan]) -> None:
    lan(1)
    gone = subprocess.Popen(["true"])
    gone.wait()
    stale, mine = f"{PREFIX}-{gone.pid}-1-switch", f"{PREFIX}-{os.getpid()}-0-switch"
    for name in (stale, mine):
        subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        sweep()
        assert stale not in namespaces()
        assert mine in namespaces()
    finally:
        subprocess.run(["ip", "netns", "delete", mine], check=True)
