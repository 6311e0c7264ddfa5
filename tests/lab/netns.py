"""Hosts on one LAN, on one machine: network namespaces joined by a bridge.

    switch namespace:  br0 ── p1, p2, … (bridge ports; multicast is flooded, no snooping)
    host namespaces:   eth0 (10.77.<subnet>.<n>/24, fd77:<subnet>::<n>/64, default route), lo

The switch has a namespace of its own, so nothing touches the machine's own interfaces. Faults
are made with bridge ports and neighbour entries alone, which need neither a firewall nor tc. Names
carry this process's id; what a killed run left behind is swept at the next start.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.process import Running, running

__all__ = ["Host", "Lan", "why_not"]

PREFIX = "zmlab"
NOWHERE = "02:00:00:00:77:77"
"""A locally administered address that nobody has: what is sent there gets lost."""

SETTLE_WITHIN = 5.0
"""Seconds for the switch to forward to a port that came up; it takes a millisecond or two."""

_numbers = count(1)


def _ip(*words: str, namespace: str | None = None, batch: Sequence[str] | None = None) -> str:
    """Run iproute2, on one command or a batch of them. Raises ``RuntimeError`` with what it said."""
    command = ["ip", *(["-n", namespace] if namespace else []), *(["-batch", "-"] if batch else []), *words]
    done = subprocess.run(
        command, input="\n".join(batch) if batch else None, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


@cache
def why_not() -> str | None:
    """Why this process can't make namespaces, in one line; None if it can."""
    if sys.platform != "linux":
        return f"network namespaces are Linux's; this is {sys.platform}"
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    if shutil.which("ip") is None:
        return "iproute2 (the command `ip`) is not installed"
    sweep()
    try:
        with Lan(1):
            return None
    except RuntimeError as error:
        return f"this machine does not let root make network namespaces: {error}"


def sweep() -> None:
    """Remove namespaces of runs that were killed."""
    for line in _ip("netns", "list").splitlines():
        name = line.split()[0]
        made = re.fullmatch(rf"{PREFIX}-(\d+)-\d+-\w+", name)
        if made and not Path(f"/proc/{made[1]}").exists():
            _remove(name)


def _remove(namespace: str) -> None:
    """End what still runs inside, then let go of the namespace."""
    with suppress(RuntimeError):  # it may be gone already
        for pid in _ip("netns", "pids", namespace).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        _ip("netns", "delete", namespace)


class Host:
    """One machine on the LAN. Its address is ``ipv4``, and ``ipv6`` where the kernel has IPv6."""

    def __init__(self, lan: Lan, number: int) -> None:
        self.lan = lan
        self.number = number
        self.namespace = f"{lan.name}-h{number}"
        self.port = f"p{number}"
        self._place(number)

    def _place(self, place: int) -> None:
        self.ipv4 = f"10.77.{self.lan.subnet}.{place}"
        self.ipv6 = f"fd77:{self.lan.subnet}::{place:x}"

    # -- programs ----------------------------------------------------------

    def command(self, argv: Sequence[str | os.PathLike[str]]) -> list[str]:
        """``argv`` as it is run inside. ``ip netns exec`` becomes the program: one process, its own id."""
        return ["ip", "netns", "exec", self.namespace, *map(os.fspath, argv)]

    @asynccontextmanager
    async def running(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        measured: bool = False,
    ) -> AsyncIterator[Running]:
        """Run a program inside for as long as the block lasts (see ``process.running``)."""
        async with running(self.command(argv), env=env, cwd=cwd, measured=measured) as program:
            yield program

    # -- the link ----------------------------------------------------------

    def link_down(self) -> None:
        """As ``ip link set down`` on the host: the interface is there, and off."""
        self._ip("link set eth0 down")

    def link_up(self) -> None:
        self._ip("link set eth0 up", *self._routes())
        self.lan._settle(self)

    def unplug(self) -> None:
        """As a pulled cable: the host sees that the carrier is lost, and keeps its addresses."""
        self.lan._switch(f"link set {self.port} down")

    def plug(self) -> None:
        self.lan._switch(f"link set {self.port} up")
        self.lan._settle(self)

    def remove_interface(self) -> None:
        """As a network adapter that is taken out: the host has nothing but its loopback."""
        self.lan._switch(f"link delete {self.port}")

    def insert_interface(self) -> None:
        """… and put in again: another hardware address, the same addresses."""
        self.lan._wire(self)
        self._port(f"mcast_flood {self.lan._flood}")
        self._make()
        self.lan._settle(self)

    def change_address(self) -> None:
        """Give the host other addresses, as a new DHCP lease would; ``ipv4`` and ``ipv6`` follow."""
        old = self._addresses()
        self._place(next(self.lan._places))
        self._ip(
            *(f"address delete {address} dev eth0" for address in old),
            *(f"address add {address} dev eth0 {options}" for address, options in self._addresses().items()),
            *self._routes(),
        )

    # -- silent faults: neither side is told -------------------------------

    def isolate(self) -> None:
        """Nothing passes either way; the carrier stays."""
        self.lan._switch(f"link set {self.port} nomaster")

    def rejoin(self) -> None:
        self.lan._switch(f"link set {self.port} master br0")
        self.undeafen()
        self.lan._settle(self)

    def deafen(self) -> None:
        """What others send does not arrive (unicast, broadcast, multicast); what it sends does."""
        self._port("learning off flood off mcast_flood off bcast_flood off")
        self._port("fdb_flush")

    def undeafen(self) -> None:
        self._port(f"learning on flood on mcast_flood {self.lan._flood} bcast_flood on")

    def lose_towards(self, other: Host) -> None:
        """Unicast from here to ``other`` gets lost; the other way, and multicast, go on."""
        for address in other._reachable():
            self._ip(f"neighbour replace {address} dev eth0 lladdr {NOWHERE} nud permanent")

    def reach(self, other: Host) -> None:
        for address in other._reachable():
            self._ip(f"neighbour delete {address} dev eth0")

    # -- inside ------------------------------------------------------------

    def _ip(self, *commands: str) -> None:
        _ip(namespace=self.namespace, batch=commands)

    def _port(self, options: str) -> None:
        self.lan._switch(f"link set {self.port} type bridge_slave {options}")

    def _reachable(self) -> list[str]:
        return [self.ipv4, self.ipv6] if self.lan.has_ipv6 else [self.ipv4]

    def _addresses(self) -> dict[str, str]:
        """Address with prefix → what else ``ip address add`` is told."""
        addresses = {f"{self.ipv4}/24": "broadcast +"}
        if self.lan.has_ipv6:
            addresses[f"{self.ipv6}/64"] = "nodad"
        return addresses

    def _routes(self) -> list[str]:
        # Without a default route a multicast datagram without an interface has no way out,
        # which is not how a machine on a LAN behaves.
        return [f"route replace default via 10.77.{self.lan.subnet}.254 dev eth0"]

    def _make(self) -> None:
        if self.lan.has_ipv6:
            conf = "/proc/sys/net/ipv6/conf"
            settings = " && ".join(
                f"echo {value} > {conf}/{where}/{name}"
                for where in ("all", "default", "eth0")
                for name, value in (("accept_dad", 0), ("keep_addr_on_down", 1))
            )
            subprocess.run(self.command(["sh", "-c", settings]), check=True, capture_output=True)
        self._ip(
            "link set lo up",
            *(f"address add {address} dev eth0 {options}" for address, options in self._addresses().items()),
            "link set eth0 up",
            *self._routes(),
        )


class Lan:
    """A switch and ``hosts`` machines on it; a context manager that surely takes them down."""

    def __init__(self, hosts: int = 2, *, subnet: int = 1) -> None:
        assert 1 <= hosts <= 100
        self.name = f"{PREFIX}-{os.getpid()}-{next(_numbers)}"
        self.subnet = subnet
        self.multicast = True
        self.has_ipv6 = Path("/proc/net/if_inet6").exists()
        self._places = count(hosts + 101)  # for hosts that move
        self.hosts = [Host(self, number) for number in range(1, hosts + 1)]
        self._namespace = f"{self.name}-switch"

    def __getitem__(self, index: int) -> Host:
        return self.hosts[index]

    def __iter__(self) -> Iterator[Host]:
        return iter(self.hosts)

    def __len__(self) -> int:
        return len(self.hosts)

    def __enter__(self) -> Self:
        try:
            _ip(batch=[f"netns add {name}" for name in self._namespaces()])
            self._switch(
                "link add br0 type bridge mcast_snooping 0 forward_delay 0",
                f"address add 10.77.{self.subnet}.254/24 dev br0",
                "link set br0 up",
            )
            self._wire(*self.hosts)
            for host in self.hosts:
                host._make()
            self._settle(*self.hosts)
        except BaseException:  # whatever it was, nothing half-made stays
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _wire(self, *hosts: Host) -> None:
        self._switch(
            *(f"link add {host.port} type veth peer name eth0 netns {host.namespace}" for host in hosts),
            *(f"link set {host.port} master br0 up" for host in hosts),
        )

    def set_multicast(self, passes: bool) -> None:
        """Whether the switch passes multicast on, as many Wi-Fi access points do not."""
        self.multicast = passes
        for host in self.hosts:
            host._port(f"mcast_flood {self._flood}")

    @property
    def _flood(self) -> str:
        return "on" if self.multicast else "off"

    def _settle(self, *hosts: Host) -> None:
        """Wait until the switch forwards for ``hosts``: the kernel tells it of a carrier a moment later."""
        deadline = time.monotonic() + SETTLE_WITHIN
        while True:
            ports = json.loads(
                _ip("-json", "-details", "link", "show", "master", "br0", namespace=self._namespace)
            )
            states = {port["ifname"]: port["linkinfo"]["info_slave_data"]["state"] for port in ports}
            if all(states.get(host.port) == "forwarding" for host in hosts):
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"the switch does not forward: {states}")
            time.sleep(0.001)  # iproute2 has no way to wait for a port's state

    def _switch(self, *commands: str) -> None:
        _ip(namespace=self._namespace, batch=commands)

    def _namespaces(self) -> list[str]:
        return [self._namespace, *(host.namespace for host in self.hosts)]

    def _remove(self) -> None:
        for name in self._namespaces():
            _remove(name)
