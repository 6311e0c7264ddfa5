"""Runs the work: two worker processes a run, systems interleaved in rounds, everything bounded.

for each round: for each workload: for each system (its place rotates): start both roles → the first listens →
the second is told where → both are ready → the source goes → both are done → both close.  Nothing
waits for a time to pass; every run has a time limit, and a worker that is left is killed.

What comes out are plain dictionaries, as they go into the JSON result.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import IO, Any

import trio
from trio.lowlevel import ParkingLot

from benchmarks.adapter import Adapter
from benchmarks.profiling import Profiling
from benchmarks.workload import FIRST, SECOND, SINK, SOURCE, Failed, Role, Unsupported, Workload

__all__ = ["Run", "run_once", "run_rounds"]

ROOT = Path(__file__).resolve().parent.parent

WORKER = [sys.executable, "-m", "benchmarks.worker"]

_PATIENCE = 5.0
"""Seconds that a subscriber may go on after the publisher is done before it is told to stop: what
has not come by then is lost."""
_CLOSING = 5.0
"""Seconds that a worker has to close."""

Run = dict[str, Any]


class _Worker:
    """One worker process and what it said."""

    def __init__(self, role: Role, process: trio.Process, errors: IO[bytes], news: ParkingLot) -> None:
        self.role = role
        self.process = process
        self._errors = errors
        self._news = news
        self.heard: dict[str, dict[str, Any]] = {}

    async def listen(self) -> None:
        """Read its answers until it ends."""
        assert self.process.stdout is not None
        rest = b""
        async for some in self.process.stdout:
            *lines, rest = (rest + some).split(b"\n")
            for line in lines:
                answer = json.loads(line)
                self.heard[answer.pop("event")] = answer
            self._news.unpark_all()
        self.heard.setdefault("ended", {})
        self._news.unpark_all()

    async def say(self, word: str, **fields: Any) -> None:
        assert self.process.stdin is not None
        try:
            await self.process.stdin.send_all(json.dumps({"do": word, **fields}).encode() + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it ended; whoever waits for its next answer hears why

    def trouble(self) -> Exception | None:
        """Why nothing more will come from it, if that is so."""
        if "unsupported" in self.heard:
            return Unsupported(self.heard["unsupported"]["reason"])
        if "failed" in self.heard:
            return Failed(f"{self.role}: {self.heard['failed']['reason']}")
        if "ended" in self.heard and "done" not in self.heard:
            return Failed(f"{self.role} ended without a word: {self.last_error()}")
        return None

    def last_error(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing on standard error"


class _Pair:
    """The two workers of a run."""

    def __init__(self, news: ParkingLot, workers: Mapping[Role, _Worker]) -> None:
        self._news = news
        self.workers = workers

    async def hear(self, role: Role, event: str) -> dict[str, Any]:
        """What ``role`` says with ``event``. Raises ``Failed`` or ``Unsupported`` if either can't go on."""
        while event not in self.workers[role].heard:
            for worker in self.workers.values():
                trouble = worker.trouble()
                if trouble is not None:
                    raise trouble
            await self._news.park()
        return self.workers[role].heard[event]

    def waiting(self) -> str:
        """What each had said last, for a run that took too long."""
        return ", ".join(
            f"{role} said {list(worker.heard)[-1] if worker.heard else 'nothing'}"
            for role, worker in self.workers.items()
        )


@asynccontextmanager
async def _pair(adapter: Adapter, roles: Sequence[Role]) -> AsyncIterator[_Pair]:
    news = ParkingLot()
    workers: dict[Role, _Worker] = {}
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        for role in roles:
            errors = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
            process = await trio.lowlevel.open_process(
                [*WORKER, adapter.name, role],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
            )
            stack.push_async_callback(_end, process)
            workers[role] = _Worker(role, process, errors, news)
            nursery.start_soon(workers[role].listen)
        yield _Pair(news, workers)


async def _end(process: trio.Process) -> None:
    """Let it close by itself for a while; then it is killed."""
    with trio.CancelScope(shield=True):
        with trio.move_on_after(_CLOSING):
            assert process.stdin is not None
            await process.stdin.aclose()
            await process.wait()
        if process.poll() is None:
            process.kill()
            await process.wait()


async def run_once(
    adapter: Adapter, workload: Workload, *, limit: float, profiling: Profiling | None = None
) -> Run:
    """One run of one system, bounded by ``limit`` seconds. Never raises for what a system does."""
    roles = (FIRST[workload.kind], SECOND[workload.kind])
    async with _pair(adapter, roles) as pair:
        outcome = await _judged(pair, workload, limit, profiling)
        for worker in pair.workers.values():
            if outcome["status"] == "ok":
                await worker.say("close")
            else:
                worker.process.kill()  # it may never hear us
    return {"system": adapter.name, "workload": workload.name, **outcome}


async def _judged(pair: _Pair, workload: Workload, limit: float, profiling: Profiling | None) -> Run:
    try:
        with trio.fail_after(limit):
            return {"status": "ok", "roles": await _work(pair, workload, profiling)}
    except Unsupported as error:
        return {"status": "unsupported", "reason": str(error)}
    except Failed as error:
        return {"status": "failed", "reason": str(error)}
    except trio.TooSlowError:
        return {"status": "failed", "reason": f"not done in {limit:g} s ({pair.waiting()})"}


async def _work(pair: _Pair, workload: Workload, profiling: Profiling | None) -> dict[Role, Any]:
    first, second = FIRST[workload.kind], SECOND[workload.kind]
    source, sink = SOURCE[workload.kind], SINK[workload.kind]

    async def open_role(role: Role, details: Mapping[str, Any]) -> None:
        profile = None if profiling is None else profiling.file_of_worker(workload.name, role)
        await pair.workers[role].say("open", workload=workload.to_json(), details=details, profile=profile)

    await open_role(first, {})
    await open_role(second, (await pair.hear(first, "listening"))["details"])
    for role in (first, second):
        await pair.hear(role, "ready")
    async with AsyncExitStack() as stack:
        if profiling is not None:
            for role, worker in pair.workers.items():
                await stack.enter_async_context(profiling.watching(workload.name, role, worker.process.pid))
        await pair.workers[source].say("go")
        await pair.hear(source, "done")
        # A subscriber may have some way to go; a server has nothing more to wait for.
        with trio.move_on_after(_PATIENCE if sink == "subscriber" else 0):
            await pair.hear(sink, "done")
        await pair.workers[sink].say("stop")
        return {role: (await pair.hear(role, "done"))["numbers"] for role in (source, sink)}


async def run_rounds(
    adapters: Sequence[Adapter],
    workloads: Sequence[Workload],
    rounds: int,
    *,
    limit: float,
    progress: Callable[[str], None],
    wanted: Callable[[str, str], bool] = lambda system, workload: True,
) -> list[Run]:
    """All runs that are ``wanted``, interleaved: what disturbs the machine for a while disturbs every system."""
    runs: list[Run] = []
    out: set[tuple[str, str]] = set()  # what a system can't do it can't do in the next round either
    for number in range(rounds):
        shift = number % len(adapters)
        order = [*adapters[shift:], *adapters[:shift]]
        for workload in workloads:
            for adapter in order:
                if (adapter.name, workload.name) in out or not wanted(adapter.name, workload.name):
                    continue
                progress(f"round {number + 1} of {rounds}: {workload.title}: {adapter.title}")
                scaled = workload.scaled(adapter.share)
                run = await run_once(adapter, scaled, limit=limit)
                run |= {"round": number, "count": scaled.count, "warmup": scaled.warmup}
                runs.append(run)
                if run["status"] == "unsupported":
                    out.add((adapter.name, workload.name))
    return runs
