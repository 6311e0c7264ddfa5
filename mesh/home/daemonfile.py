"""Where the daemon of a home listens: ``daemon.json``, true for as long as ``daemon.lock`` is held.

The daemon holds the lock for its life.  Whoever wants its endpoints tries the lock: if it can
be had, what the file says is left from a daemon that died.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from mesh.core.fields import check_endpoint
from mesh.errors import CredentialError
from mesh.home.store import PrivateFolder

__all__ = ["MAX_ENDPOINTS", "announce", "claim", "endpoints", "endpoints_in"]

MAX_ENDPOINTS: Final = 64
"""Endpoints in one file: seeds, not a census."""

_FILE: Final = "daemon.json"
_LOCK: Final = "daemon.lock"
_PATIENCE: Final = 1.0  # seconds: who only asks whether a daemon runs holds its lock for an instant


@contextmanager
def claim(folder: PrivateFolder) -> Iterator[None]:
    """Be the daemon of this folder for the length of the block. Raises ``CredentialError`` if one runs."""
    with folder.locked():
        descriptor = folder.try_lock(_LOCK, _PATIENCE)
    if descriptor is None:
        raise CredentialError("a daemon runs in this home already", path=str(folder.path))
    try:
        yield
    finally:
        # The next daemon overwrites what cannot be removed; without the lock nobody believes it.
        with contextlib.suppress(CredentialError), folder.locked():
            folder.remove(_FILE)
        os.close(descriptor)


def announce(folder: PrivateFolder, listening: Iterable[str]) -> None:
    """Write the endpoints down."""
    kept = [each for each in listening if check_endpoint(each) is None][:MAX_ENDPOINTS]
    with folder.locked():
        folder.write(_FILE, {"pid": os.getpid(), "endpoints": kept})


def endpoints(folder: PrivateFolder) -> tuple[str, ...]:
    """The endpoints of the daemon that runs, if one does. It is only a hint: a damaged file is none."""
    try:
        value = folder.read(_FILE)
        if value is None:
            return ()
        descriptor = folder.try_lock(_LOCK, 0.0, shared=True)
    except CredentialError:
        return ()
    if descriptor is not None:
        os.close(descriptor)
        return ()
    return endpoints_in(value)


def endpoints_in(value: dict[str, Any]) -> tuple[str, ...]:
    """The list of endpoints in a file's object, as far as it is one."""
    listed = value.get("endpoints")
    if type(listed) is not list:
        return ()
    return tuple(each for each in listed[:MAX_ENDPOINTS] if check_endpoint(each) is None)
