"""What an adapter of a system is: its four roles, each a plain function of ``Control`` and ``Workload``.

A role runs in a process of its own, from beginning to end.  In this order it

1. opens, and if it is the first of the two calls ``control.listening(details)``; the second
   finds these details in ``control.details``;
2. calls ``control.ready()`` when the other side is there *and would not miss a message*;
3. a source waits for ``control.go``; a sink begins at once, and ends early on ``control.stop``;
4. does the work inside ``with control.measured():``;
5. calls ``control.done(...)`` with its raw numbers, waits for ``control.close`` and returns.

``go``, ``stop`` and ``close`` are ``threading.Event``s: wait for one in a thread, or ask it.
An adapter imports its library inside the roles, so that listing the systems imports none.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import trio

from benchmarks.workload import Role, Workload

__all__ = ["Adapter", "Control", "RoleFunction", "free_port", "program", "server", "stops", "wait"]


class Control(Protocol):
    """A role's line to the harness."""

    details: Mapping[str, Any]
    go: Event
    stop: Event
    close: Event

    def listening(self, details: Mapping[str, Any]) -> None:
        """Where the second role finds the first."""

    def ready(self) -> None:
        """The other side is there."""

    def measured(self) -> AbstractContextManager[None]:
        """Around the work, in the thread that does it: CPU time, and the profile if one is wanted."""

    def done(self, numbers: Mapping[str, Any]) -> None:
        """The raw numbers of this role."""


RoleFunction = Callable[[Control, Workload], None]


@dataclass(frozen=True, slots=True)
class Adapter:
    """One system. ``sealed``: what travels is encrypted and authenticated.

    ``distributions`` are the packages whose versions belong into a result, ``modules`` those
    that must be importable, ``programs`` the servers that must be there (``program`` finds them). ``share`` is what of a
    one-way count it does: a slow one need not keep the others waiting for the rate that it shows soon.
    """

    name: str
    title: str
    sealed: bool
    roles: Mapping[Role, RoleFunction]
    distributions: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    share: float = 1.0

    def missing(self) -> str | None:
        """Why it can't run here, None if it can."""
        absent = [name for name in self.modules if importlib.util.find_spec(name) is None]
        absent += [name for name in self.programs if program(name) is None]
        return f"{', '.join(absent)} not installed" if absent else None


def program(name: str) -> str | None:
    """Where a server's program is: beside this Python (a wheel may bring it) or on the PATH."""
    beside = str(Path(sys.executable).parent)  # a virtual environment need not be activated
    return shutil.which(name, path=os.pathsep.join([beside, os.environ.get("PATH", "")]))


def free_port() -> int:
    """A port of loopback that was free a moment ago, for servers that cannot tell which one they took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(name: str, *arguments: str, port: int) -> Iterator[None]:
    """Run a server until the block ends; inside, it listens on ``port``."""
    path = program(name)
    assert path is not None
    with subprocess.Popen(
        [path, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            for _ in range(200):
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.05)  # no server says when it listens in a way that all share
            yield
        finally:
            process.terminate()


async def wait(event: Event) -> None:
    """Wait in Trio for one of the harness's words."""
    import trio

    await trio.to_thread.run_sync(event.wait, abandon_on_cancel=True)


@contextmanager
def stops(control: Control, nursery: trio.Nursery) -> Iterator[None]:
    """Inside, ``control.stop`` cancels what is awaited: how a Trio sink ends early."""
    import trio

    scope = trio.CancelScope()

    async def watch() -> None:
        await wait(control.stop)
        scope.cancel()

    nursery.start_soon(watch)
    with scope:
        yield
