"""Nothing that a test run starts outlives the run, however that ends.

``hold()`` marks this process's environment, which whatever it starts inherits, however far down, and starts a helper
that waits for the end of a pipe whose other end this process alone holds. When that closes (the run is over, or was
killed with SIGKILL), the helper kills what still carries the mark. Every worker of pytest-xdist holds a leash of its
own. Where there is no ``/proc`` nothing is held.

Not PR_SET_PDEATHSIG: that fires when the *thread* that started a child ends, and children of children don't inherit it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

__all__ = ["MARK", "hold", "unmarked"]

MARK = "ZEROMESH_TEST_RUN"


holding: list[subprocess.Popen[bytes]] = []
"""Kept, since a Popen that is forgotten while its process runs is a ResourceWarning."""


@cache
def hold() -> None:
    """Mark the environment and start the helper, once a process."""
    if not Path("/proc/self/environ").exists():
        return
    environment = unmarked()
    os.environ[MARK] = f"{os.getpid()}-{os.urandom(8).hex()}"
    # Its standard input closes when this process ends: the other end is inherited by nobody. A session of its
    # own: Ctrl-C is not for it.
    holding.append(
        subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, os.environ[MARK]],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
    )


def unmarked() -> dict[str, str]:
    """The environment for what must not be cut off in the middle, as an installation."""
    return {name: value for name, value in os.environ.items() if name != MARK}


def marked(mark: str) -> Iterator[int]:
    wanted = f"{MARK}={mark}".encode()
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):  # it has just ended, or is another user's
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    yield int(folder.name)


def main(mark: str) -> None:
    sys.stdin.buffer.read()
    # Once more after each that was found: it may have started another meanwhile.
    while found := list(marked(mark)):
        for pid in found:
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                os.kill(pid, signal.SIGKILL)
                said = b" ".join(words).decode(errors="replace")[:200]
                print(f"zeromesh: the tests left process {pid} behind: {said}", file=sys.stderr)
        time.sleep(0.02)  # a process that was killed takes a moment to be gone


if __name__ == "__main__":
    main(sys.argv[1])
