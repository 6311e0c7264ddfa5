"""``python -m tests.simulation``: many seeds; what fails is named, and replays exactly."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.mesh import Broken, Simulation


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    options.add_argument("--seeds", type=int, default=100, metavar="N", help="how many (100)")
    options.add_argument("--first", type=int, default=0, metavar="SEED", help="the first of them (0)")
    options.add_argument("--trace", action="store_true", help="print what happens")
    asked = options.parse_args()
    began = time.monotonic()
    hours = 0.0
    failed = []
    for seed in range(asked.first, asked.first + asked.seeds):
        simulation = Simulation(seed, print if asked.trace else lambda line: None)
        try:
            simulation.run()
        except Broken as broken:
            failed.append(seed)
            print(f"seed {seed}: {broken}", file=sys.stderr)
        hours += simulation.world.clock / 3600
        if asked.seeds == 1:
            print(f"seed {seed}: {simulation.digest()}")
    took = time.monotonic() - began
    print(
        f"{asked.seeds} seeds, {hours:.1f} simulated hours in {took:.0f} s, {len(failed)} failed {failed or ''}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
