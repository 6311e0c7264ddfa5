"""What breaks, and how soon the mesh says so and heals: ``python -m benchmarks.failures``.

Hosts are network namespaces; every node is a process of its own with the LAN preset. Each experiment
makes one fault and takes the times of the events that the others report. Nobody but the one that the
experiment is about is ever restarted; "back" means that a message published there after the
fault arrives here, and one published here arrives there.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import trio

from benchmarks import figures
from benchmarks.report import print_table
from tests.lab import Host, Lan, Running, why_not

PATIENCE = 60.0
"""Seconds after which an experiment has failed."""


class Goal(NamedTuple):
    """A time that has to stay below ``seconds``; without one it is only shown."""

    what: str
    seconds: float | None


GOALS = {
    "killed_suspected": Goal("SIGKILL: suspected", 3.0),
    "killed_left": Goal("SIGKILL: PeerLeft", 12.0),
    "stopped_left": Goal("stopped properly: PeerLeft", 1.0),
    "paused_back": Goal("SIGSTOP 5 s, SIGCONT: back, after SIGCONT", None),
    "restarted_back": Goal("killed and restarted: back, after the new start", None),
    "moved_back": Goal("moved to another address: back, after the move", None),
    "unplugged_back": Goal("cable out 5 s: back, after it is in", None),
    "partition_back": Goal("cut off 20 s, both sides let go: back, after the cut heals", None),
    "one_way_back": Goal("unicast lost one way 5 s: back, after it heals", None),
    "late_interface": Goal("started without a network: meets, after the link is up", None),
    "seed_only": Goal("4 hosts, no multicast, one seed: full mesh, after the last start", None),
}


HEALS = {
    "paused": "paused for 5 s: comes back",
    "restarted": "killed and restarted: comes back",
    "moved": "moved to another address: comes back",
    "unplugged": "unplugged: comes back",
    "partition": "a partition: heals",
    "one_way": "unicast lost one way: heals",
    "late_interface": "a network that comes later: is used",
    "seed_only": "no multicast, one seed: all meet",
}
"""By experiment: what has to happen with no restart of the others."""


class Meshed:
    """A node of the experiment and what it said, by the clock that all processes share."""

    def __init__(self, name: str, program: Running) -> None:
        self.name = name
        self.program = program
        self._sent = 0

    async def event(self, kind: str, *, name: str = "", within: float = PATIENCE) -> dict[str, Any]:
        """The next event of this kind (about the peer ``name``)."""
        pattern = f'^{{"event": "{kind}".*' + (f'"name": "{name}"' if name else "")
        event: dict[str, Any] = json.loads((await self.program.expect(pattern, within=within)).string)
        return event

    async def hears(self, other: Meshed, *, within: float = PATIENCE) -> float:
        """When a message that ``other`` publishes from now on arrives here; it publishes until one does."""
        async with trio.open_nursery() as nursery:

            async def publish() -> None:
                while True:
                    self._sent += 1
                    await other.program.send(f"publish {self.name}-{self._sent}\n")
                    await trio.sleep(0.02)

            nursery.start_soon(publish)
            pattern = f'^{{"event": "message".*"value": "{self.name}-'
            found = json.loads((await self.program.expect(pattern, within=within)).string)
            nursery.cancel_scope.cancel()
        at: float = found["at"]
        return at

    async def count(self) -> dict[str, Any]:
        await self.program.send("count\n")
        return await self.event("counted")


async def both_hear(one: Meshed, other: Meshed, *, within: float = PATIENCE) -> float:
    """When messages go both ways."""
    return max(await one.hears(other, within=within), await other.hears(one, within=within))


class Stage:
    """Hosts, a home that all nodes share, and a way to start nodes."""

    def __init__(self, net: Lan, home: str, options: tuple[str, ...] = ()) -> None:
        self.net = net
        self.home = home
        self._options = options

    @asynccontextmanager
    async def node(self, name: str, host: Host, *options: str) -> AsyncIterator[Meshed]:
        argv = [sys.executable, "-m", "tests.lan.node", name, self.home, *self._options, *options]
        async with host.running(argv) as program:
            yield Meshed(name, program)

    @asynccontextmanager
    async def trio_of_nodes(self) -> AsyncIterator[tuple[Meshed, Meshed, Meshed]]:
        """Three nodes on three hosts, all met: a fault between two must not disturb the third."""
        net = self.net
        async with self.node("a", net[0]) as a, self.node("b", net[1]) as b, self.node("c", net[2]) as c:
            for each in (a, b, c):
                await each.event("ready")
                for other in (a, b, c):
                    if other is not each:
                        await each.event("joined")
            yield a, b, c


# -- the experiments ----------------------------------------------------------------


async def killed(stage: Stage) -> dict[str, float]:
    async with stage.trio_of_nodes() as (a, b, c):
        began = time.monotonic()
        c.program.signal(signal.SIGKILL)
        suspected, left = [], []
        for each in (a, b):
            suspected.append((await each.event("suspected", name="c"))["at"] - began)
            left.append((await each.event("left", name="c"))["at"] - began)
    return {"killed_suspected": max(suspected), "killed_left": max(left)}


async def stopped(stage: Stage) -> dict[str, float]:
    async with stage.trio_of_nodes() as (a, b, c):
        began = time.monotonic()
        await c.program.send("stop\n")
        left = [(await each.event("left", name="c"))["at"] - began for each in (a, b)]
    return {"stopped_left": max(left)}


async def paused(stage: Stage) -> dict[str, float]:
    async with stage.trio_of_nodes() as (a, _, c):
        c.program.signal(signal.SIGSTOP)
        await trio.sleep(5.0)
        began = time.monotonic()
        c.program.signal(signal.SIGCONT)
        return {"paused_back": await both_hear(a, c) - began}


async def restarted(stage: Stage) -> dict[str, float]:
    async with stage.trio_of_nodes() as (a, _, c):
        c.program.signal(signal.SIGKILL)
        await c.program.wait()
        async with stage.node("c", stage.net[2]) as again:
            began = (await again.event("ready"))["at"]
            return {"restarted_back": max(0.0, await both_hear(a, again) - began)}


async def moved(stage: Stage) -> dict[str, float]:
    async with stage.trio_of_nodes() as (a, _, c):
        began = time.monotonic()
        stage.net[2].change_address()
        return {"moved_back": await both_hear(a, c) - began}


async def unplugged(stage: Stage) -> dict[str, float]:
    async with stage.trio_of_nodes() as (a, _, c):
        stage.net[2].unplug()
        await a.event("suspected", name="c")
        await trio.sleep(3.0)
        stage.net[2].plug()
        began = time.monotonic()
        return {"unplugged_back": await both_hear(a, c) - began}


async def partition(stage: Stage) -> dict[str, float]:
    async with stage.trio_of_nodes() as (a, _, c):
        stage.net[2].isolate()
        await a.event("left", name="c")
        await c.event("left", name="a")
        await trio.sleep(8.0)
        stage.net[2].rejoin()
        began = time.monotonic()
        return {"partition_back": await both_hear(a, c) - began}


async def one_way(stage: Stage) -> dict[str, float]:
    async with stage.trio_of_nodes() as (a, _, c):
        stage.net[0].lose_towards(stage.net[2])
        await trio.sleep(5.0)
        stage.net[0].reach(stage.net[2])
        began = time.monotonic()
        return {"one_way_back": await both_hear(a, c) - began}


async def late_interface(stage: Stage) -> dict[str, float]:
    stage.net[2].link_down()
    async with stage.node("a", stage.net[0]) as a, stage.node("c", stage.net[2]) as c:
        await a.event("ready")
        await c.event("ready")
        began = time.monotonic()
        stage.net[2].link_up()
        joined = await a.event("joined", name="c")
        found = await a.count()
        assert found["peers"] == {"c": "alive"}
        await both_hear(a, c)
    return {"late_interface": joined["at"] - began}


async def seed_only(stage: Stage) -> dict[str, float]:
    """Four hosts; all are told of the first one, and nobody of anybody else."""
    net = stage.net
    net.set_multicast(False)
    seed = ("--connect", f"tcp://{net[0].ipv4}:7400")
    async with (
        stage.node("a", net[0], "--listen", "tcp://*:7400") as a,
        stage.node("b", net[1], *seed) as b,
        stage.node("c", net[2], *seed) as c,
        stage.node("d", net[3], *seed) as d,
    ):
        ready, joined = [], []
        for each in (a, b, c, d):
            ready.append((await each.event("ready"))["at"])
            joined += [(await each.event("joined"))["at"] for _ in range(3)]
        await both_hear(b, d)
    return {"seed_only": max(0.0, max(joined) - max(ready))}


EXPERIMENTS: dict[str, tuple[int, Callable[[Stage], Awaitable[dict[str, float]]]]] = {
    "killed": (3, killed),
    "stopped": (3, stopped),
    "paused": (3, paused),
    "restarted": (3, restarted),
    "moved": (3, moved),
    "unplugged": (3, unplugged),
    "partition": (3, partition),
    "one_way": (3, one_way),
    "late_interface": (3, late_interface),
    "seed_only": (4, seed_only),
}


async def measure(options: argparse.Namespace) -> Mapping[str, Any]:
    if reason := why_not():
        raise SystemExit(f"benchmarks: no network namespaces, so there are no hosts: {reason}")
    times: dict[str, list[float]] = {}
    trouble: list[str] = []
    failed: set[str] = set()
    chosen = options.only.split(",")
    for number in range(options.rounds):
        for name in chosen:
            hosts, experiment = EXPERIMENTS[name]
            print(f"round {number + 1}: {name}", file=sys.stderr)
            with tempfile.TemporaryDirectory(prefix="zeromesh-fail-") as home, Lan(hosts) as net:
                try:
                    found = await experiment(Stage(net, home))
                except* AssertionError as group:
                    # Policy: what did not happen in time is this experiment's result; the others go on.
                    found = {}
                    error: BaseException = group
                    while isinstance(error, BaseExceptionGroup):
                        error = error.exceptions[0]
                    trouble.append(f"{name}: {error}")
                    failed.add(name)
            for key, seconds in found.items():
                times.setdefault(key, []).append(seconds)
    summary = {key: figures.quantiles(values) for key, values in times.items()}
    met = {
        f"{goal.what} < {goal.seconds:g} s": key in summary and summary[key]["max"] < goal.seconds
        for key, goal in GOALS.items()
        if goal.seconds is not None and key.split("_")[0] in chosen
    }
    met |= {f"{claim} by itself": name not in failed for name, claim in HEALS.items() if name in chosen}
    return {"runs": times, "summary": summary, "trouble": trouble, "met": met}


def show(result: Mapping[str, Any]) -> None:
    rows = []
    for key, goal in GOALS.items():
        if key in result["summary"]:
            found = result["summary"][key]
            limit = "-" if goal.seconds is None else f"{goal.seconds:g}"
            rows.append([goal.what, *(f"{found[each]:.2f}" for each in ("p50", "min", "max")), limit])
    print_table("seconds", ["fault", "p50", "min", "max", "goal"], rows, sys.stdout)
    for text in result["trouble"]:
        print(f"\n{text}")


def main() -> int:
    parser = figures.parser("failures", "How soon faults are noticed, and how soon the mesh heals.")
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="times each (default: 1)")
    parser.add_argument("--only", default=",".join(EXPERIMENTS), metavar="A,B", help="some experiments")
    options = parser.parse_args()
    unknown = set(options.only.split(",")) - set(EXPERIMENTS)
    if unknown:
        parser.error(f"no experiment {', '.join(sorted(unknown))}; there are {', '.join(EXPERIMENTS)}")
    return figures.run(options, measure, show)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        os._exit(130)
