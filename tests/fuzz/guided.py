"""Fuzzing that follows coverage (atheris, on libFuzzer): one target in a process of its own, which ends with it.

    python -m tests.fuzz.guided TARGET SECONDS SEED [FOLDER]

``FOLDER`` gets what goes where nothing before it went; ``tests/fuzz/corpus`` and the golden vectors are where it begins.
"""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
import time
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["mesh"]):
    from tests.fuzz.targets import DECLARED, SLOW, TARGETS, corpus, seeds

LENGTH = 65536
OVERHEAD = 5
"""Instrumented code, on a machine that does other things as well."""


class TooSlow(Exception):
    """An input took too long, again and again."""


def main() -> None:
    name, seconds, seed, *folder = sys.argv[1:]
    target = TARGETS[name]

    def once(data: bytes) -> float:
        began = time.thread_time()
        try:
            target(data)
        except DECLARED:
            pass
        return time.thread_time() - began

    def one(data: bytes) -> None:
        if once(data) > OVERHEAD * SLOW and min(once(data) for _ in range(3)) > OVERHEAD * SLOW:
            raise TooSlow(f"{len(data)} bytes")

    begin = Path(tempfile.mkdtemp(prefix="zeromesh-fuzz-"))
    atexit.register(shutil.rmtree, begin, ignore_errors=True)
    for number, data in enumerate(seeds() + corpus(name)):
        (begin / str(number)).write_bytes(data)
    folders = [*folder, str(begin)]
    options = [
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        f"-max_len={LENGTH}",
        "-verbosity=0",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, *(each for each in folders if Path(each).is_dir())], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
