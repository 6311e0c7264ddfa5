"""This machine's addresses: which are usable, which to advertise, and when they change.

``usable`` asks the system (ifaddr) and keeps what another machine could dial;
``advertised`` turns what the sockets were bound to into addresses that peers can
use; ``watch`` waits on netlink where there is one, else polls, and calls back with
the new set whenever it differs.

Left out on purpose: interfaces that are down or have no carrier, and IPv6 link-local addresses, because
an endpoint with one needs a scope (``%eth0``) that means something only on the
machine that reads it. (The mechanisms themselves still multicast from them.)
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

import ifaddr
import trio

from mesh.config import Limits
from mesh.core.types import Address
from mesh.discovery.endpoints import Host, is_local, is_wildcard, split_tcp, tcp

__all__ = ["Interface", "advertised", "usable", "watch"]

POLL: Final = 2.0  # seconds between looks where the system doesn't tell of changes
RECHECK: Final = 30.0  # … and where it does, in case a notice was lost
SETTLE: Final = 0.02  # notices come in handfuls: one look for those of so many seconds
_VIRTUAL: Final = ("docker", "br-", "veth", "virbr", "lxc", "podman", "cni", "flannel", "vmnet", "vboxnet")
_LOOPBACKS: Final = (IPv4Address("127.0.0.1"), IPv6Address("::1"))


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface that is up.

    ``addresses`` are those that can stand in an endpoint, ``ipv4`` and ``ipv6`` whether it
    has that family at all (a link-local address is enough to multicast from).
    """

    name: str
    index: int
    addresses: tuple[Host, ...]
    ipv4: bool
    ipv6: bool
    loopback: bool


def usable(adapters: Iterable[ifaddr.Adapter] | None = None) -> tuple[Interface, ...]:
    """The interfaces that are up: the likeliest to be reached first, loopback last.

    Bridges of containers and virtual machines come after real ones: their addresses
    are often the same on every host and lead nowhere.
    """
    found = []
    for adapter in ifaddr.get_adapters() if adapters is None else adapters:
        name = str(adapter.nice_name)
        if adapter.index is None or (adapters is None and not _is_up(name)):
            continue
        everything = [ip_address(ip.ip if isinstance(ip.ip, str) else ip.ip[0]) for ip in adapter.ips]
        addresses = [each for each in everything if _dialable(each)]
        # IPv4 first, then IPv6; an address that the machine gave itself (169.254/16) last.
        addresses.sort(key=lambda each: (each.is_link_local, each.version))
        found.append(
            Interface(
                name=name,
                index=adapter.index,
                addresses=tuple(addresses),
                ipv4=any(each.version == 4 for each in everything),
                ipv6=any(each.version == 6 for each in everything),
                loopback=any(each.is_loopback for each in everything),
            )
        )
    return tuple(sorted(found, key=lambda each: (each.loopback, each.name.startswith(_VIRTUAL))))


def _dialable(address: Host) -> bool:
    if address.is_unspecified or address.is_multicast:
        return False
    return not (address.version == 6 and address.is_link_local)


def _is_up(name: str) -> bool:
    """IFF_UP and IFF_RUNNING (a carrier) of an interface, netdevice(7), which ifaddr doesn't tell.

    True where it can't be asked.
    """
    if sys.platform != "linux":
        return True
    import fcntl

    request = struct.pack("16sH14s", name.encode()[:15], 0, b"")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        try:
            answer = fcntl.ioctl(asker.fileno(), 0x8913, request)  # SIOCGIFFLAGS
        except OSError:  # it went away between the two questions
            return False
    flags: int = struct.unpack("16sH14s", answer)[1]
    return flags & 0x41 == 0x41


def advertised(
    bound: tuple[Address, ...],
    interfaces: tuple[Interface, ...] | None = None,
    *,
    limit: int = Limits().addresses_per_node,
    ipv6: bool = True,
) -> tuple[Address, ...]:
    """What peers may dial, given what was bound; at most ``limit`` addresses, the likeliest first.

    A wildcard host becomes one address for each usable address of the interfaces: of both
    families for ``*`` (only IPv4 if the sockets weren't opened with ``ipv6``) and ``[::]``, of
    IPv4 for ``0.0.0.0``. What only this machine can reach (``ipc://``, loopback) stands last,
    and keeps its place when the list is cut.
    """
    interfaces = usable() if interfaces is None else interfaces
    everything: dict[Address, None] = {}  # a set that keeps the order
    for address in bound:
        families = _wildcard_families(address, ipv6)
        if not families:
            everything[address] = None
            continue
        for interface in interfaces:
            hosts = [host for host in interface.addresses if host.version in families]
            if interface.loopback:
                hosts = [host for host in hosts if host in _LOOPBACKS][:1]
            for host in hosts:
                everything[Address(*(_with_host(endpoint, str(host)) for endpoint in address))] = None
    outside = [address for address in everything if not is_local(address.intro)]
    inside = [address for address in everything if is_local(address.intro)]
    inside = inside[: max(1, limit // 2)]
    return (*outside[: limit - len(inside)], *inside)


def _wildcard_families(address: Address, ipv6: bool) -> frozenset[int]:
    """The IP versions that the wildcards of an address stand for; empty without a wildcard."""
    families: frozenset[int] = frozenset()
    for endpoint in address:
        parts = split_tcp(endpoint)
        if parts is not None and is_wildcard(parts[0]):
            means = {4} if parts[0] == "0.0.0.0" or (parts[0] == "*" and not ipv6) else {4, 6}  # noqa: S104
            families = families & means if families else frozenset(means)
    return families


def _with_host(endpoint: str, host: str) -> str:
    parts = split_tcp(endpoint)
    return tcp(host, parts[1]) if parts is not None and is_wildcard(parts[0]) else endpoint


@trio.lowlevel.enable_ki_protection
async def watch(
    changed: Callable[[tuple[Interface, ...]], None],
    *,
    look: Callable[[], tuple[Interface, ...]] = usable,
    interval: float | None = None,
    task_status: trio.TaskStatus[tuple[Interface, ...]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Call ``changed`` whenever the usable interfaces differ from before; until cancelled.

    Starts with the set as it is now (``task_status``), for which ``changed`` isn't called.
    ``interval`` is in seconds: the longest time between two looks.
    """
    notices = _netlink()
    try:
        now = look()
        task_status.started(now)
        while True:
            with trio.move_on_after(interval or (RECHECK if notices else POLL)):
                await _notice(notices)
            await trio.sleep(SETTLE)
            before, now = now, look()
            if now != before:
                changed(now)
    finally:
        if notices is not None:
            notices.close()


def _netlink() -> trio.socket.SocketType | None:
    """A socket that gets a datagram for each change of a link or an address (rtnetlink(7))."""
    if sys.platform != "linux":
        return None
    groups = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
    try:
        raw = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    except OSError:  # a sandbox without netlink: polling will do
        return None
    try:
        raw.bind((0, groups))
        return trio.socket.from_stdlib_socket(raw)
    except OSError:
        raw.close()
        return None


async def _notice(notices: trio.socket.SocketType | None) -> None:
    if notices is None:
        await trio.sleep_forever()
    try:
        await notices.recv(1 << 16)
    except OSError:
        # ENOBUFS: so many changes that some notices were dropped. Looking is what follows anyway.
        await trio.lowlevel.checkpoint()
