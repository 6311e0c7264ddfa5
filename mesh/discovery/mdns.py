"""mDNS / DNS-SD (RFC 6762, 6763): the discovery that other tools see too.

zeroconf is asyncio inside. It gets a thread and an event loop of its own (``mdns_thread``,
``mdns_responder``), so that nothing of it runs in the node's thread. In: ``update``, ``look_again``, changed
interfaces, through ``call_soon_threadsafe``. Out: candidates, verified over there, into a
dictionary of at most ``limits.candidates`` entries, which one pending ``run_sync_soon`` wakes this
side to empty: however many records come, no more than that waits for the Trio thread.

mDNS finds peers; it doesn't tell that one died, and its goodbyes can be forged. So a removal
is no event here.
"""

from __future__ import annotations

import importlib
import logging
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from mesh.config import Limits
from mesh.discovery import interfaces
from mesh.discovery.base import Announcement, Candidate, Discovery, Status
from mesh.discovery.interfaces import Interface

if TYPE_CHECKING:
    from mesh.discovery.mdns_thread import ResponderThread

__all__ = ["MdnsDiscovery"]

_HEAVY: Final = "mesh.discovery.mdns_thread"

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
        self._thread: ResponderThread | None = None

    @trio.lowlevel.enable_ki_protection
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
            await _load()
            from mesh.discovery.mdns_thread import ResponderThread

            thread = ResponderThread(self._key, self._limits, state, self.rejected)
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


async def _load() -> None:
    """Import asyncio and zeroconf (some 50 ms) on a thread of its own, while the node goes on."""
    if _HEAVY in sys.modules:
        return
    done, token = trio.Event(), trio.lowlevel.current_trio_token()

    def work() -> None:
        try:
            importlib.import_module(_HEAVY)
        finally:
            token.run_sync_soon(done.set)

    with trio.CancelScope(shield=True):  # it is over in a moment, and then the thread is gone
        threading.Thread(target=work, name="zeromesh imports", daemon=True).start()
        await done.wait()
