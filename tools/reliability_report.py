"""docs/reliability-report.md: what is delivered, lost and repaired while hosts and links fail, measured.

    python tools/reliability_report.py [--write] [--times N] [--soak MESSAGES] [--nodes N]

Real processes in network namespaces (root, iproute2): ``tests/chaos``. ``--times`` each fault is done (3), so many ``--soak``
messages (200,000), so many ``--nodes`` begin at once (50).
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.chaos.faults import FAULTS, Figures, harmed
from tests.chaos.soak import begin_at_once, p50_p99, soak, too_slow
from tests.lab import Lan, why_not
from tests.lan.nodes import Mesh

FILE = Path(__file__).parent.parent / "docs" / "reliability-report.md"

HEAD = """# Reliability report

Made by `make reliability-report`, at commit {commit}, on {machine}. Three processes on three hosts (network namespaces joined by a
bridge), each of which publishes 50 plain and 50 reliable messages a second and reads everybody's; one of them is
harmed, {times} times in each way (cables with loss are seeded with 1 to {times}). Messages are counted between processes that lived all
the time; every one is delivered, or known to be lost. Detection is the time until the two others suspect it (the LAN preset:
1.5 s of silence and 1 s for an answer), recovery the time from the end of the fault until messages go both ways again.

| fault | offered | delivered | lost, plain | lost, reliable | twice or out of order | repaired | detection p50 | p99 | recovery p50 | p99 |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
"""

TAIL = """
Times are in seconds. What each fault is stands in `tests/chaos/faults.py`; short forms of some are in every run of the tests. Many
more faults, of whole meshes and in virtual time, are tried by `make simulate`.
"""


def row(name: str, it: Figures) -> str:
    return (
        f"| {name} | {it.offered} | {it.delivered} | {it.lost - it.lost_reliable} | {it.lost_reliable} "
        f"| {it.duplicated + it.disordered} | {it.repaired} | {p50_p99(it.detection)} | {p50_p99(it.recovery)} |\n"
    )


async def measure(commit: str, times: int, messages: int, nodes: int) -> str:
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    text = HEAD.format(commit=commit, machine=machine, times=times)
    for name, fault in FAULTS.items():
        figures = Figures()
        for seed in range(1, times + 1):
            with tempfile.TemporaryDirectory() as folder, Lan(3) as lan:
                figures.add(await harmed(lan, Mesh(Path(folder)), fault, seed=seed))
        print(row(name, figures), end="", file=sys.stderr, flush=True)
        text += row(name, figures)
    with tempfile.TemporaryDirectory() as folder:
        soaked = await soak(Path(folder), messages)
    told = soaked.told
    text += (
        f"\n**A soak.** {messages} reliable messages of 100 bytes to another process, {soaked.rate:.0f} a second: "
        f"{told['delivered']} delivered, {told['lost']} lost, {told['duplicates']} twice, {told['repaired']} repaired. From 30 % of them "
        f"on, memory grew by {soaked.grown / 2**20:.1f} MiB at most and descriptors by {soaked.descriptors}. (`make soak` sends a million, "
        "`make soak MESSAGES=10000000` ten.)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        quick, slow = await too_slow(Path(folder), 10_000)
    text += (
        "\n**A reader that is too slow.** 10000 messages, 1000 a second, to a reader that keeps up and one that reads a tenth of it "
        f"into a buffer of 100. The first had {quick['delivered']}, lost {quick['lost']}, dropped {quick['dropped']}; the second had "
        f"{slow['delivered']}, lost {slow['lost']}, dropped {slow['dropped']}.\n"
    )
    with tempfile.TemporaryDirectory() as folder, Lan(1) as lan:
        joined = await begin_at_once(lan[0], Path(folder), nodes)
    text += (
        f"\n**{nodes} begin at once.** {nodes} processes on this machine, all killed and begun again at the same moment; seconds until "
        f"each sees all the others, p50 and p99: {p50_p99(joined).replace(' | ', ' and ')}.\n"
    )
    return text + TAIL


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--write", action="store_true")
    options.add_argument("--times", type=int, default=3)
    options.add_argument("--soak", type=int, default=200_000)
    options.add_argument("--nodes", type=int, default=50)
    asked = options.parse_args()
    reason = why_not()
    if reason is not None:
        sys.exit(f"the hosts of this report are network namespaces: {reason}")
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    text = trio.run(measure, done.stdout.strip(), asked.times, asked.soak, asked.nodes)
    if asked.write:
        FILE.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
