"""The asyncio side of mDNS: zeroconf's sockets, our registration, our questions, what is heard.

Everything here runs on the event loop of one thread that ``mesh.discovery.mdns`` owns, except
that the owner enters through ``call_soon_threadsafe``. ``run`` brings what zeroconf does into
line with what is wanted (interfaces, announcement) whenever either changes, and says
goodbye at the end.

zeroconf's own browser isn't used: it keeps a timer for every instance name that it was ever told,
and anybody may tell it any number of names. A ``RecordUpdateListener`` sees the same records
and keeps nothing; TXT records carry all that a candidate needs, and are checked here,
before anything is handed to another thread. Questions follow RFC 6762 §5.2: the first one after
20-120 ms asks for unicast answers, then the pauses grow from one second to one hour: threefold, because
everybody hears every question, with all that its asker knows, and twenty nodes of one machine would be busy.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final

from zeroconf import (  # type: ignore[attr-defined]  # not in __all__
    DNSOutgoing,
    DNSPointer,
    DNSQuestion,
    DNSText,
    Error,
    RecordUpdate,
    RecordUpdateListener,
    ServiceInfo,
    Zeroconf,
    current_time_millis,
)
from zeroconf.asyncio import AsyncZeroconf

from mesh.config import Limits
from mesh.core.types import NodeId, RemoteProtocolError
from mesh.discovery.base import Announcement, Candidate
from mesh.discovery.beacon import Beacon, Kind, decode, encode, read_txt, to_txt
from mesh.discovery.endpoints import host_address, is_local, split_tcp
from mesh.discovery.interfaces import Interface
from mesh.discovery.sightings import Sightings

__all__ = ["SERVICE_TYPE", "Responder"]

SERVICE_TYPE: Final = "_zeromesh._tcp.local."

FIRST_QUESTION: Final = (0.02, 0.12)  # seconds, RFC 6762 §5.2: no two hosts ask in step
QUESTION_PAUSES: Final = (1.0, 3600.0)  # the same: the first pause, and the last; each at least twice as long
RETRY: Final = 5.0  # seconds until what failed is tried again
SETTLE: Final = 3.0  # after a change, once more: by then a new IPv6 address can be bound (RFC 4862 DAD)
OPENING: Final = 0.1  # seconds that opening further sockets may take when all are to be closed
RESOLVES: Final = 8  # names a second whose missing TXT record is asked for

# From RFC 1035 §3.2 and RFC 6762 §18.12 (the top bit of a question's class asks for unicast).
_PTR, _TXT, _IN, _UNICAST = 12, 16, 1, 0x8000
_INSTANCE: Final = re.compile(r"([0-9a-f]{32})\." + re.escape(SERVICE_TYPE))


class Responder(RecordUpdateListener):
    """Announces one node and hears the others.

    ``found`` gets each candidate that is new or changed, ``state`` the reason why mDNS doesn't work
    here ("" when it does); both are called on this loop. ``rejected`` counts refusals.
    """

    def __init__(
        self,
        beacon_key: bytes,
        limits: Limits,
        found: Callable[[Candidate], None],
        state: Callable[[str], None],
        rejected: Counter[str],
    ) -> None:
        self._key = beacon_key
        self._limits = limits
        self._found, self._state = found, state
        self._rejected = rejected
        self._sightings = Sightings(limits.candidates)
        self._announcement: Announcement | None = None
        self._interfaces: tuple[Interface, ...] = ()
        self._stopping = False
        self._changed = asyncio.Event()
        self._asked_again = asyncio.Event()
        self._aio: AsyncZeroconf | None = None
        self._served: list[str | int] = []  # the interfaces as zeroconf was told them
        self._info: ServiceInfo | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._opening: asyncio.Task[Any] | None = None
        self._unresolved: set[str] = set()
        self._resolves, self._resolves_since = 0, 0.0

    # -- what the owner calls, on this loop ----------------------------------------

    def want(self, announcement: Announcement, interfaces: tuple[Interface, ...]) -> None:
        """What to announce, and where, from now on."""
        if interfaces != self._interfaces:
            self._asked_again.set()
        self._announcement, self._interfaces = announcement, interfaces
        self._changed.set()

    def look_again(self) -> None:
        """Ask anew, and report anew whoever answers."""
        self._sightings.forget()
        self._asked_again.set()

    def stop(self) -> None:
        """Make ``run`` return. (To cancel it would cancel zeroconf's own start, and leak its sockets.)"""
        self._stopping = True
        self._changed.set()

    async def run(self) -> None:
        """Announce and listen until stopped."""
        try:
            while not self._stopping:
                self._changed.clear()  # what comes from here on is seen by the wait below
                pause = await self._reconcile()
                try:
                    async with asyncio.timeout(pause):
                        await self._changed.wait()
                except TimeoutError:
                    pass
        finally:
            await self._close()

    # -- sockets and registration ---------------------------------------------------

    async def _reconcile(self) -> float | None:
        """Make zeroconf do what is wanted; seconds after which to do so again, None: at a change."""
        wanted = self._wanted()
        if not wanted:
            await self._close()
            self._state("no usable network interface")
            return None
        try:
            pause = await self._serve(wanted)
            await self._register()
        except (OSError, RuntimeError, Error) as error:
            # The port is taken, multicast isn't permitted, the interface just went: zeroconf says
            # so with any of these. The network's faults are a state, never a crash.
            await self._close()
            self._state(f"mDNS cannot be used: {error}")
            return RETRY
        self._state("")
        return pause

    def _wanted(self) -> list[str | int]:
        """IPv4 addresses and IPv6 interface indexes; of loopback only if there is nothing else."""
        outside = [each for each in self._interfaces if not each.loopback and (each.ipv4 or each.ipv6)]
        wanted: list[str | int] = []
        for each in outside or self._interfaces:
            wanted += [str(address) for address in each.addresses if address.version == 4]
            if each.ipv6 and not each.loopback:
                wanted.append(each.index)
        return wanted

    def _only_loopback(self) -> bool:
        return all(each.loopback for each in self._interfaces)

    async def _serve(self, wanted: list[str | int]) -> float | None:
        if self._aio is None:
            self._aio = _open(wanted)
            self._served = wanted
            await self._aio.zeroconf.async_wait_for_start()
            if not self._aio.zeroconf.engine.senders:
                raise RuntimeError("no interface takes multicast")
            self._aio.zeroconf.async_add_listener(self, None)
            self._spawn(self._ask())
            return SETTLE
        # Compared by zeroconf with what it has; it makes up only for the difference.
        self._opening = self._spawn(self._aio.async_update_interfaces(wanted))
        first, self._served = wanted != self._served, wanted
        return SETTLE if first else None

    async def _register(self) -> None:
        """Announce ourselves as we are now, if that differs from what we announced."""
        assert self._announcement is not None
        assert self._aio is not None
        intros = self._announcement.intros
        if not self._only_loopback():
            intros = tuple(endpoint for endpoint in intros if not is_local(endpoint))
        before, self._info = self._info, self._service(self._announcement.node, intros)
        if self._info is None:
            if before is not None:
                self._later(await self._aio.async_unregister_service(before))
        elif before is None:
            # The name is unique by construction, so there is nothing to probe for (RFC 6762 §8.1
            # takes three quarters of a second).
            self._later(await self._aio.async_register_service(self._info, cooperating_responders=True))
        elif (before.text, before.port) != (self._info.text, self._info.port):
            self._later(await self._aio.async_update_service(self._info))

    def _service(self, node: NodeId, intros: tuple[str, ...]) -> ServiceInfo | None:
        tcp = [parts for endpoint in intros if (parts := split_tcp(endpoint)) is not None]
        if not tcp:
            return None
        addresses = [address for endpoint in intros if (address := host_address(endpoint)) is not None]
        return ServiceInfo(
            SERVICE_TYPE,
            f"{node.hex()}.{SERVICE_TYPE}",
            port=tcp[0][1],
            properties=to_txt(encode(Beacon(node, intros), Kind.RECORD, self._key)),
            server=f"{node.hex()}.local.",  # a name of its own: the host's would tell whose it is
            addresses=[address.packed for address in addresses],
        )

    async def _close(self) -> None:
        """Say goodbye once (RFC 6762 §10.1) and close the sockets."""
        aio, self._aio, self._info = self._aio, None, None
        if aio is not None:
            goodbye = aio.zeroconf.generate_unregister_all_services()
            if goodbye is not None:
                aio.zeroconf.async_send(goodbye)
        if self._opening is not None:
            # Cancelled between opening a socket and keeping it, zeroconf would lose it. That is over in
            # a moment; the announcements that come after it need not be waited for.
            await asyncio.wait([self._opening], timeout=OPENING)
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if aio is not None:
            if self in aio.zeroconf.listeners:
                aio.zeroconf.async_remove_listener(self)
            await aio.async_close()

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        self._later(task)
        return task

    def _later(self, task: Any) -> None:
        """Let zeroconf's repeated announcements go out in their own time."""
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logging.getLogger(__name__).info("mDNS: %s: %s", type(error).__name__, error)
            asyncio.get_running_loop().call_later(RETRY, self._changed.set)

    # -- asking -----------------------------------------------------------------------

    async def _ask(self) -> None:
        await asyncio.sleep(random.uniform(*FIRST_QUESTION))  # noqa: S311
        self._question(unicast=True)
        shortest, longest = QUESTION_PAUSES
        pause, asked = shortest, time.monotonic()
        while True:
            self._asked_again.clear()
            try:
                async with asyncio.timeout(pause):
                    await self._asked_again.wait()
            except TimeoutError:
                pause = min(3 * pause, longest)
                self._question(known=self._sightings.known())
            else:
                # Begin anew, but not in step with others, nor within a second of the last question.
                pause = shortest
                soon = random.uniform(*FIRST_QUESTION)  # noqa: S311
                await asyncio.sleep(max(soon, asked + shortest - time.monotonic()))
                self._question()
            asked = time.monotonic()

    def _question(self, *, unicast: bool = False, known: tuple[Candidate, ...] = ()) -> None:
        """Who is there? Those in ``known`` needn't say so again (RFC 6762 §7.1)."""
        assert self._aio is not None
        zeroconf = self._aio.zeroconf
        out, now = DNSOutgoing(0), current_time_millis()
        out.add_question(DNSQuestion(SERVICE_TYPE, _PTR, _IN | (_UNICAST if unicast else 0)))
        for candidate in known:
            assert candidate.node is not None
            name = f"{candidate.node.hex()}.{SERVICE_TYPE}"
            pointer = zeroconf.cache.async_get_unique(DNSPointer(SERVICE_TYPE, _PTR, _IN, 0, name))
            if pointer is not None and not pointer.is_stale(now):
                out.add_answer_at_time(pointer, now)
        zeroconf.async_send(out)

    def _resolve(self, name: str) -> None:
        """Ask for the TXT record that should have come along with a name."""
        if time.monotonic() - self._resolves_since >= 1.0:
            self._resolves, self._resolves_since = 0, time.monotonic()
        if self._resolves >= RESOLVES or self._aio is None:
            self._rejected["unresolved"] += 1
            return
        self._resolves += 1
        out = DNSOutgoing(0)
        out.add_question(DNSQuestion(name, _TXT, _IN | _UNICAST))
        self._aio.zeroconf.async_send(out)

    # -- hearing (called by zeroconf for each packet) ------------------------------------

    def async_update_records(self, zc: Zeroconf, now: float, records: list[RecordUpdate]) -> None:
        described = set()
        for update in records:
            record = update.new
            if record.is_expired(now):
                continue  # a goodbye; it says nothing of a live link
            if isinstance(record, DNSText) and record.key.endswith(SERVICE_TYPE):
                described.add(record.key)
                self._described(record)
            elif isinstance(record, DNSPointer) and record.key == SERVICE_TYPE and update.old is None:
                self._unresolved.add(record.alias.lower())
        self._unresolved -= described

    def async_update_records_complete(self) -> None:
        names, self._unresolved = self._unresolved, set()
        for name in names:
            if _INSTANCE.fullmatch(name) is None:
                self._rejected["name"] += 1
            else:
                self._resolve(name)

    def _described(self, record: DNSText) -> None:
        own = self._announcement
        instance = _INSTANCE.fullmatch(record.key)
        if instance is None:
            self._rejected["name"] += 1
            return
        if own is not None and instance[1] == own.node.hex():
            return
        try:
            kind, beacon = decode(read_txt(record.text), self._key)
        except RemoteProtocolError as error:
            self._rejected[error.detail] += 1
            return
        if kind is not Kind.RECORD or beacon.node.hex() != instance[1]:
            self._rejected["form"] += 1
            return
        if beacon.intros:
            candidate = Candidate(beacon.node, beacon.intros, "mdns")
            refusal = self._sightings.admit(candidate, time.monotonic())
            if not refusal:
                self._found(candidate)
            elif refusal != "repeated":
                self._rejected[refusal] += 1


def _open(wanted: list[str | int]) -> AsyncZeroconf:
    try:
        return AsyncZeroconf(interfaces=wanted)
    except (OSError, RuntimeError):
        # IPv6 half there (an index without an address, a kernel without the protocol): IPv4 alone.
        ipv4: list[str | int] = [each for each in wanted if isinstance(each, str)]
        if not ipv4 or ipv4 == wanted:
            raise
        return AsyncZeroconf(interfaces=ipv4)
