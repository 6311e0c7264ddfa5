"""Bridges of one route in one mesh: who leads, and what the leader has delivered already.

    every ``_INTERVAL``: hello (my state) → each sibling's responder → its state        (requests of the mesh)
    leader: what the broker has confirmed → marks → each sibling → its spool forgets these rows

All bridges of one identity (same mesh, name and broker) answer on one topic.  Of those that are connected to the
broker and not suspected dead, the one connected longest leads: it alone sends and receives.  Everybody works
that out alone from the same facts; for a moment two may think that they lead, and receivers drop the duplicates
by their ids.

A mark says: of this origin (publisher and topic) the numbers from ``first`` to ``last`` are at the broker.  A sibling
that comes later has delivered nothing that was before its time, and says nothing about it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import trio

import mesh

__all__ = ["Marks", "Siblings"]

log = logging.getLogger("mesh.bridges")

_INTERVAL: Final = 1.0
"""Seconds between two hellos: a sibling that lost its broker is relieved within about as many."""

_SYNC: Final = 0.25
"""Seconds between two times that the leader tells what was delivered: what is sent twice at a takeover."""

_FAREWELL: Final = 0.5
"""Seconds for the last words of a bridge that is closed."""

_ORIGINS: Final = 65_536
"""Publishers × topics whose marks are kept, a route; the longest unused is forgotten."""

_PER_MESSAGE: Final = 2048
"""Marks in one request: some 100 KiB."""


class Marks:
    """What of each origin was delivered: a range of numbers. Versions say what is new to whom."""

    def __init__(self) -> None:
        self._ranges: dict[str, tuple[int, int, int]] = {}  # first, last, version
        self.version = 0

    def delivered(self, origin: str, first: int, last: int) -> None:
        """These numbers of the origin are at the broker, as all between these and those said before."""
        known = self._ranges.pop(origin, None)
        self.version += 1
        if known is not None:
            first, last = min(first, known[0]), max(last, known[1])
        self._ranges[origin] = (first, last, self.version)
        if len(self._ranges) > _ORIGINS:
            del self._ranges[next(iter(self._ranges))]

    def covers(self, origin: str, sequence: int) -> bool:
        known = self._ranges.get(origin)
        return known is not None and known[0] <= sequence <= known[1]

    def since(self, version: int) -> list[list[Any]]:
        """What is newer, oldest first: [origin, first, last]."""
        news: list[list[Any]] = []
        for origin in reversed(self._ranges):  # each change moves its origin to the end
            first, last, changed = self._ranges[origin]
            if changed <= version:
                break
            news.append([origin, first, last])
        news.reverse()
        return news


@dataclass(slots=True)
class _Sibling:
    peer: str
    connected: float | None
    """Since when (seconds since the Unix epoch, by its clock) it is connected; None: it is not."""
    heard: float
    told: dict[str, int]
    """Up to which version of each route's marks it was told."""


class Siblings:
    """The other bridges of this identity.

    ``confirmed`` is called when marks of a route have come, ``changed`` when somebody else may lead now.
    """

    def __init__(
        self,
        node: mesh.Node,
        identity: str,
        routes: Iterable[str],
        confirmed: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        self._node = node
        self._topic = f"zeromesh/bridges/{identity}"
        self._confirmed = confirmed
        self._look = changed
        self._siblings: dict[str, _Sibling] = {}
        self._suspects: set[str] = set()
        self._connected: float | None = None
        self._changed = trio.Event()
        self._hello_now = trio.Event()
        self._marked = trio.Event()
        self._asked = False
        self._delivered = {route: Marks() for route in routes}  # by this bridge
        self._known = {route: Marks() for route in self._delivered}  # by siblings, as far as they told

    # -- who leads -----------------------------------------------------------------------

    @property
    def leads(self) -> bool:
        """This bridge is the one that moves messages now."""
        if self._connected is None or not self._asked:
            return False
        mine = (self._connected, self._node.id)
        return all(
            mine < (each.connected, each.peer)
            for each in self._siblings.values()
            if each.connected is not None and each.peer not in self._suspects
        )

    @property
    def present(self) -> int:
        """Siblings that are there."""
        return len(self._siblings)

    def connected(self, yes: bool) -> None:
        """This bridge has a connection to the broker, or has it no more."""
        self._connected = time.time() if yes else None
        self._hello_now.set()
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
        self._look()

    async def wait_leading(self, leading: bool = True) -> None:
        """Return when this bridge leads (or does not)."""
        while self.leads is not leading:
            await self._changed.wait()

    # -- what was delivered ----------------------------------------------------------------

    def mark(self, route: str, delivered: Mapping[str, tuple[int, int]]) -> None:
        """The broker has these: origin → first and last number."""
        marks = self._delivered[route]
        for origin, (first, last) in delivered.items():
            marks.delivered(origin, first, last)
        self._marked.set()

    def told(self, route: str) -> bool:
        """Some sibling has told of something that it delivered."""
        return self._known[route].version > 0

    def covered(self, route: str, origin: str, sequence: int) -> bool:
        """A sibling has delivered this message."""
        return self._known[route].covers(origin, sequence)

    # -- running -------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._node.serve, self._topic, self._answer)
                nursery.start_soon(self._watch)
                nursery.start_soon(self._greet)
                nursery.start_soon(self._tell)
                task_status.started()
        finally:
            self._connected = None
            with trio.move_on_after(_FAREWELL, shield=True):
                for sibling in list(self._siblings.values()):
                    await self._take_leave(sibling)

    async def _take_leave(self, sibling: _Sibling) -> None:
        """The others need not wait to miss us."""
        await self._tell_one(sibling)
        try:
            await self._node.request(self._topic, {"connected": None}, to=sibling.peer, timeout=_FAREWELL)
        except mesh.MeshError:
            pass  # it is gone itself, or the node is: it will miss us

    async def _answer(self, request: mesh.Request) -> Any:
        said = request.value
        if not isinstance(said, dict) or request.sender.id == self._node.id:
            return None
        self._heard(request.sender.id, said.get("connected"))
        for route, marks in _well_formed(said.get("marks")):
            known = self._known.get(route)
            if known is not None:
                for origin, first, last in marks:
                    known.delivered(origin, first, last)
                self._confirmed(route)
        return {"connected": self._connected}

    def _heard(self, peer: str, connected: Any) -> None:
        since = connected if isinstance(connected, float) and math.isfinite(connected) else None
        sibling = self._siblings.get(peer)
        if sibling is None:
            self._siblings[peer] = _Sibling(peer, since, trio.current_time(), {})
            log.info("%s: a sibling bridge is there: %s", self._topic, peer)
            self._hello_now.set()
            self._change()
            return
        sibling.heard = trio.current_time()
        if sibling.connected != since:
            sibling.connected = since
            self._change()

    def _gone(self, peer: str) -> None:
        if self._siblings.pop(peer, None) is not None:
            log.warning("%s: the sibling bridge %s is gone", self._topic, peer)
            self._change()

    async def _watch(self) -> None:
        async for event in self._node.watch_peers():
            peer = event.peer.id
            if isinstance(event, mesh.PeerSuspected):
                self._suspects.add(peer)
            else:
                self._suspects.discard(peer)
            if isinstance(event, mesh.PeerLeft):
                self._gone(peer)
            elif peer in self._siblings:
                self._change()
            elif isinstance(event, mesh.PeerJoined):
                self._hello_now.set()

    async def _greet(self) -> None:
        while True:
            self._hello_now = trio.Event()
            try:
                async with self._node.request_many(
                    self._topic, {"connected": self._connected}, timeout=_INTERVAL
                ) as replies:
                    async for reply in replies:
                        if reply.error is None and reply.sender.id != self._node.id:
                            value = reply.value
                            if isinstance(value, dict):
                                self._heard(reply.sender.id, value.get("connected"))
            except mesh.NoResponders:
                pass
            silent = trio.current_time() - 4 * _INTERVAL
            for peer in [each.peer for each in self._siblings.values() if each.heard < silent]:
                self._gone(peer)
            if not self._asked:
                self._asked = True
                self._change()
            with trio.move_on_after(_INTERVAL):
                await self._hello_now.wait()

    async def _tell(self) -> None:
        while True:
            await self._marked.wait()
            self._marked = trio.Event()
            for sibling in list(self._siblings.values()):
                await self._tell_one(sibling)
            await trio.sleep(_SYNC)

    async def _tell_one(self, sibling: _Sibling) -> None:
        for route, marks in self._delivered.items():
            version = marks.version
            news = marks.since(sibling.told.get(route, 0))
            for start in range(0, len(news), _PER_MESSAGE):
                some = news[start : start + _PER_MESSAGE]
                try:
                    await self._node.request(
                        self._topic,
                        {"connected": self._connected, "marks": {route: some}},
                        to=sibling.peer,
                        timeout=_INTERVAL,
                    )
                except mesh.MeshError:
                    # Gone, or busy: it is told all of it again with the next marks.
                    self._marked.set()
                    return
            sibling.told[route] = version


def _well_formed(marks: Any) -> list[tuple[str, list[tuple[str, int, int]]]]:
    """What a sibling's marks say, as far as they have the form of marks."""
    if not isinstance(marks, dict):
        return []
    return [
        (route, [(each[0], each[1], each[2]) for each in ranges if _is_mark(each)])
        for route, ranges in marks.items()
        if isinstance(route, str) and isinstance(ranges, list)
    ]


def _is_mark(mark: Any) -> bool:
    return (
        isinstance(mark, list)
        and len(mark) == 3
        and isinstance(mark[0], str)
        and all(type(each) is int for each in mark[1:])
    )
