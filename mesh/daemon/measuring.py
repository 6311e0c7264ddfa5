"""What a daemon does for those who measure: ``mesh bench`` of another member, and who looks at the whole mesh.

``ECHO``: a request's value comes back.  ``FLOW``: ``{"open": ID}`` subscribes to ``FLOW/ID`` and answers when that is
live; ``{"close": ID, "sent": N}`` waits until N messages have come, or none for a moment, and tells what came.
``ASK``: ``{"peer", "size", "count"}`` measures from here to another peer, one such at a time: times in seconds.
``TRIPS``: the smoothed round trips to all peers, as they are known: ``{id: seconds}``; who asks has them measured again.

Topics like a program's own, so that access rules apply to them as to any other.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import trio

from mesh.errors import ConfigError, MeshError, RequestTimeout

if TYPE_CHECKING:
    import mesh

__all__ = ["ASK", "ECHO", "FLOW", "MOST_ASKED", "TRIPS", "Measuring", "round_trips"]

ECHO: Final = "zeromesh/bench/echo"
FLOW: Final = "zeromesh/bench/flow"

ASK: Final = "zeromesh/bench/ask"
TRIPS: Final = "zeromesh/bench/trips"
MOST_ASKED: Final = 1000
"""Requests that one ``ASK`` is good for: some seconds of a daemon's time."""

_WARM_UP: Final = 20  # requests that are not counted: the first ones open links and fill caches
_FLOWS: Final = 4  # at once: each holds a subscription
_LIFETIME: Final = 120.0  # s; a flow whose asker is gone
_QUIET: Final = 1.0  # s without a message: the rest is lost
_PING_WITHIN: Final = 1.0  # s
_TRIPS_EVERY: Final = 3.0  # s; between two measurements of all round trips
_ID: Final = re.compile(r"[0-9a-f]{1,32}", re.ASCII)


async def round_trips(
    node: mesh.Node,
    peer: mesh.Peer | str,
    size: int,
    count: int,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[list[float], int]:
    """Ask the peer's ``ECHO`` one request after the other: (times in seconds, requests without a reply)."""
    data = os.urandom(size)
    times, lost = [], 0
    for number in range(-min(_WARM_UP, count), count):
        began = time.perf_counter()
        try:
            await node.request(ECHO, data, to=peer)
        except RequestTimeout:
            lost += number >= 0
            continue
        if number >= 0:
            times.append(time.perf_counter() - began)
            progress(number + 1)
    return times, lost


class _Flow:
    """One flow being counted. Times are of this process's monotonic clock, in seconds."""

    def __init__(self) -> None:
        self.received = 0
        self.size = 0
        self.first = self.last = 0.0
        self.closed = trio.Event()
        self.sent: int | None = None
        self.told: dict[str, Any] = {}
        self.over = trio.Event()  # all has come
        self.ended = trio.Event()  # and has been told

    async def count(self, subscription: mesh.Subscription) -> None:
        try:
            async for message in subscription:
                self.last = time.perf_counter()
                self.first = self.first or self.last
                self.received += 1
                self.size += len(message.data)
                if self.received == self.sent:
                    break
        except MeshError:
            pass  # the node closes
        self.over.set()

    async def wait_end(self) -> None:
        """Return when everything that was sent has come, or nothing comes any more."""
        if self.sent is not None and self.received >= self.sent:
            return
        while True:
            before = self.received
            with trio.move_on_after(_QUIET):
                await self.over.wait()
                return
            if self.received == before:
                return


class Measuring:
    """The service of one node."""

    def __init__(self, node: mesh.Node) -> None:
        self._node = node
        self._flows: dict[str, _Flow] = {}
        self._asking = self._pinging = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled, or until the node closes."""
        async with trio.open_nursery() as self._nursery:
            await self._nursery.start(self._node.serve, ECHO, self._echo)
            await self._nursery.start(self._node.serve, FLOW, self._flow)
            await self._nursery.start(self._node.serve, ASK, self._ask)
            await self._nursery.start(self._node.serve, TRIPS, self._trips)
            task_status.started()

    async def _ask(self, request: mesh.Request) -> Any:
        value = request.value
        wanted = value if isinstance(value, dict) else {}
        peer, size, count = (wanted.get(key) for key in ("peer", "size", "count"))
        if not isinstance(peer, str) or type(size) is not int or type(count) is not int:
            raise ConfigError("expected peer, size and count", key="ask")
        if not 0 <= size <= self._node.config.limits.value_bytes or not 0 < count <= MOST_ASKED:
            raise ConfigError(f"at most {MOST_ASKED} requests of a value each", key="ask")
        if self._asking:
            raise ConfigError("it measures for somebody else", key="ask")
        self._asking = True
        try:
            times, lost = await round_trips(self._node, peer, size, count)
        finally:
            self._asking = False
        return {"times": times, "lost": lost}

    async def _trips(self, request: mesh.Request) -> Any:
        if not self._pinging:
            self._pinging = True
            self._nursery.start_soon(self._ping_all)
        return {peer.id: peer.rtt for peer in self._node.peers.values() if peer.rtt is not None}

    async def _ping_all(self) -> None:
        """One after the other, and then not for a while, however many ask."""
        for peer in list(self._node.peers.values()):
            with contextlib.suppress(MeshError):  # it leaves, or does not answer
                await self._node.ping(peer, timeout=_PING_WITHIN)
        await trio.sleep(_TRIPS_EVERY)
        self._pinging = False

    async def _echo(self, request: mesh.Request) -> Any:
        return request.value

    async def _flow(self, request: mesh.Request) -> Any:
        value = request.value
        wanted = value if isinstance(value, dict) else {}
        if "open" in wanted:
            return await self._open(wanted["open"])
        if "close" in wanted:
            return await self._close(wanted["close"], wanted.get("sent"))
        raise ConfigError("neither open nor close", key="flow")

    async def _open(self, name: Any) -> str:
        if not isinstance(name, str) or not _ID.fullmatch(name):
            raise ConfigError("expected up to 32 hex digits", key="open")
        if name in self._flows or len(self._flows) >= _FLOWS:
            raise ConfigError(f"{len(self._flows)} flows are open here already", key="open")
        flow = self._flows[name] = _Flow()
        await self._nursery.start(self._follow, name, flow)
        return "live"

    async def _follow(
        self, name: str, flow: _Flow, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        try:
            with trio.move_on_after(_LIFETIME):
                async with (
                    self._node.subscribe(f"{FLOW}/{name}") as subscription,
                    trio.open_nursery() as nursery,
                ):
                    nursery.start_soon(flow.count, subscription)
                    task_status.started()
                    await flow.closed.wait()
                    await flow.wait_end()
                    flow.told = {"lost": subscription.lost, "dropped": subscription.dropped}
                    nursery.cancel_scope.cancel()
        finally:
            del self._flows[name]
            flow.ended.set()

    async def _close(self, name: Any, sent: Any) -> dict[str, Any]:
        flow = self._flows.get(name) if isinstance(name, str) else None
        if flow is None:
            raise ConfigError("no such flow", key="close")
        flow.sent = sent if type(sent) is int else None
        flow.closed.set()
        await flow.ended.wait()
        seconds = flow.last - flow.first
        return {"received": flow.received, "bytes": flow.size, "seconds": seconds, **flow.told}
