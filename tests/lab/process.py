"""A program as a test sees it: started, waited for by what it prints, and surely ended.

Both outputs are read as they come, so that a program never blocks on a full pipe; ``expect`` waits
for a line, never for time to pass.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import trio

__all__ = ["Running", "keep_measuring_to_ourselves", "running"]

Output = Literal["stdout", "stderr"]

STOP_WITHIN = 5.0
"""Seconds that a program has after SIGTERM before it is killed, when a test leaves it running."""


_measuring: dict[str, str] = {}
"""What coverage put into the environment, so that every Python would be measured."""


def keep_measuring_to_ourselves() -> None:
    """From now on only programs that are to be ``measured`` are: it makes each start dearer by a half."""
    for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
        _measuring[name] = os.environ.pop(name)


class Running:
    """A running program. ``stdout`` and ``stderr`` hold every line so far."""

    def __init__(self, process: trio.Process, argv: Sequence[str]) -> None:
        self.process = process
        self.argv = list(argv)
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self._read: dict[Output, int] = {"stdout": 0, "stderr": 0}
        self._open: set[Output] = {"stdout", "stderr"}
        self._changed = trio.Event()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def ended(self) -> bool:
        """Whether both outputs are closed: nothing more will come."""
        return not self._open

    async def expect(self, pattern: str, *, on: Output = "stdout", within: float = 60.0) -> re.Match[str]:
        """The next line of ``on`` that contains ``pattern``. Fails after ``within`` seconds, or at its end."""
        lines = getattr(self, on)
        with trio.move_on_after(within):
            while True:
                while self._read[on] < len(lines):
                    line = lines[self._read[on]]
                    self._read[on] += 1
                    if found := re.search(pattern, line):
                        return found
                if on not in self._open:
                    raise AssertionError(f"{self} ended without {pattern!r} on {on}\n{self.report()}")
                await self._changed.wait()
        raise AssertionError(f"{self} did not print {pattern!r} on {on} within {within} s\n{self.report()}")

    async def changed(self) -> None:
        """Return when it has printed more, or closed an output."""
        await self._changed.wait()

    async def send(self, text: str) -> None:
        """Write to its standard input."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(text.encode())

    async def close_stdin(self) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.aclose()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def wait(self, *, within: float = 60.0) -> int:
        """Its exit code, after all it printed has been read. Fails after ``within`` seconds."""
        with trio.move_on_after(within):
            code = await self.process.wait()
            while self._open:
                await self._changed.wait()
            return code
        raise AssertionError(f"{self} did not end within {within} s\n{self.report()}")

    def report(self) -> str:
        """Everything it printed, for a failure's text."""
        return "\n".join([f"--- stdout of {self}", *self.stdout, f"--- stderr of {self}", *self.stderr])

    def __str__(self) -> str:
        return f"{' '.join(self.argv)[:120]!r} (pid {self.pid})"

    async def _collect(self, name: Output, stream: trio.abc.ReceiveStream) -> None:
        lines: list[str] = getattr(self, name)
        rest = b""
        async for chunk in stream:
            *whole, rest = (rest + chunk).split(b"\n")
            lines.extend(line.decode(errors="replace").rstrip("\r") for line in whole)
            self._wake()
        if rest:
            lines.append(rest.decode(errors="replace"))
        self._open.discard(name)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


@asynccontextmanager
async def running(
    argv: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    measured: bool = False,
) -> AsyncIterator[Running]:
    """Run a program for as long as the block lasts; then SIGTERM, and SIGKILL if that is not enough.

    ``env`` is added to this process's own. ``measured`` counts its lines for the coverage report, which
    makes it start and run slower: not for tests of time.
    """
    words = [os.fspath(word) for word in argv]
    environment = {**os.environ, **(_measuring if measured else {}), **(env or {})}
    process = await trio.lowlevel.open_process(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=cwd,
    )
    program = Running(process, words)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(program._collect, "stdout", process.stdout)
            nursery.start_soon(program._collect, "stderr", process.stderr)
            try:
                yield program
            finally:
                with trio.CancelScope(shield=True):
                    await _stop(process)
                # A grandchild may still hold the pipes: what is in them now is enough.
                nursery.cancel_scope.deadline = trio.current_time() + STOP_WITHIN
    finally:
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with trio.CancelScope(shield=True):
                    await stream.aclose()


async def _stop(process: trio.Process) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)  # a paused program could not hear the other
        process.terminate()
        with trio.move_on_after(STOP_WITHIN):
            await process.wait()
    if process.poll() is None:
        process.kill()
        await process.wait()
