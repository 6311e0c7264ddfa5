"""How soon a node that starts is of use: ``python -m benchmarks.join``.

Two hosts (network namespaces). On one a node has been running; on the other a fresh process opens one,
publishes as soon as somebody is subscribed, then subscribes; again and again, for each choice
of discovery. Times are from the call of ``open_node()``:

    out    the newcomer's first message is delivered at the resident
    in     the resident's first message is delivered at the newcomer

and, of the newcomer, when each step on the way was first done (``STEPS``). Both processes read the
same monotonic clock. Interpreter start and imports are before the call and not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import trio

from benchmarks import figures
from benchmarks.report import print_table
from tests.lab import Lan, why_not

STEPS = {
    "credentials": "home read, papers ready",
    "bound": "sockets bound, self-test passed",
    "heard": "discovery reported the resident",
    "dialled": "its intro socket dialled",
    "introduced": "certificates checked",
    "attached": "its Attach arrived: its direct link works",
    "joined": "both planes proven",
    "opened": "open_node() entered",
    "out": "first message out delivered",
    "subscribed": "subscription live",
    "in": "first message in delivered",
}
GOALS = {"mdns": 0.3, "scout": 0.1, "mdns,scout": 0.1}
"""Seconds that the median of ``out`` and ``in`` has to stay below."""


# -- the two programs -------------------------------------------------------------


async def resident(home: str, discovery: list[str]) -> None:
    """Deliver what newcomers publish; publish once to each that subscribes."""
    import mesh

    async with mesh.open_node("resident", home=home, discovery=discovery) as node:

        async def greet() -> None:
            async with node.publisher("join/in") as publisher:
                async for event in node.watch_peers():
                    if isinstance(event, mesh.PeerJoined):
                        await publisher.wait_for_subscribers(1)
                        await publisher.publish(event.peer.name)

        async with trio.open_nursery() as nursery, node.subscribe("join/out") as messages:
            nursery.start_soon(greet)
            print("ready", flush=True)
            async for message in messages:
                print("out", json.dumps([message.value, time.monotonic()]), flush=True)


async def newcomer(name: str, home: str, discovery: list[str]) -> None:
    """Open, publish, subscribe, receive; print when."""
    import mesh

    stamps: dict[str, float] = {}
    watch(stamps)
    open_node = mesh.open_node  # imports what it needs
    began = time.monotonic()
    async with open_node(name, home=home, discovery=discovery) as node:
        stamps["opened"] = time.monotonic()
        async with node.publisher("join/out") as publisher:
            await publisher.wait_for_subscribers(1)
            await publisher.publish(name)
            async with node.subscribe("join/in") as messages:
                stamps["subscribed"] = time.monotonic()
                async for message in messages:
                    if message.value == name:
                        stamps["in"] = time.monotonic()
                        break
    print("stamps", json.dumps({"began": began, **stamps}), flush=True)


def watch(stamps: dict[str, float]) -> None:
    """Note when the steps inside are first done, from the outside."""
    from mesh.core.links import Links
    from mesh.node.lookout import Lookout
    from mesh.node.node import Node
    from mesh.node.pump import Pump

    def note(owner: type, method: str, step: str, *, after: bool = False) -> None:
        function: Callable[..., Any] | None = getattr(owner, method, None)
        if function is None:
            return  # renamed since: the table then shows a gap

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if not after:
                stamps.setdefault(step, time.monotonic())
            result = function(*args, **kwargs)
            if after and result is not False:
                stamps.setdefault(step, time.monotonic())
            return result

        setattr(owner, method, wrapped)

    note(Node, "__init__", "credentials")
    note(Lookout, "run", "bound")
    note(Lookout, "_found", "heard")
    note(Pump, "_dial", "dialled")
    note(Links, "introduce", "introduced")
    note(Links, "heard_attach", "attached")
    note(Links, "progress", "joined", after=True)


# -- the measurement --------------------------------------------------------------


async def one(net: Lan, home: str, discovery: str, tries: int) -> list[dict[str, float]]:
    """The stamps of every try, in seconds since open_node() was called."""
    program = [sys.executable, "-m", "benchmarks.join"]
    runs = []
    async with net[0].running([*program, "--as", f"resident {home} {discovery}"]) as first:
        await first.expect("^ready$")
        for number in range(tries):
            name = f"newcomer-{number}"
            role = f"newcomer {name} {home} {discovery}"
            async with net[1].running([*program, "--as", role]) as second:
                stamps = json.loads((await second.expect("^stamps (.*)", within=20))[1])
                sent, at = json.loads((await first.expect("^out (.*)", within=20))[1])
                assert sent == name, "a message of an earlier newcomer"
                assert await second.wait() == 0, second.report()
            began = stamps.pop("began")
            runs.append({step: when - began for step, when in {**stamps, "out": at}.items()})
    return runs


async def measure(options: argparse.Namespace) -> Mapping[str, Any]:
    if reason := why_not():
        raise SystemExit(f"benchmarks: no network namespaces, so there are no two hosts: {reason}")
    runs, summary, met = {}, {}, {}
    for discovery in options.discovery.split(";"):
        with tempfile.TemporaryDirectory(prefix="zeromesh-join-") as home, Lan(2) as net:
            runs[discovery] = await one(net, home, discovery, options.tries)
        summary[discovery] = {
            step: figures.quantiles([run[step] for run in runs[discovery] if step in run]) for step in STEPS
        }
        goal = GOALS.get(discovery)
        if goal is not None:
            for way in ("out", "in"):
                claim = f"{discovery}: open_node() to first message {way}, p50 < {goal} s"
                met[claim] = summary[discovery][way]["p50"] < goal
    return {"runs": runs, "summary": summary, "met": met}


def show(result: Mapping[str, Any]) -> None:
    shown = figures.milliseconds
    for discovery, steps in result["summary"].items():
        rows, before = [], 0.0
        for step, meaning in STEPS.items():
            found = steps[step]
            gain = found["p50"] - before
            before = found["p50"]
            rows.append(
                [
                    f"{step}: {meaning}",
                    shown(found["p50"]),
                    shown(gain),
                    *(shown(found[key]) for key in ("p90", "min", "max")),
                ]
            )
        title = (
            f"discovery {discovery}: milliseconds from open_node(), {steps['out']['count']} fresh processes"
        )
        print_table(title, ["step", "p50", "+", "p90", "min", "max"], rows, sys.stdout)


def main() -> int:
    parser = figures.parser("join", "From open_node() to the first message delivered, between two hosts.")
    parser.add_argument(
        "--tries", type=int, default=15, metavar="N", help="fresh processes each (default: 15)"
    )
    parser.add_argument(
        "--discovery", default=";".join(GOALS), metavar="A;B,C", help="mechanisms, each choice"
    )
    parser.add_argument("--as", dest="role", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        what, *words, discovery = options.role.split(" ")
        program: Any = {"resident": resident, "newcomer": newcomer}[what]
        trio.run(program, *words, discovery.split(","))
        return 0
    del options.role
    return figures.run(options, measure, show)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        os._exit(130)
