"""make fuzz MINUTES=n: every parser that foreign bytes reach, fed with broken vectors, for longer than a test may take.

python tools/fuzz.py MINUTES [SEED]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.fuzz.targets import SLOW, fuzz


def main() -> int:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}, {minutes:g} minutes")
    slow = False
    for name, (tried, slowest) in fuzz(minutes * 60, seed).items():
        print(f"{name:14} {tried:9} inputs, the slowest {slowest * 1000:.2f} ms")
        slow = slow or slowest >= SLOW
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
