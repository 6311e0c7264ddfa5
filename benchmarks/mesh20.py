"""Many nodes on one machine: ``python -m benchmarks.mesh20``.

Twenty processes start together on one host (a network namespace of its own where that is allowed), find
each other by mDNS and scout, and form a full mesh. Then they idle, and the kernel is asked what that
costs each: CPU time as a share of one core, wake-ups a second, memory.

The bytecode is written before, as an installer does it: an installed node does not compile itself.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import trio

import mesh
import tests.lan
from benchmarks import figures
from benchmarks.report import print_table
from tests.lab import Lan, Running, running, why_not

FULL_WITHIN = 10.0  # seconds
IDLE_BELOW = 1.0  # per cent of a core
IDLE_AIM = 0.5


@asynccontextmanager
async def place() -> AsyncIterator[Callable[..., Any]]:
    """How to run a program: in a namespace with one network interface, or just here."""
    if why_not():
        yield running
    else:
        with Lan(1) as net:
            yield net[0].running


async def full(program: Running, peers: int) -> tuple[float, float]:
    """When the node was open and when it had all its peers, by the clock that all processes share."""
    ready = json.loads((await program.expect('^{"event": "ready"', within=120)).string)
    at = ready["at"]
    for _ in range(peers):
        joined = json.loads((await program.expect('^{"event": "joined"', within=120)).string)
        at = max(at, joined["at"])
    return ready["at"], at


def cost(pid: int) -> dict[str, float]:
    """What a process has used so far: CPU seconds, context switches of its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    runtime = switches = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        # schedstat counts nanoseconds; the ticks of stat are too coarse for an idle process.
        runtime += int((task / "schedstat").read_text(encoding="ascii").split()[0])
        for line in (task / "status").read_text(encoding="ascii").splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                switches += int(line.split()[1])
    return {
        "cpu": runtime / 1e9,
        "stat_cpu": (int(fields[11]) + int(fields[12])) / ticks,
        "switches": switches,
        "at": time.monotonic(),
    }


async def measure(options: argparse.Namespace) -> Mapping[str, Any]:
    nodes, runs = options.nodes, []
    for package in (mesh, tests.lan):
        compileall.compile_dir(str(Path(package.__file__ or "").parent), quiet=2)
    with tempfile.TemporaryDirectory(prefix="zeromesh-mesh-") as home:
        async with place() as run, AsyncExitStack() as stack:
            began = time.monotonic()
            programs = []
            for number in range(nodes):
                argv = [sys.executable, "-m", "tests.lan.node", f"n{number}", home]
                argv += ["--discovery", options.discovery]
                programs.append(await stack.enter_async_context(run(argv)))
            whole: list[tuple[float, float]] = [(0.0, 0.0)] * nodes

            async def wait(number: int) -> None:
                whole[number] = await full(programs[number], nodes - 1)

            async with trio.open_nursery() as nursery:
                for number in range(nodes):
                    nursery.start_soon(wait, number)
            opened = max(ready for ready, _ in whole) - began
            complete = max(at for _, at in whole) - began
            print(f"full mesh after {complete:.2f} s, all open after {opened:.2f} s", file=sys.stderr)
            await trio.sleep(options.settle)
            seen = [len(program.stdout) for program in programs]
            before = [cost(program.pid) for program in programs]
            await trio.sleep(options.idle)
            after = [cost(program.pid) for program in programs]
            noise = [line for program, n in zip(programs, seen, strict=True) for line in program.stdout[n:]]
            for program, old, new in zip(programs, before, after, strict=True):
                await program.send("count\n")
                counted = json.loads((await program.expect('^{"event": "counted"')).string)
                seconds = new["at"] - old["at"]
                runs.append(
                    {
                        "cpu_percent": (new["cpu"] - old["cpu"]) / seconds * 100,
                        "stat_cpu_percent": (new["stat_cpu"] - old["stat_cpu"]) / seconds * 100,
                        "wakeups_per_second": (new["switches"] - old["switches"]) / seconds,
                        "resident_mib": counted["resident"] / 2**20,
                        "startup_cpu": old["cpu"],
                        "peers": len(counted["peers"]),
                        "rejected": counted["rejected"],
                    }
                )
    summary = {
        key: figures.quantiles([run[key] for run in runs])
        for key in ("cpu_percent", "stat_cpu_percent", "wakeups_per_second", "resident_mib", "startup_cpu")
    }
    worst = summary["cpu_percent"]["max"]
    return {
        "runs": runs,
        "full_mesh_seconds": complete,
        "all_open_seconds": opened,
        "events_while_idle": noise,
        "summary": summary,
        "met": {
            f"{nodes} nodes are a full mesh within {FULL_WITHIN:g} s of the first start": complete
            < FULL_WITHIN,
            f"each idles below {IDLE_BELOW:g} % of a core": worst < IDLE_BELOW,
            f"each idles below {IDLE_AIM:g} % of a core": worst < IDLE_AIM,
            "nobody joined, left or was suspected meanwhile": not noise,
        },
    }


def show(result: Mapping[str, Any]) -> None:
    nodes = len(result["runs"])
    names = {
        "cpu_percent": "idle, % of a core",
        "stat_cpu_percent": "the same by clock ticks",
        "wakeups_per_second": "idle, wake-ups a second",
        "resident_mib": "resident, MiB",
        "startup_cpu": "CPU seconds until settled",
    }
    rows = [
        [name, *(format(result["summary"][key][column], ".2f") for column in ("p50", "p90", "min", "max"))]
        for key, name in names.items()
    ]
    print(f"\n{nodes} nodes: all open after {result['all_open_seconds']:.2f} s, ", end="")
    print(f"full mesh after {result['full_mesh_seconds']:.2f} s")
    print_table("over the nodes", ["", "p50", "p90", "min", "max"], rows, sys.stdout)
    for line in result["events_while_idle"][:10]:
        print(f"  meanwhile: {line}")


def main() -> int:
    parser = figures.parser(
        "mesh20", "Twenty nodes on one machine: time to a full mesh, and what idling costs."
    )
    parser.add_argument("--nodes", type=int, default=20, metavar="N")
    parser.add_argument(
        "--idle", type=float, default=30.0, metavar="S", help="seconds measured (default: 30)"
    )
    parser.add_argument(
        "--settle", type=float, default=5.0, metavar="S", help="seconds before that (default: 5)"
    )
    parser.add_argument("--discovery", default="mdns,scout")
    return figures.run(parser.parse_args(), measure, show)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        os._exit(130)
