"""The thread that mDNS runs in, seen from Trio's.

``call`` → the responder's event loop; candidates → a dictionary → ``take``. See ``mesh.discovery.mdns``.
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
from mesh.discovery.base import Candidate
from mesh.discovery.mdns_responder import Responder

__all__ = ["ResponderThread"]

CLOSING: Final = 0.9  # seconds that the goodbye and the sockets' end may take

_log = logging.getLogger("mesh.discovery.mdns")


class ResponderThread:
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
