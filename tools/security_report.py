"""docs/security-report.md: what attacks on a node achieve, measured.

    python tools/security_report.py          print it
    python tools/security_report.py --write  write it

Two processes of one mesh, a victim and a friend that asks it all the time; an outsider with real sockets attacks, one
way after the other (``tests/hostile``).  Chance comes from the system: the attacks need no seed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.hostile.attacks import ATTACKS, quiet
from tests.hostile.stage import MEMORY, Figures, stage

FILE = Path(__file__).parent.parent / "docs" / "security-report.md"

HEAD = """# Security report

Made by `python tools/security_report.py --write`, at commit {commit}. A victim that publishes and serves, a friend that
asks it all the time, and an outsider with real sockets on the same machine, so that the attack, the victim and the friend share its cores.
What each attack is stands in `tests/hostile/attacks.py`; `tests/hostile` holds the first two columns at 0 and the third below
{limit} MiB in every run of the tests.

| attack | application bytes leaked | messages and peers accepted | memory grown | sent | refused | live peer's p99 | its round trips |
|---|--:|--:|--:|--:|--:|--:|--:|
"""

TAIL = """
*Refused* counts what the victim counted by reason meanwhile; *memory grown* is the victim's resident set after the attack less before.
The first line is the same second without an attack.

Elsewhere in the tests: every bit of a sealed frame flipped, replayed and reordered frames (`tests/core/test_envelope.py`); floods and forgeries of
mDNS and scout (`tests/discovery`); a stolen token and a revoked member's keys (`tests/core/test_revocation.py`); members that
break rules (`tests/core/test_rules.py`, `tests/node/test_rules.py`); wild contents in every message
(`tests/core/test_engine_hostile.py`).
"""


def row(name: str, it: Figures) -> str:
    return (
        f"| {name.replace('_', ' ')} | {it.leaked} | {it.accepted} | {it.grown / 2**20:.1f} MiB "
        f"| {it.sent / 1000:.0f} kB | {it.rejected} | {it.p99 * 1000:.1f} ms | {it.trips} |\n"
    )


async def measure(commit: str) -> str:
    text = HEAD.format(commit=commit, limit=MEMORY >> 20)
    with tempfile.TemporaryDirectory() as folder:
        async with stage(Path(folder)) as victim:
            for name, attack in {"no attack": quiet, **ATTACKS}.items():
                text += row(name, await victim.measure(attack))
    return text + TAIL


def main() -> None:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    text = trio.run(measure, done.stdout.strip())
    if "--write" in sys.argv:
        FILE.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
