"""How fast a bridge exports beside the bare client of its broker: what ``python -m benchmarks.BROKER`` have in common.

A private broker on this machine, and in each round, one after the other, the same messages (value, id, headers):

    a bare client, in the ways that the ``Subject`` names
    a node publishes → the mesh → a bridge in another process → the broker, by each route that it names

A rate is from the first message's publishing (of a bare client, its first send) to the last confirmation, by the
clock that all processes share.  What counts is the median of the rounds' ratios, since a machine that others use too
is another one from minute to minute; ``WARM`` runs of each bare client go before, uncounted (a JVM is three times as
fast once it has compiled what it does).  A bare client has the machine to itself; a bridge shares it with the node that
publishes, which is part of what is measured: there is no export without a mesh.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import trio

from benchmarks import figures
from benchmarks.report import print_table
from tests.lab import Running, running

__all__ = ["GOAL", "HEADERS", "KEY", "TOPIC", "Broker", "Subject", "main", "say"]

GOAL: Final = 0.7
"""What a route has to reach of the rate of the bare client doing the same: the median of the rounds."""

MOST: Final = 60_000
"""Messages a round: what a subscription holds by default, so that none is dropped before the bridge takes it."""

WARM: Final = 2
"""Runs of each bare client before the first round."""

WITHIN: Final = 180.0

TOPIC: Final = "bench/a"

KEY: Final = "bench.a"
"""Where it goes at the broker."""

HEADERS: Final = {"mesh-path": "0123456789abcdef", "mesh-topic": TOPIC, "mesh-sender": "publisher"}
"""What a bridge writes beside each value."""


class Broker(Protocol):
    def start(self) -> None: ...
    def stop(self) -> None: ...


@dataclass(frozen=True)
class Subject:
    """One broker. Its functions run in processes of their own, but for ``broker`` and ``prepare``."""

    name: str
    broker: Callable[[Path], tuple[Broker, Callable[[], str]]]
    """Makes a broker with its data in a folder; and what gives its URL."""
    why_not: Callable[[], str | None]
    prepare: Callable[[str], None]
    """Before each run: the place that all of them write to, empty."""
    bare: Mapping[str, Callable[[str, int, int], None]]
    """A client alone, by name: with the URL, how many messages, how large. It ends with ``say(rate=…)``."""
    routes: Mapping[str, Mapping[str, Any]]
    """Export routes, by name."""
    compare: Mapping[str, str]
    """Route → the bare client that does the same."""
    count: int
    """Messages a round unless told otherwise."""


def say(**what: Any) -> None:
    """One line for the process that measures."""
    print(json.dumps(what), flush=True)


# -- the programs ----------------------------------------------------------------------------


async def publisher(home: str, count: int, size: int) -> None:
    import mesh

    async with mesh.open_node(
        "publisher", home=home, listen=["tcp://127.0.0.1:0"], discovery=(), config=mesh.Config.local()
    ) as node:
        print(node.endpoints[0], flush=True)
        publisher = node.publisher(TOPIC)
        await publisher.wait_for_subscribers(1)
        print("ready", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        value = bytes(size)
        say(began=time.monotonic())
        for _ in range(count):
            await publisher.publish(value)
        await publisher.flush()
        await trio.to_thread.run_sync(sys.stdin.readline)


async def bridge(
    subject: Subject, url: str, home: str, seed: str, count: int, route: Mapping[str, Any]
) -> None:
    import mesh
    from bridges.bridge import open_bridge

    table = {"kind": subject.name, "url": url, "export": [route]}
    async with (
        mesh.open_node(
            "bridge", home=home, listen=["tcp://127.0.0.1:0"], connect=[seed], discovery=(),
            config=mesh.Config.local(),
        ) as node,
        open_bridge(node, table, spool_folder=Path(home) / "spool") as bridge,
    ):  # fmt: skip
        await bridge.wait_live()
        print("ready", flush=True)
        while True:
            (only,) = bridge.statistics().routes
            dropped = sum(only.dropped.values()) + sum(only.rejected.values())
            if only.moved + dropped >= count:
                say(ended=time.monotonic(), moved=only.moved, dropped=dropped)
                return
            await trio.sleep(0.005)


# -- the rounds ------------------------------------------------------------------------------


async def told(program: Running) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((await program.expect(r"^\{", within=WITHIN)).string)
    return found


class Rounds:
    """The runs of one subject against one broker."""

    def __init__(self, subject: Subject, options: argparse.Namespace) -> None:
        self._subject = subject
        self._options = options

    def _program(self, *words: object) -> list[str]:
        return [sys.executable, "-m", f"benchmarks.{self._subject.name}", "--as", *map(str, words)]

    async def bare(self, name: str, url: str) -> float:
        options = self._options
        async with running(self._program("bare", name, url, options.count, options.size)) as process:
            return float((await told(process))["rate"])

    async def route(self, name: str, url: str) -> float:
        options = self._options
        with tempfile.TemporaryDirectory() as home:
            async with running(self._program("publisher", home, options.count, options.size)) as source:
                seed = (await source.expect("^tcp:", within=WITHIN)).string
                async with running(self._program("bridge", name, url, home, seed, options.count)) as process:
                    await process.expect("^ready", within=WITHIN)
                    await source.expect("^ready", within=WITHIN)
                    await source.send("go\n")
                    began = (await told(source))["began"]
                    result = await told(process)
                    assert (result["moved"], result["dropped"]) == (options.count, 0), result
                    await source.send("end\n")
        return float(options.count / (result["ended"] - began))

    async def _run(self, name: str, url: str) -> float:
        await trio.to_thread.run_sync(self._subject.prepare, url)
        return await (self.bare if name in self._subject.bare else self.route)(name, url)

    async def measure(self, _: argparse.Namespace) -> Mapping[str, Any]:
        subject, options = self._subject, self._options
        reason = await trio.to_thread.run_sync(subject.why_not)
        if reason is not None:
            raise SystemExit(f"benchmarks: no broker for {subject.name}: {reason}")
        rates: dict[str, list[float]] = {name: [] for name in (*subject.bare, *subject.routes)}
        with tempfile.TemporaryDirectory() as folder:
            broker, url = subject.broker(Path(folder))
            try:
                await trio.to_thread.run_sync(broker.start)
                for _warm in range(WARM):
                    for name in subject.bare:
                        await self._run(name, url())
                for _round in range(options.rounds):
                    for name, found in rates.items():
                        found.append(await self._run(name, url()))
            finally:
                await trio.to_thread.run_sync(broker.stop)
        medians = {name: statistics.median(found) for name, found in rates.items()}
        ratios = {
            route: statistics.median(a / b for a, b in zip(rates[route], rates[bare], strict=True))
            for route, bare in subject.compare.items()
        }
        return {
            "settings": {"count": options.count, "size": options.size, "rounds": options.rounds},
            "rates": rates,
            "medians": medians,
            "of": ratios,
            "met": {
                f"{route} >= {GOAL} x {bare}": ratios[route] >= GOAL
                for route, bare in subject.compare.items()
            },
        }

    def show(self, result: Mapping[str, Any]) -> None:
        medians, settings = result["medians"], result["settings"]
        rows = [
            [
                name,
                f"{medians[name]:,.0f}",
                f"{result['of'][name]:.2f} of {self._subject.compare[name]}" if name in result["of"] else "",
                f"{(max(found) - min(found)) / medians[name]:.0%}",
            ]
            for name, found in result["rates"].items()
        ]
        title = f"to {self._subject.name}: {settings['count']:,} messages of {settings['size']} B, {settings['rounds']} rounds"
        print_table(title, ["", "messages/s", "is", "spread"], rows, sys.stdout)


def main(subject: Subject, arguments: Sequence[str]) -> int:
    """0: measured, and the claims held; 1: one did not; 2: usage."""
    if arguments[:1] == ["--as"]:
        role, *words = arguments[1:]
        if role == "bare":
            subject.bare[words[0]](words[1], int(words[2]), int(words[3]))
        elif role == "publisher":
            trio.run(publisher, words[0], int(words[1]), int(words[2]))
        else:
            trio.run(bridge, subject, *words[1:4], int(words[4]), subject.routes[words[0]])
        return 0
    parser = figures.parser(
        subject.name, f"Measure a bridge's export to {subject.name} beside its bare client."
    )
    parser.add_argument(
        "--count", type=int, default=subject.count, metavar="N", help=f"messages a round ({subject.count})"
    )
    parser.add_argument("--size", type=int, default=256, metavar="N", help="bytes a message (256)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds (5)")
    options = parser.parse_args(arguments)
    if not 0 < options.count <= MOST:
        parser.error(f"--count is 1 to {MOST}")
    rounds = Rounds(subject, options)
    return figures.run(options, rounds.measure, rounds.show)
