"""Where the time goes: a profile of both processes of a run, on disk and as a short list.

``cprofile`` counts every call from inside (exact in counts, and it makes small functions look dearer than they are);
``py-spy`` samples from outside 500 times a second (true in proportions; needs py-spy installed and
the right to trace).  Numbers of a profiled run are no measurement.
"""

from __future__ import annotations

import os
import pstats
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import trio

from benchmarks.workload import Failed

__all__ = ["Profiler", "Profiling"]

Profiler = Literal["cprofile", "py-spy"]

_RATE = 500  # samples a second
_SHOWN = 18  # lines of a list


def _py_spy() -> str | None:
    beside = str(Path(sys.executable).parent)  # a virtual environment need not be activated
    return shutil.which("py-spy", path=os.pathsep.join([beside, os.environ.get("PATH", "")]))


class Profiling:
    """Profiles into ``folder`` by ``profiler``."""

    def __init__(self, folder: Path, profiler: Profiler) -> None:
        self._folder = folder
        self._profiler = profiler
        self._files: list[Path] = []

    @staticmethod
    def missing(profiler: Profiler) -> str | None:
        """Why this profiler can't be used here, None if it can."""
        if profiler == "py-spy" and _py_spy() is None:
            return "py-spy is not installed (pip install py-spy)"
        return None

    def _file(self, workload: str, role: str, suffix: str) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = (self._folder / f"{workload}-{role}{suffix}").resolve()
        self._files.append(path)
        return path

    def file_of_worker(self, workload: str, role: str) -> str | None:
        """Where the worker itself writes its profile, None if it doesn't."""
        return str(self._file(workload, role, ".prof")) if self._profiler == "cprofile" else None

    @asynccontextmanager
    async def watching(self, workload: str, role: str, pid: int) -> AsyncIterator[None]:
        """Sample the process from outside, for as long as the block lasts."""
        if self._profiler != "py-spy":
            yield
            return
        path = self._file(workload, role, ".folded")
        command = [
            _py_spy() or "py-spy",
            "record",
            "--pid",
            str(pid),
            "--rate",
            str(_RATE),
            "--format",
            "raw",
        ]
        sampler = await trio.lowlevel.open_process(
            [*command, "--output", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert sampler.stdout is not None
        try:
            said = await sampler.stdout.receive_some()  # it samples once it says so
            if b"Sampling" not in said:
                said += b"".join([some async for some in sampler.stdout])
                raise Failed(f"py-spy: {' '.join(said.decode(errors='replace').split())}")
            yield
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(10):
                if sampler.poll() is None:
                    sampler.send_signal(signal.SIGINT)
                async for _ in sampler.stdout:
                    pass
                await sampler.wait()
            if sampler.poll() is None:
                sampler.kill()

    def report(self) -> list[str]:
        """The lists, as lines of text."""
        lines: list[str] = []
        for path in self._files:
            if not path.exists():
                continue
            lines += ["", f"{path.stem}  ({path})"]
            lines += _counted(path) if path.suffix == ".prof" else _sampled(path)
        return lines


def _short(name: str) -> str:
    """``…/mesh/node/pump.py`` → ``mesh/node/pump.py``; of a library the package alone."""
    for part in ("/site-packages/", "/mesh/", "/benchmarks/"):
        _, found, after = name.rpartition(part)
        if found:
            return after if part == "/site-packages/" else f"{part.strip('/')}/{after}"
    return re.sub(r".*/lib/python[\d.]+/", "", name)


def _waits(function: str) -> bool:
    """Whether a function is the event loop's sleep: time that is nobody's."""
    return "get_events" in function or "poll' of 'select.epoll'" in function


def _head(columns: str, waited: float, busy: float) -> str:
    return f"  {columns}   of the time that it did not wait (it waited {waited / (waited + busy):.0%})"


def _counted(path: Path) -> list[str]:
    stats = pstats.Stats(str(path)).stats  # type: ignore[attr-defined]
    waited = sum(own for (_, _, name), (_, _, own, _, _) in stats.items() if _waits(name))
    busy = sum(own for _, _, own, _, _ in stats.values()) - waited or 1.0
    lines = [_head(f"{'own':>6} {'calls':>10} {'µs each':>9}", waited, busy)]
    ranked = sorted((item for item in stats.items() if not _waits(item[0][2])), key=lambda item: -item[1][2])
    for (file, line, function), (_, calls, own, _, _) in ranked[:_SHOWN]:
        where = function if file == "~" else f"{_short(file)}:{line} {function}"
        lines.append(f"  {own / busy:6.1%} {calls:10,} {own / calls * 1e6:9.2f}  {where}")
    return lines


def _sampled(path: Path) -> list[str]:
    own: Counter[str] = Counter()
    below: Counter[str] = Counter()
    waited = 0
    for line in path.read_text(encoding="utf-8").splitlines():
        stack, _, number = line.rpartition(" ")
        if stack.startswith("Thread."):
            continue  # the harness's words, and Trio's idle threads
        frames = [
            re.sub(r"^(.*) \((.*?)(:\d+)?\)$", lambda m: f"{_short(m[2])} {m[1]}", frame)
            for frame in stack.split(";")
        ]
        samples = int(number)
        if _waits(frames[-1]):
            waited += samples
            continue
        own[frames[-1]] += samples
        for frame in set(frames):
            below[frame] += samples
    busy = own.total() or 1
    lines = [_head(f"{'own':>6} {'with callees':>12}", waited, busy)]
    for frame, mine in own.most_common(_SHOWN):
        lines.append(f"  {mine / busy:6.1%} {below[frame] / busy:12.1%}   {frame}")
    return lines
