"""A process that was kept from running notices, and says so to its engine."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import mesh
from mesh.node.node import Node
from tests.node.meshes import MemoryMeshes

LAN = mesh.Config.lan()


def told(node: Node) -> list[tuple[str, float]]:
    """What its engine is told of lateness from now on."""
    seen: list[tuple[str, float]] = []
    engine = node._board.engine

    def late(seconds: float, clock: float) -> None:
        seen.append(("late", seconds))

    def awoke(clock: float, away: float) -> None:
        seen.append(("away", away))

    engine.late = late  # type: ignore[method-assign]
    engine.awoke = awoke  # type: ignore[method-assign]
    return seen


@pytest.mark.parametrize(("seconds", "said"), [(0.05, []), (0.5, ["late"]), (4.0, ["away"])])
async def test_a_timer_that_comes_late(
    autojump_clock: trio.testing.MockClock, seconds: float, said: list[str]
) -> None:
    async with MemoryMeshes().open(config=LAN) as node:
        await trio.testing.wait_all_tasks_blocked()
        seen = told(node)
        # Everybody is held up until that much later than the next timer is due.
        autojump_clock.jump(node._board.pump._due - trio.current_time() + seconds)
        await trio.testing.wait_all_tasks_blocked()
        assert [kind for kind, _ in seen] == said
        assert all(abs(by - seconds) < 0.01 for _, by in seen)
