"""What waits on disk for a broker: SQLite in WAL mode, bounded, one file a bridge.

    append (mesh side) → rows in order of arrival → peek → sent and confirmed → remove

A row survives the death of the process (``synchronous=NORMAL``: the last commits before a power cut may be
missing, the file is never broken).  Work with SQLite happens in a worker thread, one step at a time, a batch
a transaction.

When it is full, ``block`` lets ``append`` wait (and with it the subscription, and with that reliable publishers),
``drop_oldest`` and ``drop_newest`` count what they drop.

Several bridges of one name may run from one folder: each takes the first slot that nobody holds (``flock``), and
takes over what a dead one left in the others.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, TypeVar

import trio

from bridges.settings import WhenFull
from mesh.errors import ConfigError

__all__ = ["Row", "Spool", "SpoolStatistics", "open_spool"]

log = logging.getLogger("mesh.bridges")

T = TypeVar("T")

_SLOTS: Final = 16
"""Bridges of one name in one folder; more would be a mistake."""

_ROW_BYTES: Final = 64
"""Counted for a row beside its payload: SQLite's own share."""

_DISK_RETRY: Final = 1.0
"""Seconds until a disk that refused is tried again."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS spool (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    route TEXT NOT NULL, origin TEXT NOT NULL, sequence INTEGER NOT NULL, stored REAL NOT NULL,
    size INTEGER NOT NULL, payload BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS spool_route ON spool (route, number);
"""


class Row(NamedTuple):
    """One message. ``origin`` and ``sequence`` say which of the mesh's it is; ``number`` is its place here."""

    origin: str
    sequence: int
    payload: bytes
    number: int = 0
    stored: float = 0.0
    """When it came, in seconds since the Unix epoch."""

    @property
    def size(self) -> int:
        return len(self.payload) + _ROW_BYTES


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
    """Made by ``open_spool``. Sizes are in bytes."""

    def __init__(self, database: sqlite3.Connection, limit: int, when_full: WhenFull) -> None:
        self._database = database
        self._limit = limit
        self._when_full = when_full
        self._lock = trio.Lock()
        self._room = trio.lowlevel.ParkingLot()
        self.messages, self.bytes, oldest = database.execute(
            "SELECT count(*), coalesce(sum(size), 0), min(stored) FROM spool"
        ).fetchone()
        self._oldest: float | None = oldest
        self.dropped = 0
        self.full = False

    async def _step(self, step: Callable[..., T], *arguments: Any) -> T:
        # Shielded: a cancelled step would go on in its thread beside the next one.
        async with self._lock:
            scope = trio.CancelScope(shield=True)
            with scope:
                return await trio.to_thread.run_sync(step, *arguments)
        raise AssertionError("nothing cancels a shielded scope")

    # -- in ------------------------------------------------------------------------------

    async def append(self, route: str, rows: Sequence[Row]) -> None:
        """Store rows at the end. Waits for room if that is the policy, else counts what is ``dropped``."""
        at = 0
        while at < len(rows):
            fitting = self._fitting(rows[at:])
            if fitting:
                if await self._insert(route, rows[at : at + fitting]):
                    at += fitting
                continue
            self.full = True
            if rows[at].size > self._limit:  # it never fits
                self.dropped += 1
                at += 1
            elif self._when_full == "drop_newest":
                self.dropped += len(rows) - at
                return
            elif self._when_full == "drop_oldest":
                await self._drop_oldest(sum(row.size for row in rows[at:]))
            else:
                await self._room.park()

    def _fitting(self, rows: Sequence[Row]) -> int:
        room = self._limit - self.bytes
        for count, row in enumerate(rows):
            room -= row.size
            if room < 0:
                return count
        return len(rows)

    async def _insert(self, route: str, rows: Sequence[Row]) -> bool:
        now = time.time()
        values = [(route, row.origin, row.sequence, now, row.size, row.payload) for row in rows]
        try:
            await self._step(self._write, "INSERT INTO spool VALUES (NULL, ?, ?, ?, ?, ?, ?)", values)
        except sqlite3.OperationalError as error:
            # A full disk. The rows are still here: tried again, while the mesh's side waits.
            log.error("the spool cannot be written: %s", error)  # noqa: TRY400 - its traceback says nothing more
            await trio.sleep(_DISK_RETRY)
            return False
        self.messages += len(rows)
        self.bytes += sum(row.size for row in rows)
        if self._oldest is None:
            self._oldest = now
        return True

    def _write(self, statement: str, values: Sequence[tuple[Any, ...]]) -> None:
        with self._database:
            self._database.executemany(statement, values)

    async def _drop_oldest(self, size: int) -> None:
        """Make room, an eighth of the spool at once: one by one would cost a transaction a message."""
        size = min(self._limit, max(size, self._limit // 8))
        numbers = await self._step(self._oldest_numbers, size)
        self.dropped += len(numbers)
        await self.remove(numbers)

    def _oldest_numbers(self, size: int) -> list[int]:
        numbers = []
        for number, each in self._database.execute("SELECT number, size FROM spool ORDER BY number"):
            numbers.append(number)
            size -= each
            if size <= 0:
                break
        return numbers

    # -- out -----------------------------------------------------------------------------

    async def peek(self, route: str, most: int, *, after: int = 0) -> list[Row]:
        """The oldest rows of a route behind the place ``after``; they stay."""
        return await self._step(self._read, route, most, after)

    def _read(self, route: str, most: int, after: int) -> list[Row]:
        return [
            Row(*found)
            for found in self._database.execute(
                "SELECT origin, sequence, payload, number, stored FROM spool"
                " WHERE route = ? AND number > ? ORDER BY number LIMIT ?",
                (route, after, most),
            )
        ]

    async def remove(self, numbers: Sequence[int]) -> None:
        """Forget these rows: the broker has them, or somebody else has seen to it."""
        if not numbers:
            return
        self.messages, self.bytes, self._oldest = await self._step(self._delete, numbers)
        if self.bytes * 2 < self._limit:
            self.full = False
        self._room.unpark_all()

    def _delete(self, numbers: Sequence[int]) -> tuple[int, int, float | None]:
        with self._database:
            sizes: list[int] = []
            for start in range(0, len(numbers), 500):  # SQLite of old binds at most 999
                some = numbers[start : start + 500]
                places = ",".join("?" * len(some))
                sizes.extend(
                    size
                    for (size,) in self._database.execute(
                        f"DELETE FROM spool WHERE number IN ({places}) RETURNING size",  # noqa: S608 - places only
                        some,
                    )
                )
            (oldest,) = self._database.execute(
                "SELECT stored FROM spool ORDER BY number LIMIT 1"
            ).fetchone() or (None,)
        return self.messages - len(sizes), self.bytes - sum(sizes), oldest

    def statistics(self) -> SpoolStatistics:
        age = 0.0 if self._oldest is None else max(0.0, time.time() - self._oldest)
        return SpoolStatistics(self.messages, self.bytes, self._limit, age, self.dropped, self.full)


# -- opening --------------------------------------------------------------------------------


@asynccontextmanager
async def open_spool(folder: Path, name: str, *, limit: int, when_full: WhenFull) -> AsyncIterator[Spool]:
    """The spool of this name in ``folder`` (made if it is not there). Raises ``ConfigError``."""
    files: list[IO[bytes]] = []
    database: sqlite3.Connection | None = None
    try:
        try:
            database = await trio.to_thread.run_sync(_open, folder, name, files)
        except (OSError, sqlite3.Error) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ConfigError(f"{folder}: no spool can be kept there: {reason}", key="spool.folder") from None
        yield Spool(database, limit, when_full)
    finally:
        if database is not None:
            database.close()
        for file in files:
            file.close()


def _open(folder: Path, name: str, locks: list[IO[bytes]]) -> sqlite3.Connection:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    database: sqlite3.Connection | None = None
    for slot in range(1, _SLOTS + 1):
        path = folder / f"{name}-{slot}.spool"
        if database is not None and not path.exists():
            continue
        lock = _locked(path.with_suffix(".lock"))
        if lock is None:
            continue
        if database is None:
            locks.append(lock)  # held until the spool is closed
            database = _connect(path)
        else:
            try:
                _adopt(database, path)
            finally:
                lock.close()
    if database is None:
        raise OSError(None, f"{_SLOTS} bridges of the name {name} run from it already")
    return database


def _locked(path: Path) -> IO[bytes] | None:
    """The file, locked; None if another process has it. (The lock ends with the process, however it ends.)"""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "rb+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _connect(path: Path) -> sqlite3.Connection:
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))  # payloads are nobody else's business
    database = sqlite3.connect(path, check_same_thread=False)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=NORMAL")
    database.executescript(_SCHEMA)
    return database


def _adopt(database: sqlite3.Connection, path: Path) -> None:
    """Take over what a bridge left that is dead now. Twice is possible, never not at all."""
    left = _connect(path)
    rows = left.execute("SELECT route, origin, sequence, stored, size, payload FROM spool ORDER BY number")
    with database:
        database.executemany("INSERT INTO spool VALUES (NULL, ?, ?, ?, ?, ?, ?)", rows)
    left.close()
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
