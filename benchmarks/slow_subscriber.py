"""What others feel of a slow subscriber that its publisher waits for: their p99 alone, and beside it.

    python -m benchmarks.slow_subscriber [--messages N] [--rounds N]

Three nodes in one process over ZeroMQ on the loopback: a publisher at a steady pace, a quick subscriber, and (in every second
round) one with ``overflow="backpressure"`` and a buffer of ten that takes messages at half the pace.  Latencies are from the
call of ``publish`` to the quick subscriber's loop.  Rounds alternate, so that what else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import trio

import mesh

_PACE: Final = 0.002  # seconds between two messages
_SLOW: Final = 0.004  # seconds that the slow subscriber spends on each
_BUFFER: Final = 10
GOAL: Final = 1.5


def p99(latencies: list[float]) -> float:
    """Seconds; of a sorted copy the value at 99 %."""
    ordered = sorted(latencies)
    return ordered[math.ceil(0.99 * len(ordered)) - 1]


async def measure(publisher_of: Any, quick: Any, slow: Any | None, messages: int) -> list[float]:
    """One round: the quick subscriber's latencies in seconds."""
    latencies: list[float] = []

    async def take(subscription: Any) -> None:
        async for message in subscription:
            latencies.append(time.perf_counter() - message.value)
            if len(latencies) == messages:
                return

    async def dawdle(subscription: Any) -> None:
        async for _ in subscription:
            await trio.sleep(_SLOW)

    async with AsyncExitStack() as stack:
        subscription = await stack.enter_async_context(quick.subscribe("load"))
        nursery = await stack.enter_async_context(trio.open_nursery())
        if slow is not None:
            behind = slow.subscribe("load", overflow="backpressure", buffer=_BUFFER)
            nursery.start_soon(dawdle, await stack.enter_async_context(behind))
        publisher = publisher_of.publisher("load", reliable=True)
        async with trio.open_nursery() as taking:
            taking.start_soon(take, subscription)
            for _ in range(messages):
                await publisher.publish(time.perf_counter())
                await trio.sleep(_PACE)
        nursery.cancel_scope.cancel()
    return latencies


async def run(messages: int, rounds: int) -> tuple[list[float], list[float], int]:
    """Latencies alone and beside the slow one, of all rounds; and how often that was cut off."""
    alone: list[float] = []
    beside: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            nodes: list[Any] = []
            for name in ("publisher", "quick", "slow"):
                opened = mesh.open_node(
                    name,
                    home=Path(folder) / "home",
                    listen=["tcp://127.0.0.1:0"],
                    connect=[endpoint for node in nodes for endpoint in node.endpoints],
                    discovery=(),
                )
                nodes.append(await stack.enter_async_context(opened))
            for node in nodes:
                await node.wait_for_peers(2)
            publisher, quick, slow = nodes
            for _ in range(rounds):
                alone += await measure(publisher, quick, None, messages)
                beside += await measure(publisher, quick, slow, messages)
            return alone, beside, publisher.statistics().cut_off


def main(arguments: Sequence[str] | None = None) -> int:
    """Whether the goal is met: 0 or 1."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=500, help="of each round")
    parser.add_argument("--rounds", type=int, default=3, help="of each kind")
    asked = parser.parse_args(arguments)
    alone, beside, cut_off = trio.run(run, asked.messages, asked.rounds)
    ratio = p99(beside) / p99(alone)
    print(f"others' p99 alone {1e3 * p99(alone):.2f} ms, beside a slow subscriber {1e3 * p99(beside):.2f} ms")
    print(f"ratio {ratio:.2f} (goal: at most {GOAL}); cut off {cut_off} times")
    return 0 if ratio <= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
