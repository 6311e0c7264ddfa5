from __future__ import annotations

from ipaddress import ip_address

import ifaddr
import pytest
import trio

from mesh.core.types import Address
from mesh.discovery.interfaces import Interface, advertised, usable, watch


def adapter(name: str, index: int, *addresses: str) -> ifaddr.Adapter:
    ips = [ifaddr.IP((each, 0, 0) if ":" in each else each, 24, name) for each in addresses]
    return ifaddr.Adapter(name, name, ips, index)


LO = adapter("lo", 1, "127.0.0.1", "::1")
ETH = adapter("eth0", 2, "fe80::1", "fd00::2", "192.0.2.2", "2001:db8::2")
WIFI = adapter("wlan0", 3, "169.254.9.9", "198.51.100.3")
DOCKER = adapter("docker0", 4, "172.17.0.1")


def bound(host: str = "*", port: int = 7400) -> Address:
    return Address(*(f"tcp://{host}:{port + offset}" for offset in range(3)))


def intros(addresses: tuple[Address, ...]) -> list[str]:
    return [address.intro for address in addresses]


def hosts(interface: Interface) -> list[str]:
    return [str(each) for each in interface.addresses]


def test_order_and_what_is_left_out() -> None:
    found = usable([LO, DOCKER, ETH, WIFI])
    assert [each.name for each in found] == ["eth0", "wlan0", "docker0", "lo"]
    # Link-local IPv6 can't stand in an endpoint; link-local IPv4 can, as a last resort.
    assert hosts(found[0]) == ["192.0.2.2", "fd00::2", "2001:db8::2"]
    assert hosts(found[1]) == ["198.51.100.3", "169.254.9.9"]
    assert [each.loopback for each in found] == [False, False, False, True]


def test_an_interface_with_only_a_link_local_address_can_still_multicast() -> None:
    (only,) = usable([adapter("eth0", 2, "fe80::1")])
    assert (only.addresses, only.ipv4, only.ipv6) == ((), False, True)


def test_this_machine() -> None:
    for interface in usable():
        assert interface.index > 0
        assert interface.loopback == any(each.is_loopback for each in interface.addresses)


def test_a_wildcard_becomes_every_usable_address_loopback_last() -> None:
    found = advertised((bound(),), usable([LO, ETH, WIFI]))
    assert intros(found) == [
        "tcp://192.0.2.2:7400",
        "tcp://[fd00::2]:7400",
        "tcp://[2001:db8::2]:7400",
        "tcp://198.51.100.3:7400",
        "tcp://169.254.9.9:7400",
        "tcp://127.0.0.1:7400",
    ]
    assert found[0] == Address("tcp://192.0.2.2:7400", "tcp://192.0.2.2:7401", "tcp://192.0.2.2:7402")


@pytest.mark.parametrize(
    ("host", "ipv6", "expected"),
    [
        ("0.0.0.0", True, ["tcp://192.0.2.2:7400", "tcp://127.0.0.1:7400"]),
        ("*", False, ["tcp://192.0.2.2:7400", "tcp://127.0.0.1:7400"]),
        ("[::]", True, ["tcp://192.0.2.2:7400", "tcp://[fd00::2]:7400", "tcp://127.0.0.1:7400"]),
    ],
)
def test_which_families_a_wildcard_means(host: str, ipv6: bool, expected: list[str]) -> None:
    eth = adapter("eth0", 2, "192.0.2.2", "fd00::2")
    assert intros(advertised((bound(host),), usable([LO, eth]), ipv6=ipv6)) == expected


def test_without_a_network_nodes_still_meet_on_loopback() -> None:
    assert intros(advertised((bound(),), usable([LO]))) == ["tcp://127.0.0.1:7400"]
    assert intros(advertised((bound(),), usable([adapter("lo", 1, "::1")]))) == ["tcp://[::1]:7400"]


def test_what_was_bound_to_one_address_stays_and_ipc_is_kept() -> None:
    ipc = Address("ipc:///run/i", "ipc:///run/d", "ipc:///run/b")
    given = (ipc, bound("198.51.100.9"), bound("cellar.local"))
    assert advertised(given, usable([LO, ETH])) == (given[1], given[2], ipc)


def test_the_list_is_bounded_and_keeps_what_this_machine_needs() -> None:
    many = [adapter(f"eth{number}", number, f"10.0.{number}.1") for number in range(2, 30)]
    ipc = Address("ipc:///run/i", "ipc:///run/d", "ipc:///run/b")
    found = intros(advertised((bound(), ipc), usable([LO, *many]), limit=8))
    assert found[-2:] == ["tcp://127.0.0.1:7400", "ipc:///run/i"]
    assert found[:6] == [f"tcp://10.0.{number}.1:7400" for number in range(2, 8)]
    assert len(found) == 8


async def test_watch_tells_of_changes_only() -> None:
    first, second = usable([LO]), usable([LO, ETH])
    looks = iter([first, first, second, second, first])
    told: list[tuple[Interface, ...]] = []
    done = trio.Event()

    def look() -> tuple[Interface, ...]:
        now = next(looks, first)
        if told[-1:] == [first]:
            done.set()
        return now

    async with trio.open_nursery() as nursery:

        async def watching(task_status: trio.TaskStatus[tuple[Interface, ...]]) -> None:
            await watch(told.append, look=look, interval=0.001, task_status=task_status)

        assert await nursery.start(watching) == first
        with trio.fail_after(30):
            await done.wait()
        nursery.cancel_scope.cancel()
    assert told == [second, first]
    assert ip_address("192.0.2.2") in told[0][0].addresses
