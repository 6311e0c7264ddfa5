"""What one more subscriber costs a publisher: ``python -m benchmarks.fanout``.

This process publishes; 1 and then 8 processes subscribe, turn by turn, in interleaved rounds.  What is compared is the CPU
time of the publisher's Python thread a message, which no other program on the machine disturbs as it does a rate.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import trio

import mesh
from benchmarks import figures
from benchmarks.harness import ROOT
from benchmarks.report import print_table

GOAL = 1.2
_TOPIC = "bench/fan-out"
_LISTEN = ("tcp://127.0.0.1:0",)


async def subscribe(home: str, endpoint: str) -> None:
    """A subscriber's process: take everything until standard input ends."""
    async with (
        mesh.open_node("sink", home=home, listen=_LISTEN, connect=[endpoint], discovery=()) as node,
        node.subscribe(_TOPIC, buffer=1 << 20) as subscription,
        trio.open_nursery() as nursery,
    ):

        async def take() -> None:
            async for _ in subscription:
                pass

        nursery.start_soon(take)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


async def publish(subscribers: int, count: int, size: int) -> float:
    """One round: CPU time of the publisher's thread a message, in microseconds."""
    data = bytes(size)
    with tempfile.TemporaryDirectory(prefix="zeromesh-bench-") as home:
        async with (
            mesh.open_node("source", home=home, listen=_LISTEN, discovery=()) as node,
            node.publisher(_TOPIC) as publisher,
            AsyncExitStack() as stack,
        ):
            command = [sys.executable, "-m", "benchmarks.fanout", "--sink", home, node.endpoints[0]]
            sinks = [
                await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, cwd=ROOT)
                for _ in range(subscribers)
            ]
            for sink in sinks:
                stack.callback(sink.kill)
            with trio.fail_after(120):
                await publisher.wait_for_subscribers(subscribers)
            began = time.thread_time()
            for _ in range(count):
                await publisher.publish(data)
            await publisher.flush()
            cpu = time.thread_time() - began
            for sink in sinks:
                assert sink.stdin is not None
                await sink.stdin.aclose()
                await sink.wait()
        return cpu / count * 1e6


async def measure(options: argparse.Namespace) -> Mapping[str, Any]:
    """Rounds of each number of subscribers, interleaved."""
    numbers = (1, options.subscribers)
    runs: dict[int, list[float]] = {number: [] for number in numbers}
    for turn in range(options.rounds):
        for number in numbers if turn % 2 else numbers[::-1]:
            runs[number].append(await publish(number, options.count, options.size))
    medians = {n: statistics.median(found) for n, found in runs.items()}
    ratio = medians[options.subscribers] / medians[1]
    return {
        "runs": {str(number): found for number, found in runs.items()},
        "medians": {str(number): median for number, median in medians.items()},
        "ratio": ratio,
        "met": {
            f"{options.subscribers} subscribers cost at most {GOAL} × one ({ratio:.2f} ×)": ratio <= GOAL
        },
    }


def show(result: Mapping[str, Any]) -> None:
    rows = [[f"{number} subscribers", f"{median:.3f}"] for number, median in result["medians"].items()]
    print_table("publisher's Python thread", ["", "CPU µs a message"], rows, sys.stdout)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = figures.parser("fanout", "Measure what subscribers cost their publisher.")
    parser.add_argument(
        "--subscribers", type=int, default=8, metavar="N", help="compared with one (default: 8)"
    )
    parser.add_argument("--count", type=int, default=200_000, metavar="N", help="messages a round")
    parser.add_argument("--size", type=int, default=64, metavar="N", help="bytes a message")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds")
    parser.add_argument("--sink", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.sink:
        trio.run(subscribe, *options.sink)
        return 0
    return figures.run(options, measure, show)


if __name__ == "__main__":
    sys.exit(main())
