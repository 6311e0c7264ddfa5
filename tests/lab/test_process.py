"""Programs as tests see them."""

from __future__ import annotations

import signal
import sys

import pytest

from tests.lab import running

ECHO = (
    "import sys\nprint('ready', flush=True)\nfor line in sys.stdin: print('heard', line.strip(), flush=True)"
)


async def test_lines_come_as_they_are_printed() -> None:
    async with running([sys.executable, "-c", ECHO]) as program:
        await program.expect("^ready$")
        await program.send("one\ntwo\n")
        assert (await program.expect("^heard (.*)"))[1] == "one"
        assert (await program.expect("^heard (.*)"))[1] == "two"
        await program.close_stdin()
        assert await program.wait() == 0
    assert program.stdout == ["ready", "heard one", "heard two"]


async def test_the_end_of_a_program_is_a_failure_that_shows_what_it_said() -> None:
    async with running([sys.executable, "-c", "import sys; sys.exit('no such thing')"]) as program:
        with pytest.raises(AssertionError, match="no such thing"):
            await program.expect("ready")
        assert await program.wait() == 1


async def test_silence_is_a_failure_in_bounded_time() -> None:
    async with running([sys.executable, "-c", ECHO]) as program:
        with pytest.raises(AssertionError, match=r"within 0\.1 s"):
            await program.expect("never", within=0.1)


async def test_what_a_test_leaves_running_is_stopped() -> None:
    async with running([sys.executable, "-c", ECHO]) as program:
        await program.expect("^ready$")
        program.signal(signal.SIGSTOP)
    assert program.process.returncode == -signal.SIGTERM
