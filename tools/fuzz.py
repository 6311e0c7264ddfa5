"""make fuzz MINUTES=n: every parser that foreign bytes reach, for longer than a test may take.

python tools/fuzz.py MINUTES [SEED]

With the extra ``fuzz`` (atheris) the inputs follow coverage, a process for each parser; without it, and for the time that one input
takes, broken vectors and corpus are tried. Exit code 1 if an input took too long, and a traceback if one raised what it must not.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.fuzz.targets import SLOW, TARGETS, fuzz

ROOT = Path(__file__).parent.parent


def guided(name: str, seconds: int, seed: int) -> bool:
    """Whether the target stood it."""
    command = [sys.executable, "-m", "tests.fuzz.guided", name, str(seconds), str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    tried = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    print(
        f"{name:14} {tried[1] if tried else 0:>9} inputs by coverage{'' if done.returncode == 0 else ': FAILED'}",
        flush=True,
    )
    if done.returncode:
        sys.stderr.write(done.stderr[-8000:])
    return done.returncode == 0


def main() -> int:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int.from_bytes(os.urandom(4), "big")
    seconds = minutes * 60
    print(f"seed {seed}, {minutes:g} minutes", flush=True)
    good = True
    if importlib.util.find_spec("atheris"):
        seconds /= 2
        for name in TARGETS:
            good &= guided(name, max(1, int(seconds / len(TARGETS))), seed % 2**31 or 1)
    for name, (tried, slowest) in fuzz(seconds, seed).items():
        print(f"{name:14} {tried:9} inputs, the slowest {slowest * 1000:.2f} ms")
        good &= slowest < SLOW
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
