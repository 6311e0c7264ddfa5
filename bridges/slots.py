"""Where spools lie: one file a bridge in a folder, whoever lives or dies.

Several bridges of one name may run from one folder: each takes the first slot that nobody holds (``flock``), and
takes over what a dead one left in the others.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Final

import trio

from bridges.settings import WhenFull
from bridges.spool import Spool, connect
from mesh.errors import ConfigError

__all__ = ["open_spool"]

_SLOTS: Final = 16
"""Bridges of one name in one folder; more would be a mistake."""

_LAST_WRITE: Final = 5.0
"""Seconds for the last packets to be written when the spool is closed, whatever the disk does."""


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
        spool = Spool(database, limit, when_full)
        try:
            yield spool
        finally:
            with trio.move_on_after(_LAST_WRITE, shield=True):
                await spool.flush()
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
            database = connect(path)
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


def _adopt(database: sqlite3.Connection, path: Path) -> None:
    """Take over what a bridge left that is dead now. Twice is possible, never not at all."""
    left = connect(path)
    (last,) = database.execute("SELECT coalesce(max(number), 0) FROM packets").fetchone()
    rows = left.execute(
        "SELECT number + ?, route, stored, count, size, ranges, payload FROM packets", (last,)
    )
    with database:
        database.executemany("INSERT INTO packets VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    left.close()
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
