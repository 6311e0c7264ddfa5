"""mDNS / DNS-SD (RFC 6762, 6763): the discovery that other tools see too.

zeroconf is asyncio inside. It gets a thread and an event loop of its own (``mdns_responder``), so
that nothing of it runs in the node's thread. In: ``update``, ``look_again``, changed
interfaces, through ``call_soon_threadsafe``. Out: candidates, verified over there, into a
dictionary of at most ``limits.candidates`` entries, which one pending ``run_sync_soon`` wakes this
side to empty: however many records come, no more than that waits for the Trio thread.

mDNS finds peers; it doesn't tell that one died, and its goodbyes can be forged. So a removal
is no event here.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import trio

from mesh.config import Limits
from mesh.core.types import NodeId
from mesh.discovery import interfaces
from mesh.discovery.base import Announcement, Candidate, Discovery, Status
from mesh.discovery.interfaces import Interface
from mesh.discovery.mdns_responder import SERVICE_TYPE, Responder

__all__ = ["SERVICE_TYPE", "MdnsDiscovery"]

CLOSING: Final = 0.9  # seconds that the goodbye and the sockets' end may take

_log = logging.getLogger(__name__)
# Without any handler, Python prints a library's warnings on standard error, and zeroconf warns of
# what strangers send. Who configures logging still gets them.
logging.getLogger("zeroconf").addHandler(logging.NullHandler())


class MdnsDiscovery(Discovery):
    """Discovery by mDNS. ``status`` is the present state, ``rejected`` counts refusals by a fixed word."""

    name = "mdns"

    def __init__(self, beacon_key: bytes, *, limits: Limits | None = None) -> None:
        self.status = Status(self.name, active=False, reason="not started")
        self.rejected: Counter[str] = Counter()
        self._key = beacon_key
        self._limits = limits or Limits()
        self._announcement: Announcement | None = None
        self._interfaces: tuple[Interface, ...] = ()
        self._thread: _ResponderThread | None = None

    async def run(
        self,
        announcement: Announcement,
        found: Callable[[Candidate], None],
        *,
        task_status: trio.TaskStatus[Status] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        self._announcement = announcement
        known = trio.Event()

        def state(reason: str) -> None:
            if reason and reason != self.status.reason:
                _log.info("mdns is inactive: %s", reason)
            self.status = Status(self.name, active=not reason, reason=reason)
            known.set()

        async with trio.open_nursery() as nursery:
            self._interfaces = await nursery.start(interfaces.watch, self._interfaces_changed)
            thread = _ResponderThread(self._key, self._limits, state, self.rejected)
            self._thread = thread
            try:
                self._want()
                thread.start()
                await known.wait()
                task_status.started(self.status)
                while True:
                    for candidate in await thread.take():
                        found(candidate)
            finally:
                self._thread = None
                await thread.stop()

    def update(self, announcement: Announcement) -> None:
        self._announcement = announcement
        self._want()

    def look_again(self) -> None:
        if self._thread is not None:
            self._thread.call(self._thread.responder.look_again)

    def _interfaces_changed(self, now: tuple[Interface, ...]) -> None:
        self._interfaces = now
        self._want()

    def _want(self) -> None:
        if self._thread is not None:
            self._thread.call(self._thread.responder.want, self._announcement, self._interfaces)


class _ResponderThread:
    """The responder's thread and loop, seen from the Trio thread that made it."""

    def __init__(
        self,
        beacon_key: bytes,
        limits: Limits,
        state: Callable[[str], None],
        rejected: Counter[str],
    ) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._state = state
        self._limit = limits.candidates
        self._rejected = rejected
        self._lock = threading.Lock()
        self._waiting: dict[NodeId | None, Candidate] = {}
        self._wake = trio.Event()
        self._ended = trio.Event()
        # Made here, so that calls can be queued before the thread runs.
        self._loop = asyncio.SelectorEventLoop()
        self.responder = Responder(
            beacon_key, limits, self._hand_over, lambda reason: self._tell(state, reason), rejected
        )
        self._thread = threading.Thread(target=self._main, name="zeromesh-mdns", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Call on the responder's loop. Nothing happens if that has ended."""
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the loop is closed
            pass

    async def take(self) -> tuple[Candidate, ...]:
        """The candidates since the last call; waits until there are some."""
        await self._wake.wait()
        self._wake = trio.Event()
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        return tuple(waiting.values())

    async def stop(self) -> None:
        """Goodbye, close, end: waits for at most ``CLOSING`` seconds, whatever is cancelled."""
        if not self._thread.ident:
            self._loop.close()
            return
        self.call(self.responder.stop)
        with trio.move_on_after(CLOSING, shield=True) as waiting:
            await self._ended.wait()
        if waiting.cancelled_caught:
            _log.warning("mdns did not end within %g s; its thread is left behind", CLOSING)
        else:
            self._thread.join()  # it has nothing left to do but return

    # -- in the responder's thread ---------------------------------------------------

    def _main(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self.responder.run())
        except Exception as error:  # noqa: BLE001 - a bug here, or in zeroconf, may cost mDNS, but not the node
            _log.exception("mdns failed")
            self._tell(self._state, f"mDNS failed: {error}")
        finally:
            self._tell(lambda _: self._ended.set(), None)

    def _tell(self, function: Callable[[Any], object], argument: Any) -> None:
        try:
            self._token.run_sync_soon(function, argument)
        except trio.RunFinishedError:
            pass  # nobody is left to be told

    def _hand_over(self, candidate: Candidate) -> None:
        with self._lock:
            if candidate.node not in self._waiting and len(self._waiting) >= self._limit:
                self._rejected["full"] += 1
                return
            self._waiting[candidate.node] = candidate
        try:
            self._token.run_sync_soon(self._rouse, idempotent=True)
        except trio.RunFinishedError:
            pass

    # -- in the Trio thread ----------------------------------------------------------

    def _rouse(self) -> None:
        self._wake.set()
