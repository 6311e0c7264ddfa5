"""``python -m tests.simulation``: many seeds; what fails is named, and replays exactly."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.simulation.mesh import Broken, Simulation
from tests.simulation.nodes import Episode

KINDS: dict[str, Callable[[int, Callable[[str], None]], Any]] = {
    "engines": Simulation,
    "short": partial(Simulation, short=True),
    "nodes": Episode,
}


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    options.add_argument("--seeds", type=int, default=100, metavar="N", help="how many (100)")
    options.add_argument("--first", type=int, default=0, metavar="SEED", help="the first of them (0)")
    options.add_argument("--kind", choices=[*KINDS, "all"], default="all", help="of what (all)")
    options.add_argument("--trace", action="store_true", help="print what happens")
    asked = options.parse_args()
    began = time.monotonic()
    hours = 0.0
    failed = []
    for seed in range(asked.first, asked.first + asked.seeds):
        for kind in KINDS if asked.kind == "all" else [asked.kind]:
            simulation = KINDS[kind](seed, print if asked.trace else lambda line: None)
            try:
                simulation.run()
            except Exception as broken:  # noqa: BLE001 - policy: a seed that fails in any way is named, and the next is run
                failed.append(seed)
                what = "" if isinstance(broken, Broken) else f"{type(broken).__name__}: "
                again = f"python -m tests.simulation --kind {kind} --seeds 1 --trace --first {seed}"
                print(f"{kind}, seed {seed}: {what}{broken}\n    {again}", file=sys.stderr, flush=True)
            hours += simulation.clock / 3600
            if asked.seeds == 1:
                print(f"{kind}, seed {seed}: {simulation.digest()}")
    took = time.monotonic() - began
    print(
        f"{asked.seeds} seeds, {hours:.1f} simulated hours in {took:.0f} s, {len(failed)} failed {failed or ''}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
