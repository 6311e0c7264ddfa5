"""The scout: one multicast datagram that live nodes answer at once.

Out: a question goes to the group on every interface (at once, after 0.1 s, after 0.5 s, then now
and then with jitter; anew when the node's addresses or the interfaces change, or when
``look_again`` is called). In: a question of another node announces that node, and is answered by
unicast without delay; an answer announces who answered. So both sides of each question learn
of each other, within one round trip.

What a stranger can do with it is bounded: datagrams are read at a limited rate and fail
the beacon's MAC before anything else; an answer is never longer than its question and goes out at
a limited rate; of one node's sightings few are reported (``sightings``). Each refusal is
counted in ``rejected``. Nodes of other meshes are refused in the same way, silently.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Final

import trio

from mesh.config import Limits
from mesh.core.types import RemoteProtocolError
from mesh.discovery import interfaces
from mesh.discovery.base import Announcement, Candidate, Discovery, Status
from mesh.discovery.beacon import BEACON_BYTES, Beacon, Kind, decode, encode
from mesh.discovery.endpoints import Host, is_local, likeliest_first
from mesh.discovery.interfaces import Interface
from mesh.discovery.multicast import Multicast
from mesh.discovery.sightings import Sightings

__all__ = ["SCOUT_PORT", "ScoutDiscovery"]

SCOUT_PORT: Final = 7399
"""UDP. Not 7400 and above, where DDS (RTPS) listens."""

BURST: Final = (0.1, 0.4, 1.0, 2.0)  # seconds between the first questions: a lost datagram costs little time,
# and an IPv6 address that was still being checked for duplicates (RFC 4862) can be sent from by the last
SLOW: Final = 30.0  # … and between later ones (± a quarter), which find what a split network hid
MIN_GAP: Final = 0.05  # questions come no faster, however often the node asks to look again
RETRY: Final = 5.0  # until sockets that couldn't be opened are tried again
ANSWERS: Final = (100.0, 256.0)  # a second, at once: a whole mesh that restarts is answered
READS: Final = (2000.0, 1000.0)  # a second, at once: a flood costs a few per cent of a core

_log = logging.getLogger(__name__)


class _Bucket:
    """A token bucket: ``rate`` a second, ``burst`` at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._tokens, self._at = burst, 0.0

    def take(self, clock: float) -> bool:
        self._tokens = min(self._burst, self._tokens + (clock - self._at) * self._rate)
        self._at = clock
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@lru_cache(maxsize=512)  # the same few hosts ask and answer on and on
def _host(text: str) -> Host:
    return ip_address(text.partition("%")[0])


class ScoutDiscovery(Discovery):
    """Discovery by scout datagrams.

    ``status`` is the present state, ``rejected`` counts what was refused by a fixed word, and
    ``echoes`` counts own questions that came back: none of them means that multicast is dead
    here (``mesh doctor``).
    """

    name = "scout"

    def __init__(self, beacon_key: bytes, *, limits: Limits | None = None, port: int = SCOUT_PORT) -> None:
        self.status = Status(self.name, active=False, reason="not started")
        self.rejected: Counter[str] = Counter()
        self.echoes = 0
        self._key = beacon_key
        self._port = port
        self._sightings = Sightings((limits or Limits()).candidates)
        self._answers, self._reads = _Bucket(*ANSWERS), _Bucket(*READS)
        self._announcement: Announcement | None = None
        self._found: Callable[[Candidate], None] = lambda candidate: None
        self._again = trio.Event()
        self._interfaces: tuple[Interface, ...] = ()
        self._groups: list[Multicast] = []

    # -- what the node calls ------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def run(
        self,
        announcement: Announcement,
        found: Callable[[Candidate], None],
        *,
        task_status: trio.TaskStatus[Status] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        self._announcement, self._found = announcement, found
        self._sightings.forget()
        reported = False
        async with trio.open_nursery() as nursery:
            self._interfaces = await nursery.start(interfaces.watch, self._interfaces_changed)
            while True:
                with ExitStack() as stack:
                    self._open(stack)
                    await self._ask()
                    if not reported:
                        reported = True
                        task_status.started(self.status)
                    if self._groups:
                        await self._talk()
                with trio.move_on_after(RETRY):
                    await self._wait_again()

    def update(self, announcement: Announcement) -> None:
        self._announcement = announcement
        self._again.set()

    def look_again(self) -> None:
        self._sightings.forget()
        self._again.set()

    # -- sockets ------------------------------------------------------------------

    def _open(self, stack: ExitStack) -> None:
        """Open the group in both families, or in the one that there is."""
        self._groups, reasons = [], []
        for version in (4, 6):
            try:
                group = Multicast.open(version, self._port)
            except OSError as error:
                reasons.append(f"IPv{version}: {error.strerror or error}")
                continue
            stack.callback(group.close)
            group.join(self._interfaces)
            self._groups.append(group)
        if not self._groups:
            self._set_status(f"no multicast socket on UDP port {self._port} ({', '.join(reasons)})")

    def _interfaces_changed(self, now: tuple[Interface, ...]) -> None:
        self._interfaces = now
        for group in self._groups:
            group.join(now)
        self._again.set()

    def _set_status(self, reason: str) -> None:
        status = Status(self.name, active=not reason, reason=reason)
        if status != self.status:
            if reason:
                _log.info("scout is inactive: %s", reason)
            self.status = status

    # -- asking -------------------------------------------------------------------

    async def _talk(self) -> None:
        async with trio.open_nursery() as nursery:
            for group in self._groups:
                nursery.start_soon(self._hear, group, group.listener)
                nursery.start_soon(self._hear, group, group.talker)
            step = 0
            while True:
                pause = BURST[step] if step < len(BURST) else SLOW * random.uniform(0.75, 1.25)  # noqa: S311
                step += 1
                with trio.move_on_after(pause):
                    await self._wait_again()
                    step = 0
                await self._ask()

    async def _wait_again(self) -> None:
        await self._again.wait()
        await trio.sleep(MIN_GAP)
        self._again = trio.Event()

    async def _ask(self) -> None:
        """Send the question out of every interface."""
        sent, reason = 0, "no usable network interface"
        asked = self._asked()
        for group in tuple(self._groups):
            for interface in asked:
                if not (interface.ipv4 if group.version == 4 else interface.ipv6):
                    continue
                try:
                    await group.send(self._beacon(Kind.QUESTION, local=interface.loopback), interface)
                except OSError as error:
                    reason = f"{interface.name}: multicast cannot be sent ({error.strerror or error})"
                else:
                    sent += 1
        if self._groups:
            self._set_status("" if sent else reason)

    def _asked(self) -> tuple[Interface, ...]:
        """The interfaces to ask on.

        What goes out of any of them comes back to this machine's other nodes, so that loopback is for
        machines that have nothing else, and for nodes that only their own machine can reach.
        """
        assert self._announcement is not None
        outside = tuple(each for each in self._interfaces if not each.loopback)
        if not outside or all(map(is_local, self._announcement.intros)):
            return self._interfaces
        return outside

    def _beacon(self, kind: Kind, *, local: bool) -> bytes:
        """What to say of this node. Loopback and ipc endpoints are told to this machine only."""
        assert self._announcement is not None
        intros = self._announcement.intros
        if not local:
            intros = tuple(endpoint for endpoint in intros if not is_local(endpoint))
        return encode(Beacon(self._announcement.node, intros), kind, self._key)

    # -- hearing ------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def _hear(self, group: Multicast, at: trio.socket.SocketType) -> None:
        while True:
            try:
                data, sender = await at.recvfrom(BEACON_BYTES + 1)
            except OSError:
                # Some systems report an earlier datagram's fate here (ICMP). It says nothing of
                # the socket; the pause is for one that would say it again and again.
                self.rejected["socket"] += 1
                await trio.sleep(MIN_GAP)
                continue
            if not self._reads.take(trio.current_time()):
                self.rejected["rate"] += 1
                await trio.sleep(MIN_GAP)  # meanwhile the kernel's buffer fills and drops
            asked = at is group.listener
            try:
                kind, beacon = decode(data, self._key)
            except RemoteProtocolError as error:
                self.rejected[error.detail] += 1
                continue
            source = _host(sender[0])
            if kind is not (Kind.QUESTION if asked else Kind.ANSWER):
                self.rejected["form"] += 1
            elif asked and not group.on_link(source):
                self.rejected["off_link"] += 1
            elif self._announcement is not None and beacon.node == self._announcement.node:
                self.echoes += asked
            else:
                self._report(beacon, source)
                if asked:
                    await self._answer(group, sender, source)

    def _report(self, beacon: Beacon, source: Host) -> None:
        if not beacon.intros:
            return  # it can't be dialled, but may dial
        candidate = Candidate(beacon.node, likeliest_first(beacon.intros, str(source)), self.name)
        refusal = self._sightings.admit(candidate, trio.current_time())
        if not refusal:
            self._found(candidate)
        elif refusal != "repeated":
            self.rejected[refusal] += 1

    async def _answer(self, group: Multicast, to: Any, source: Host) -> None:
        if not self._answers.take(trio.current_time()):
            self.rejected["answers"] += 1
            return
        here = source.is_loopback or any(source in interface.addresses for interface in self._interfaces)
        try:
            await group.talker.sendto(self._beacon(Kind.ANSWER, local=here), to)
        except OSError:
            # No way back to who asked, or the interface just went; it will ask again.
            self.rejected["unanswerable"] += 1
