"""A subscriber's process is stopped (SIGSTOP) while its publisher goes on, past everything that pipes can hold."""

from __future__ import annotations

import re
import signal
import sys
from ast import literal_eval
from pathlib import Path
from typing import Any

import pytest
import trio

import mesh
from tests.lab import running

TOTAL = 30_000
SIZE = 2000
STOPPED, GOES_ON = 3_000, 27_000
PATIENCE = 90.0


async def told_after_a_pause(home: Path, **how: Any) -> dict[str, Any]:
    """What the reader has of 30,000 messages, 24,000 of which were published while it stood still."""
    async with (
        mesh.open_node("writer", home=home, listen=["tcp://127.0.0.1:0"], discovery=()) as node,
        node.publisher("t", **how) as publisher,
    ):
        words = [sys.executable, "-m", "tests.chaos.reader", str(home), node.endpoints[0], str(TOTAL)]
        async with running(words) as reader:
            await reader.expect("^live$", within=PATIENCE)
            with trio.fail_after(PATIENCE):
                await publisher.wait_for_subscribers(1)
            for number in range(TOTAL):
                if number == STOPPED:
                    reader.signal(signal.SIGSTOP)
                elif number == GOES_ON:
                    assert node.statistics().congested > 0  # its pipe is full: it is losing messages
                    reader.signal(signal.SIGCONT)
                elif number % 500 == 0:
                    await trio.sleep(0.001)  # what a program does beside it
                await publisher.publish(number.to_bytes(4, "big") + bytes(SIZE))
            await publisher.flush()
            found = await reader.expect("^delivered=", within=PATIENCE)
    told = dict(re.findall(r"(\w+)=(\[.*\]|\w+)", found.string))
    print(told)
    return {name: literal_eval(value) for name, value in told.items()}


async def test_a_reliable_publisher_makes_it_whole(tmp_path: Path) -> None:
    told = await told_after_a_pause(tmp_path, reliable=True, ring=80 << 20)
    assert (told["delivered"], told["lost"], told["duplicates"]) == (TOTAL, 0, 0)
    assert told["ordered"] and told["repaired"] > 0


@pytest.mark.parametrize("how", [{}, {"reliable": True, "ring": 1 << 20}], ids=["plain", "a small ring"])
async def test_otherwise_every_message_that_is_missing_is_named(tmp_path: Path, how: dict[str, Any]) -> None:
    told = await told_after_a_pause(tmp_path, **how)
    assert told["lost"] > 0 and told["ordered"]
    assert told["delivered"] + told["lost"] == TOTAL
    assert sum(count for _, count in told["ranges"]) == told["lost"]
    assert all(STOPPED <= first + count <= TOTAL for first, count in told["ranges"])
