"""What waits on disk for a broker: SQLite in WAL mode, bounded, one file a bridge.

    append (mesh side) → packets, in order of arrival ─┬→ next → sent and confirmed → remove
                                                       └→ written meanwhile, unless removed first

What came together is one packet and one row.  The newest packets are in memory too (the *head*), so that a
bridge whose broker keeps up reads nothing back; each is written as soon as the disk has done with those before it,
and is sent meanwhile.  A packet that was written survives the death of the process (``synchronous=NORMAL``: the
last commits before a power cut may be missing, the file is never broken).  Work with SQLite happens in a
worker thread, one step at a time, all that is due in one transaction.

When it is full, ``block`` lets ``append`` wait (and with it the subscription), ``drop_oldest`` and ``drop_newest``
count what they drop.

``slots`` opens it.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import trio

from bridges.records import (
    Entry,
    decode_entries,
    decode_ranges,
    encode_entries,
    encode_ranges,
    ranges_of,
)
from bridges.settings import WhenFull

__all__ = ["Packet", "Spool", "SpoolStatistics", "connect"]

log = logging.getLogger("mesh.bridges")

T = TypeVar("T")

_ROW_BYTES: Final = 64
"""Counted for a packet beside its payload: SQLite's own share."""

_UNWRITTEN: Final = 8
"""Packets that wait for the disk before ``append`` waits too: what the death of the process may cost."""

_HEAD: Final = 64
"""Packets of a route that are kept in memory: some more than are under way to a broker."""

_MISSES: Final = 64
"""Packets that siblings have not delivered before it is believed that they have delivered none behind them."""

_HEAD_BYTES: Final = 16 << 20
"""Bytes of their payloads."""

_DISK_RETRY: Final = 1.0
"""Seconds until a disk that refused is tried again."""

_PAGE: Final = 32 << 10
"""Bytes of a page of SQLite: a packet is some ten or hundred KiB, and each page of it costs a system call."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS packets (
    number INTEGER PRIMARY KEY, route TEXT NOT NULL, stored REAL NOT NULL, count INTEGER NOT NULL,
    size INTEGER NOT NULL, ranges BLOB NOT NULL, payload BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS packets_route ON packets (route, number);
"""


@dataclass(slots=True)
class Packet:
    """Messages of a route that came together. Nobody but the spool changes one."""

    number: int
    """Its place: those of later ones are greater."""
    route: str
    stored: float
    """When it came, in seconds since the Unix epoch."""
    count: int
    """Messages in it."""
    size: int
    """Bytes that it takes of the spool."""
    ranges: Mapping[str, tuple[int, int]]
    """Of each origin the first and the last number in it."""
    entries: Sequence[Entry] = ()
    fault: str = ""
    """Why there are no entries, if they cannot be read."""
    payload: bytes | None = field(default=None, repr=False)
    """Until it is written."""


@dataclass(frozen=True, slots=True)
class SpoolStatistics:
    """``age`` is the seconds that the oldest message has waited; ``dropped`` fell to the policy for a full spool;
    ``full`` says that it was full, until it is half empty."""

    messages: int
    bytes: int
    limit: int
    age: float
    dropped: int
    full: bool


class Spool:
    """Made by ``slots.open_spool``; ``run`` writes. Sizes are in bytes."""

    def __init__(self, database: sqlite3.Connection, limit: int, when_full: WhenFull) -> None:
        self._database = database
        self._limit = limit
        self.blocks = when_full == "block"
        self._when_full = when_full
        self._lock = trio.Lock()
        self._room = trio.lowlevel.ParkingLot()
        self._settled = trio.lowlevel.ParkingLot()  # who waits for the disk
        self._due = trio.Event()
        self._unwritten: dict[int, Packet] = {}
        self._writing: set[int] = set()
        self._unwanted: list[int] = []  # rows to be deleted
        self._head: dict[str, dict[int, Packet]] = {}
        self.messages, self.bytes, self._oldest, last = database.execute(
            "SELECT coalesce(sum(count), 0), coalesce(sum(size), 0), min(stored), coalesce(max(number), 0)"
            " FROM packets"
        ).fetchone()
        self._number: int = last
        self._deepest: dict[str, int] = dict(  # of each route, up to where packets are on disk alone
            database.execute("SELECT route, max(number) FROM packets GROUP BY route")
        )
        self.dropped = 0
        self.full = False

    # -- in ------------------------------------------------------------------------------

    async def append(self, route: str, entries: Sequence[Entry]) -> None:
        """Take messages at the end. Waits for room if that is the policy, else counts what is ``dropped``.

        Returns when few enough wait for the disk; not for these to be written. Raises ``ValueError``, having taken
        nothing, for text that cannot be stored.
        """
        payload = encode_entries(entries)
        size = len(payload) + _ROW_BYTES
        while self.bytes + size > self._limit:
            self.full = True
            if len(entries) > 1 and (size > self._limit or self._when_full != "drop_oldest"):
                half = len(entries) // 2  # as many as fit
                await self.append(route, entries[:half])
                await self.append(route, entries[half:])
                return
            if size > self._limit or self._when_full == "drop_newest":
                self.dropped += len(entries)
                return
            if self._when_full == "drop_oldest":
                await self._drop_oldest(size)
            else:
                await self._room.park()
        self._number += 1
        packet = Packet(
            self._number, route, time.time(), len(entries), size, ranges_of(entries), entries, payload=payload
        )
        self._unwritten[packet.number] = packet
        self._head.setdefault(route, {})[packet.number] = packet
        self.messages += packet.count
        self.bytes += size
        self._shorten(route)
        self._due.set()
        await trio.lowlevel.checkpoint()
        while len(self._unwritten) > _UNWRITTEN:
            await self._settled.park()

    def _shorten(self, route: str) -> None:
        """Let go of what need not be in memory: the oldest that lie on the disk."""
        head = self._head[route]
        size = sum(packet.size for packet in head.values())
        for number in list(head):
            if (len(head) <= _HEAD and size <= _HEAD_BYTES) or number in self._unwritten:
                return
            size -= head.pop(number).size
            self._deepest[route] = number

    async def _drop_oldest(self, size: int) -> None:
        """Make room, an eighth of the spool at once: one by one would cost a transaction a packet."""
        size = min(self._limit, max(size, self._limit // 8))
        oldest = await self._step(self._oldest_rows, size)
        self.dropped += sum(count for _, count in oldest)
        self.remove(number for number, _ in oldest)
        await self.flush()
        self.full = True  # what the room was made for takes it again

    def _oldest_rows(self, size: int) -> list[tuple[int, int]]:
        oldest = []
        for number, count, each in self._database.execute(
            "SELECT number, count, size FROM packets ORDER BY number"
        ):
            oldest.append((number, count))
            size -= each
            if size <= 0:
                break
        return oldest

    # -- out -----------------------------------------------------------------------------

    async def next(self, route: str, after: int, most: int) -> list[Packet]:
        """The oldest packets of a route behind the place ``after``: at least one if there is any, and no more
        than ``most`` messages otherwise. They stay."""
        deepest = self._deepest.get(route, 0)
        if after < deepest:
            packets = await self._step(self._read, route, after, deepest, most)
            if packets:
                return packets
            if after == 0 and self._deepest.get(route) == deepest:
                del self._deepest[route]  # all that was on the disk alone is gone
            after = deepest
        found: list[Packet] = []
        for number, packet in self._head.get(route, {}).items():
            if number > after:
                most -= packet.count
                if found and most < 0:
                    break
                found.append(packet)
        return found

    def _read(self, route: str, after: int, until: int, most: int) -> list[Packet]:
        packets: list[Packet] = []
        for number, stored, count, size, ranges, payload in self._database.execute(
            "SELECT number, stored, count, size, ranges, payload FROM packets"
            " WHERE route = ? AND number > ? AND number <= ? ORDER BY number",
            (route, after, until),
        ):
            most -= count
            if packets and most < 0:
                break
            packet = Packet(number, route, stored, count, size, {})
            try:
                packet.ranges = decode_ranges(ranges)
                packet.entries = decode_entries(payload)
            except ValueError as error:
                packet.fault = str(error)
            packets.append(packet)
        return packets

    async def covered(self, route: str, by: Callable[[str, int], bool]) -> list[int]:
        """The numbers of those among the oldest packets of which ``by`` says yes to all that is in them."""
        return await self._step(self._covered, route, by)

    def _covered(self, route: str, by: Callable[[str, int], bool]) -> list[int]:
        found = []
        misses = 0
        for number, ranges in self._database.execute(
            "SELECT number, ranges FROM packets WHERE route = ? ORDER BY number", (route,)
        ):
            try:
                each = decode_ranges(ranges)
            except ValueError:
                continue  # whoever sends it will say so
            if all(by(origin, first) and by(origin, last) for origin, (first, last) in each.items()):
                found.append(number)
                continue
            misses += 1
            if misses == _MISSES:
                break
        return found

    def remove(self, numbers: Iterable[int]) -> None:
        """Forget these packets: the broker has them, or somebody else has seen to it."""
        for number in numbers:
            for head in self._head.values():
                head.pop(number, None)
            packet = self._unwritten.get(number)
            if packet is not None and number not in self._writing:
                del self._unwritten[number]  # it need not be written any more
                self._forget(packet.count, packet.size)
            else:
                self._unwanted.append(number)
        self._settled.unpark_all()
        self._due.set()

    def _forget(self, messages: int, size: int) -> None:
        self.messages -= messages
        self.bytes -= size
        if self.bytes * 2 < self._limit:
            self.full = False
        self._room.unpark_all()

    # -- the disk ------------------------------------------------------------------------

    async def run(self) -> None:
        """Write what is due, until cancelled."""
        while True:
            await self._due.wait()
            await self.flush()

    async def flush(self) -> None:
        """Return when all that was due is on the disk. A disk that refuses is tried again, while the mesh's side waits."""
        while True:
            self._due = trio.Event()
            try:
                await self._step(lambda: None)
            except sqlite3.OperationalError as error:  # it is full, mostly
                log.error("the spool cannot be written: %s", error)  # noqa: TRY400 - its traceback says nothing more
                await trio.sleep(_DISK_RETRY)
            else:
                return

    async def _step(self, step: Callable[..., T], *arguments: Any) -> T:
        """Write what is due, and then ``step``, in the thread."""
        async with self._lock:
            packets, unwanted = list(self._unwritten.values()), self._unwanted
            self._writing, self._unwanted = set(self._unwritten), []
            written = False
            try:
                # Shielded: a cancelled step would go on in its thread beside the next one.
                with trio.CancelScope(shield=True):
                    gone, result = await trio.to_thread.run_sync(
                        self._transact, packets, unwanted, step, arguments
                    )
                written = True
            finally:
                self._writing = set()
                if not written:
                    self._unwanted = unwanted + self._unwanted
            for packet in packets:
                packet.payload = None
                self._unwritten.pop(packet.number, None)
            for messages, size in gone:
                self._forget(messages, size)
            self._settled.unpark_all()
            return result

    def _transact(
        self, packets: Sequence[Packet], unwanted: Sequence[int], step: Callable[..., T], arguments: Any
    ) -> tuple[list[tuple[int, int]], T]:
        gone: list[tuple[int, int]] = []
        if packets or unwanted:
            with self._database:
                self._database.executemany(
                    "INSERT INTO packets VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [
                        (each.number, each.route, each.stored, each.count, each.size, encode_ranges(each.ranges),
                         each.payload)
                        for each in packets
                    ],
                )  # fmt: skip
                for number in unwanted:
                    gone += self._database.execute(
                        "DELETE FROM packets WHERE number = ? RETURNING count, size", (number,)
                    )
            (self._oldest,) = self._database.execute(
                "SELECT stored FROM packets ORDER BY number LIMIT 1"
            ).fetchone() or (None,)
        return gone, step(*arguments)

    def statistics(self) -> SpoolStatistics:
        oldest = self._oldest
        if oldest is None and self._unwritten:
            oldest = next(iter(self._unwritten.values())).stored
        age = 0.0 if oldest is None else max(0.0, time.time() - oldest)
        return SpoolStatistics(self.messages, self.bytes, self._limit, age, self.dropped, self.full)


def connect(path: Path) -> sqlite3.Connection:
    """The database in this file, made if it is not there. Raises ``OSError``, ``sqlite3.Error``."""
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))  # payloads are nobody else's business
    database = sqlite3.connect(path, check_same_thread=False)
    database.execute(f"PRAGMA page_size={_PAGE}")
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=NORMAL")
    database.executescript(_SCHEMA)
    return database
