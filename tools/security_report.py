"""docs/security-report.md: what attacks on a node achieve, measured.

    python tools/security_report.py [SEED]           print it
    python tools/security_report.py --write [SEED]   write it
    python tools/security_report.py --short [SEED]   a tenth of everything, as the tests do it

Two processes of one mesh, a victim and a friend that asks it all the time; an attacker with real sockets attacks, one
way after the other (``tests/hostile``), on three stages: beside them, on the path between them, and on a LAN of three
network namespaces.  Then every parser is fuzzed for a while.  The attackers' choices follow from the seed; keys and nonces of the nodes come from
the system.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.fuzz.targets import fuzz
from tests.hostile.attacks import quiet
from tests.hostile.stage import MEMORY, Attack, Figures, Stage, lan_stage, stage
from tests.hostile.suite import LAN, OUTSIDE, PATH
from tests.lab import Lan, why_not

FILE = Path(__file__).parent.parent / "docs" / "security-report.md"
FUZZING = 60.0  # seconds

HEAD = """# Security report

Made by `make security-report` (`python tools/security_report.py --write`) at commit {commit}, seed {seed}, Python {python}, {cpus} CPUs. A victim
that publishes and serves, a friend that asks it all the time and publishes numbers, and an attacker with real sockets
on the same machine, so that the attack, the victim and the friend share its cores. What each attack is stands in
`tests/hostile`, which holds the first two columns at 0 and the third below {limit} MiB, in short, in every run of the tests.

*Leaked* is bytes of the application that the attacker got in clear; *accepted* is messages, requests and peers that the
victim took from him, and handshakes that went through and should not; *memory grown* is the victim's resident set after
the attack less before; *refused* is what the victim counted by reason meanwhile. *p99* is the friend's round trips during the
attack. The first line of each table is the same without an attack.
"""

TABLE = """
## {title}

| attack | leaked | accepted | memory grown | sent | refused | live peer's p99 | its round trips |
|---|--:|--:|--:|--:|--:|--:|--:|
"""

STAGES = {
    "An outsider on the victim's machine": OUTSIDE,
    "On the path between the two": PATH,
    "On the same LAN: lies to discovery": LAN,
}

PARSERS = """
## Parsers

`make fuzz MINUTES=n` goes on with this; the same targets, the same bounds.

| parser | inputs | slowest, ms of a processor |
|---|--:|--:|
"""

TAIL = """
Elsewhere in the tests: the nonce audit (`tests/core/test_nonces.py`), the capture of a whole conversation and the search of
logs for secrets (`tests/hostile/test_secrets.py`), a hostile peer with a live session (`tests/core/test_hostile_peer.py`), members that
break rules (`tests/core/test_rules.py`, `tests/node/test_rules.py`), the known answers of the key schedule (`tests/vectors/`).
"""


def row(name: str, it: Figures) -> str:
    return (
        f"| {name} | {it.leaked} | {it.accepted} | {it.grown / 2**20:.1f} MiB "
        f"| {it.sent / 1000:.0f} kB | {it.rejected} | {it.p99 * 1000:.1f} ms | {it.trips} |\n"
    )


@asynccontextmanager
async def opened(
    attacks: Mapping[str, Attack], folder: Path, scale: float, seed: int
) -> AsyncIterator[Stage]:
    if attacks is LAN:
        with Lan(3) as lan:
            async with lan_stage(lan, folder, scale, seed) as victim:
                yield victim
    else:
        async with stage(folder, scale, seed, tapped=attacks is PATH) as victim:
            yield victim


async def measure(commit: str, seed: int, scale: float) -> str:
    text = HEAD.format(
        commit=commit, seed=seed, python=platform.python_version(), cpus=os.cpu_count(), limit=MEMORY >> 20
    )
    for title, attacks in STAGES.items():
        if attacks is LAN and why_not():
            text += f"\n## {title}\n\nNot played: {why_not()}.\n"
            continue
        text += TABLE.format(title=title)
        with tempfile.TemporaryDirectory() as folder:
            async with opened(attacks, Path(folder), scale, seed) as victim:
                for name, attack in {"no attack": quiet, **attacks}.items():
                    text += row(name, await victim.measure(attack))
    text += PARSERS
    for name, (tried, slowest) in fuzz(FUZZING * scale, seed).items():
        text += f"| {name} | {tried} | {slowest * 1000:.2f} |\n"
    return text + TAIL


def main() -> None:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    seeds = [int(word) for word in sys.argv[1:] if word.isdigit()]
    seed = seeds[0] if seeds else int.from_bytes(os.urandom(4), "big")
    text = trio.run(measure, done.stdout.strip(), seed, 0.1 if "--short" in sys.argv else 1.0)
    if "--write" in sys.argv:
        FILE.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
