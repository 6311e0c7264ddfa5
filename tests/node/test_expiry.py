"""Deadlines in one heap: told in time, in order, not of what has ended, and swept out."""

from __future__ import annotations

import math

import trio
import trio.testing

from mesh.node.expiry import Expiry


async def test_each_is_told_of_at_its_time(autojump_clock: trio.testing.MockClock) -> None:
    told: list[tuple[int, float]] = []
    alive = set(range(6))
    begun = trio.current_time()
    expiry = Expiry(alive, lambda number: told.append((number, trio.current_time() - begun)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expiry.run)
        for number, after in enumerate((5.0, 1.0, 3.0, 0.0, -1.0, math.inf)):
            expiry.add(begun + after, number)
        await trio.sleep(2)
        alive.discard(2)  # it ended in time
        expiry.add(begun + 4, 1)  # earlier than what the task sleeps for
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert [(number, round(when, 3)) for number, when in told] == [(4, 0), (3, 0), (1, 1), (1, 4), (0, 5)]


async def test_what_has_ended_takes_no_room_for_ever() -> None:
    alive: set[int] = set()
    expiry = Expiry(alive, lambda number: None)
    for number in range(100_000):
        alive.add(number)
        expiry.add(1e9 + number, number)
        if number >= 50:
            alive.discard(number - 50)
    assert len(expiry) < 3000
