"""A folder of private files: read only if they are really private, written whole or not at all.

    reading:  open → owner and mode of what was opened → bytes → JSON → dict
    writing:  lock → temporary file (O_EXCL, 0600) → fsync → rename → fsync of the folder

A reader needs no lock: it sees the old file or the new one.  Whoever changes what it has
read holds the lock (``flock`` on a file of its own, so that it ends with its process however that ends).
Every failure is a ``CredentialError`` that names the path and what to do.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from mesh.errors import CredentialError

__all__ = ["LOCK_PATIENCE", "PrivateFolder"]

LOCK_PATIENCE: Final = 10.0
"""Seconds to wait for the lock. Who holds it writes a file or two; longer means that it is stopped."""

_LOCK_RETRY: Final = 0.01
_FORMAT: Final = 1
_MAX_BYTES: Final = 16 << 20  # far beyond what is ever written here


class PrivateFolder:
    """A folder (0700) with JSON files (0600) that belong to the user who runs this process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread_lock = threading.RLock()
        self._depth = 0

    # -- reading ---------------------------------------------------------------

    def read(self, name: str) -> dict[str, Any] | None:
        """The file's object, None if there is no such file."""
        path = self.path / name
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failed("cannot be read", path, error) from None
        try:
            self._check_folder()
            _check_private(path, os.fstat(descriptor))
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(_MAX_BYTES)
        except OSError as error:
            raise _failed("cannot be read", path, error) from None
        finally:
            os.close(descriptor)
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            raise damaged(path, "it is not JSON") from None
        if type(value) is not dict:
            raise damaged(path, "it is not a JSON object")
        if value.get("format") != _FORMAT:
            raise damaged(path, f"it is of format {value.get('format')!r}, and this program reads {_FORMAT}")
        return value

    def stamp(self, name: str) -> tuple[int, int] | None:
        """Something that changes whenever the file does; None if there is no such file."""
        try:
            status = (self.path / name).stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino

    # -- writing ---------------------------------------------------------------

    def write(self, name: str, value: dict[str, Any]) -> None:
        """Replace the file, or leave it as it is. The lock must be held."""
        assert self._depth, "the lock must be held"
        path = self.path / name
        temporary = self.path / f".{name}.new"
        data = json.dumps({"format": _FORMAT, **value}, indent=1).encode() + b"\n"
        try:
            # Whoever left one there died while it held the lock that we hold now.
            temporary.unlink(missing_ok=True)
            descriptor = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, 0o600)  # whatever the umask took away
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            temporary.replace(path)
            self._sync()
        except OSError as error:
            raise _failed("cannot be written", path, error) from None

    def remove(self, name: str) -> None:
        """Delete the file if it is there. The lock must be held."""
        assert self._depth, "the lock must be held"
        path = self.path / name
        try:
            path.unlink(missing_ok=True)
            self._sync()
        except OSError as error:
            raise _failed("cannot be removed", path, error) from None

    def _sync(self) -> None:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    # -- the lock --------------------------------------------------------------

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against other processes and threads. May be nested. Makes the folder if need be."""
        if not self._thread_lock.acquire(timeout=LOCK_PATIENCE):
            raise CredentialError("another thread keeps it locked", path=str(self.path))
        try:
            if self._depth:
                self._depth += 1
                try:
                    yield
                finally:
                    self._depth -= 1
                return
            descriptor = self._lock()
            self._depth = 1
            try:
                yield
            finally:
                self._depth = 0
                os.close(descriptor)  # which unlocks it
        finally:
            self._thread_lock.release()

    def _lock(self) -> int:
        self._make()
        descriptor = self.try_lock("lock", LOCK_PATIENCE)
        if descriptor is None:
            raise CredentialError(
                f"another process has kept it locked for {LOCK_PATIENCE:g} s: is one stopped?",
                path=str(self.path / "lock"),
            )
        return descriptor

    def try_lock(self, name: str, patience: float, *, shared: bool = False) -> int | None:
        """Lock the file of this name; closing the descriptor unlocks it. None if others keep it that long."""
        path = self.path / name
        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        deadline = time.monotonic() + patience
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise _failed("cannot be locked", path, error) from None
        locked = False
        try:
            while not locked:
                try:
                    fcntl.flock(descriptor, how | fcntl.LOCK_NB)
                    locked = True
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        return None
                    time.sleep(_LOCK_RETRY)
            return descriptor
        except OSError as error:
            raise _failed("cannot be locked", path, error) from None
        finally:
            if not locked:
                os.close(descriptor)

    # -- the folder --------------------------------------------------------------

    def _make(self) -> None:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            # One that somebody made for us, and with nothing in it yet, is made private too.
            if stat.S_IMODE(self.path.stat().st_mode) & 0o077 and not any(self.path.iterdir()):
                self.path.chmod(0o700)
        except FileExistsError:
            raise CredentialError("this is not a folder", path=str(self.path)) from None
        except OSError as error:
            raise _failed("cannot be used as the home folder", self.path, error) from None
        self._check_folder()

    def _check_folder(self) -> None:
        """Others may not change what is in it. (That they see the names of private files is no harm.)"""
        try:
            status = self.path.stat()
        except OSError as error:
            raise _failed("cannot be read", self.path, error) from None
        _check_owner(self.path, status)
        if stat.S_IMODE(status.st_mode) & 0o022:
            raise CredentialError(
                f"others can write to this folder: chmod 700 {self.path}", path=str(self.path)
            )


def damaged(path: Path, what: str) -> CredentialError:
    """The error for a file that cannot be understood."""
    return CredentialError(
        f"the file is damaged ({what}): restore it from a backup, or move it away to start over",
        path=str(path),
    )


def _failed(what: str, path: Path, error: OSError) -> CredentialError:
    return CredentialError(f"{what}: {error.strerror or error}", path=str(path))


def _check_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise CredentialError(
            f"it belongs to user {status.st_uid}, and this process runs as user {os.geteuid()}: "
            "run it as the owner, or choose another home",
            path=str(path),
        )


def _check_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise CredentialError("this is not a file", path=str(path))
    _check_owner(path, status)
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise CredentialError(
            f"others can read this secret: chmod 600 {path} (and start over if somebody may have read it)",
            path=str(path),
        )
