"""Whatever ends the tests, what they started ends too."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tests.lab import running
from tests.sources import ROOT

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="NO /proc: nothing is held")

GRANDCHILD = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"

TESTS = f"""
import subprocess, sys
from tests.lab import hold

hold()
child = "import subprocess, sys; subprocess.run([sys.executable, '-c', {GRANDCHILD!r}], start_new_session=True)"
print("holding", flush=True)
subprocess.run([sys.executable, "-c", child])
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_what_a_run_started_ends_with_it(number: signal.Signals) -> None:
    """A grandchild in a session of its own is killed when the run is; its output's end is how we know."""
    async with running([sys.executable, "-c", TESTS], env={"PYTHONPATH": str(ROOT)}) as run:
        await run.expect("holding", within=30.0)
        pid = int((await run.expect(r"^\d+$", within=30.0))[0])
        run.signal(number)
        assert await run.wait(within=30.0) == -number  # which also waits for both outputs to be closed
        assert any(f"left process {pid} behind" in line for line in run.stderr), run.report()


async def test_a_run_that_ends_tidily_leaves_nothing_to_say() -> None:
    async with running(
        [sys.executable, "-c", "from tests.lab import hold; hold()"], env={"PYTHONPATH": str(ROOT)}
    ) as run:
        assert await run.wait(within=30.0) == 0
        assert not run.stderr
