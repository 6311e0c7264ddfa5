"""``python -m benchmarks``: choose systems and workloads, run, print the table, write the JSON result."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from benchmarks import machine, peers, report
from benchmarks.adapter import Adapter
from benchmarks.compare import RESULTS, print_goals
from benchmarks.goals import wanted
from benchmarks.harness import run_once, run_rounds
from benchmarks.pictures import draw
from benchmarks.profiling import Profiling
from benchmarks.summary import summarise
from benchmarks.workload import KINDS, Workload

__all__ = ["main"]

_FORMAT = 1
"""Of the JSON result; goes up when a reader of an older one would misread it."""

_EXAMPLES = """\
examples:
  python -m benchmarks --goals                      what the goals compare (make bench)
  python -m benchmarks                              64 B, every system
  python -m benchmarks --full                       a million messages, more sizes, more rounds
  python -m benchmarks --only roundtrip --systems zeromesh,trio-zmq
  python -m benchmarks --sizes 16,256,1024,65536 --count 200000
  python -m benchmarks --profile profiles           where our own two processes spend their time
  python -m benchmarks --profile profiles --profiler py-spy --only oneway

A rate is that of the subscriber. "ours ÷ it" is our median over that system's: for rates above 1 is better, for times
below 1. "spread" is (highest - lowest) / median over the rounds. docs/performance.md has the method.
"""


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def _sizes(text: str) -> list[int]:
    return [_positive(part) for part in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure one-way rate and round trip of this mesh beside others, on this machine, in one run.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ", ".join(peers.adapters())
    parser.add_argument("--systems", metavar="A,B", help=f"which systems, of: {names} (default: all)")
    parser.add_argument("--only", choices=KINDS, help="one kind of workload")
    parser.add_argument("--sizes", type=_sizes, metavar="N,N", help="bytes a message (default: 64)")
    parser.add_argument(
        "--count", type=_positive, metavar="N", help="one-way messages a round (default: 300000)"
    )
    parser.add_argument("--requests", type=_positive, metavar="N", help="round trips a round (default: 5000)")
    parser.add_argument("--rounds", type=_positive, metavar="N", help="rounds (default: 5)")
    parser.add_argument(
        "--goals",
        action="store_true",
        help="what the goals compare, and no more: under ten minutes (make bench)",
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="1,000,000 messages, sizes 16 to 65536, 7 rounds: about half an hour",
    )
    parser.add_argument(
        "--volume",
        type=_positive,
        default=256,
        metavar="MB",
        help="most bytes of a one-way round (default: 256)",
    )
    parser.add_argument(
        "--limit", type=float, default=60.0, metavar="S", help="most seconds of one run (default: 60)"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="where the result goes (default: benchmarks/results/…)"
    )
    parser.add_argument(
        "--profile", metavar="DIR", type=Path, help="profile our two processes, measure nothing"
    )
    parser.add_argument("--profiler", choices=["cprofile", "py-spy"], default="cprofile")
    return parser


def _workloads(options: argparse.Namespace) -> list[Workload]:
    full = options.full
    sizes = options.sizes or ([16, 64, 256, 1024, 65536, 1 << 20] if full or options.goals else [64])
    count = options.count or (1_000_000 if full else 300_000)
    requests = options.requests or (20_000 if full else 5000)
    found = []
    for kind in KINDS:
        if options.only in (None, kind):
            for size in sizes if kind == "oneway" or options.sizes else [64]:
                most = {
                    "oneway": min(count, max(100, options.volume * 1_000_000 // size)),
                    "paced": requests // 5,
                }.get(kind, requests)
                found.append(Workload(kind, size, most, max(1, most // 10)))
    return found


def _systems(chosen: str | None) -> tuple[list[Adapter], list[str]]:
    """The adapters to run, and lines about those that can't."""
    known = peers.adapters()
    names = list(known) if chosen is None else chosen.split(",")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"benchmarks: no system {', '.join(unknown)}; there are {', '.join(known)}")
    found = [known[name] for name in names]
    return (
        [adapter for adapter in found if adapter.missing() is None],
        [
            f"LEFT OUT: {adapter.title}: {adapter.missing()} (make bench installs what it can)"
            for adapter in found
            if adapter.missing()
        ],
    )


def _profile(options: argparse.Namespace, workloads: Sequence[Workload]) -> int:
    missing = Profiling.missing(options.profiler)
    if missing is not None:
        raise SystemExit(f"benchmarks: {missing}")
    profiling = Profiling(options.profile, options.profiler)
    adapter = peers.load(peers.BASE)
    failed = False
    for workload in workloads:

        async def once(workload: Workload = workload) -> dict[str, Any]:
            return await run_once(adapter, workload, limit=options.limit, profiling=profiling)

        run = trio.run(once)
        if run["status"] != "ok":
            failed = True
            print(f"benchmarks: {workload.title}: {run['reason']}", file=sys.stderr)
    print("\n".join(profiling.report()))
    return 1 if failed else 0


def _where(options: argparse.Namespace, result: dict[str, Any]) -> Path:
    if options.json:
        return Path(options.json)
    commit = result["commit"]["id"][:10] if result["commit"] else "no-commit"
    stamp = result["date"].replace(":", "").replace("+0000", "Z")
    return RESULTS / f"{stamp}-{commit}.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """0: measured; 1: some run failed (its reason stands below the table); 2: usage."""
    options = _parser().parse_args(arguments)
    workloads = _workloads(options)
    if options.profile:
        return _profile(options, workloads)
    adapters, left_out = _systems(options.systems)
    for line in left_out:
        print(f"benchmarks: {line}", file=sys.stderr)
    if not adapters:
        raise SystemExit("benchmarks: nothing is left to measure")
    rounds = options.rounds or (7 if options.full else 3 if options.goals else 5)

    def chosen(system: str, workload: str) -> bool:
        return not options.goals or wanted(peers.BASE, system, workload)

    terminal = sys.stderr.isatty()

    def progress(text: str) -> None:
        if terminal:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    result: dict[str, Any] = {
        "format": _FORMAT,
        **machine.describe(name for adapter in adapters for name in adapter.distributions),
        "settings": {"rounds": rounds, "workloads": [workload.to_json() for workload in workloads]},
    }

    async def measure() -> list[dict[str, Any]]:
        return await run_rounds(
            adapters, workloads, rounds, limit=options.limit, progress=progress, wanted=chosen
        )

    result["runs"] = trio.run(measure)
    if terminal:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    result["summary"] = summarise(workloads, result["runs"])
    path = _where(options, result)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result) + "\n", encoding="utf-8")
    report.print_result(result, workloads, {adapter.name: adapter for adapter in adapters}, peers.BASE)
    if options.goals or options.full:
        print_goals(result)
    for picture in draw(result, path.with_suffix("")):
        print(f"picture: {picture}")
    print(f"raw numbers: {path}")
    return 1 if any(run["status"] == "failed" for run in result["runs"]) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
