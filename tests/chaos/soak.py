"""Many messages, readers that are too slow, and many that begin at once: real processes on this machine.

python -m tests.chaos.soak [MESSAGES]       (a million; `make soak`)
"""

from __future__ import annotations

import os
import re
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

import mesh
from tests.lab import Host, Running, running
from tests.lan.nodes import LanNode

__all__ = ["Soaked", "begin_at_once", "soak", "too_slow"]

PATIENCE: Final = 120.0
WARM: Final = (
    0.3  # share of the messages after which memory and descriptors are looked at first: caches have filled
)


@dataclass
class Soaked:
    """What a reader says, and how its process and ours grew from ``WARM`` on: bytes, descriptors."""

    told: dict[str, Any]
    rate: float
    grown: int
    descriptors: int


def resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _words(home: Path, node: mesh.Node, total: int, *slow: object) -> list[str]:
    return [
        sys.executable,
        "-m",
        "tests.chaos.reader",
        str(home),
        node.endpoints[0],
        *map(str, (total, *slow)),
    ]


async def _told(reader: Running, within: float) -> dict[str, Any]:
    found = await reader.expect("^delivered=", within=within)
    said = re.findall(r"(\w+)=(\w+)", found.string)
    return {name: value == "True" if value in ("True", "False") else int(value) for name, value in said}


async def soak(home: Path, total: int, *, size: int = 100) -> Soaked:
    """``total`` reliable messages to a reader in another process."""
    async with (
        mesh.open_node("writer", home=home, listen=["tcp://127.0.0.1:0"], discovery=()) as node,
        node.publisher("t", reliable=True) as publisher,
        running(_words(home, node, total, 0, 65536)) as reader,
    ):
        await reader.expect("^live$", within=PATIENCE)
        with trio.fail_after(PATIENCE):
            await publisher.wait_for_subscribers(1)
        warm: list[tuple[int, int]] = []
        began, value = time.monotonic(), bytes(size)
        for number in range(total):
            await publisher.publish(value)
            if number == int(total * WARM):
                warm = [(resident(pid), descriptors(pid)) for pid in (os.getpid(), reader.pid)]
        await publisher.flush()
        end = [(resident(pid), descriptors(pid)) for pid in (os.getpid(), reader.pid)]
        took = time.monotonic() - began
        told = await _told(reader, PATIENCE)
    grown = max(after[0] - before[0] for before, after in zip(warm, end, strict=True))
    more = max(after[1] - before[1] for before, after in zip(warm, end, strict=True))
    return Soaked(told, total / took, grown, more)


async def too_slow(home: Path, total: int, *, rate: float = 1000.0) -> tuple[dict[str, Any], dict[str, Any]]:
    """One reader that keeps up, and one that reads a tenth of it into a small buffer: what each of them says."""
    async with (
        mesh.open_node("writer", home=home, listen=["tcp://127.0.0.1:0"], discovery=()) as node,
        node.publisher("t") as publisher,
        running(_words(home, node, total)) as quick,
        running(_words(home, node, total, 10 / rate, 100)) as slow,
    ):
        for reader in (quick, slow):
            await reader.expect("^live$", within=PATIENCE)
        with trio.fail_after(PATIENCE):
            await publisher.wait_for_subscribers(2)
        due = trio.current_time()
        for _ in range(total):
            await publisher.publish(bytes(100))
            due += 1 / rate
            if due > trio.current_time():
                await trio.sleep_until(due)
        await publisher.flush()
        return await _told(quick, PATIENCE), await _told(slow, PATIENCE)


async def begin_at_once(host: Host, home: Path, nodes: int) -> list[float]:
    """Nodes of one host that know each other are all killed, and begun again at the same moment: for each, the seconds from then
    until it sees all the others."""

    async def one(stack: AsyncExitStack, name: str, begun: list[LanNode]) -> None:
        argv = [sys.executable, "-m", "tests.lan.node", name, str(home), "--discovery", "scout"]
        begun.append(LanNode(name, await stack.enter_async_context(host.running(argv))))

    async def everybody(stack: AsyncExitStack) -> list[LanNode]:
        begun: list[LanNode] = []
        for number in range(nodes):
            await one(stack, f"n{number}", begun)
        return begun

    async def full(node: LanNode, times: list[float]) -> None:
        with trio.fail_after(10 * PATIENCE):
            while len({name for _, name in node.events("joined")}) < nodes - 1:
                await node.program.changed()
        times.append(time.monotonic())

    async def met(begun: Sequence[LanNode]) -> list[float]:
        times: list[float] = []
        async with trio.open_nursery() as nursery:
            for node in begun:
                nursery.start_soon(full, node, times)
        return times

    async with AsyncExitStack() as stack:
        first = await everybody(stack)
        await met(first)
        for node in first:
            node.program.signal(signal.SIGKILL)
        began = time.monotonic()
        return [at - began for at in await met(await everybody(stack))]


def main() -> None:
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        soaked = trio.run(soak, Path(folder), total)
    print(
        f"{total} messages, {soaked.rate:.0f} a second: {soaked.told}; from {WARM:.0%} of them on"
        f" {soaked.grown / 2**20:+.1f} MiB, {soaked.descriptors:+d} descriptors"
    )
    whole = soaked.told["delivered"] == total and not soaked.told["duplicates"] and soaked.told["ordered"]
    sys.exit(0 if whole and soaked.grown < 64 << 20 and soaked.descriptors <= 0 else 1)


def p50_p99(times: Sequence[float]) -> str:
    """Both, in seconds; what is there if there are few."""
    if not times:
        return "– | –"
    return (
        f"{statistics.median(times):.2f} | {sorted(times)[min(len(times) - 1, round(0.99 * len(times)))]:.2f}"
    )


if __name__ == "__main__":
    main()
