"""``mesh.supervise``: when a task is begun again, when not, and how long that takes."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

import mesh


class Task:
    """Fails or returns as it is told, and notes when it was begun."""

    def __init__(self, *outcomes: BaseException | None, lasts: float = 0.0) -> None:
        self.outcomes = list(outcomes)
        self.lasts = lasts
        self.begun: list[float] = []

    async def __call__(self, *args: Any) -> None:
        self.begun.append(trio.current_time())
        await trio.sleep(self.lasts)
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if outcome is not None:
            raise outcome


async def test_a_return_is_the_end(autojump_clock: trio.testing.MockClock) -> None:
    task = Task()
    await mesh.supervise(task)
    assert len(task.begun) == 1


async def test_a_failure_is_tried_again_with_its_arguments(autojump_clock: trio.testing.MockClock) -> None:
    seen: list[Any] = []

    async def flaky(*args: Any) -> None:
        seen.append(args)
        if len(seen) < 3:
            raise ValueError

    await mesh.supervise(flaky, 1, "two")
    assert seen == [(1, "two")] * 3


async def test_never(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(KeyError):
        await mesh.supervise(Task(KeyError("k")), restart="never")
    await mesh.supervise(Task(), restart="never")


async def test_always(autojump_clock: trio.testing.MockClock) -> None:
    task = Task(lasts=1.0)
    with trio.move_on_after(50):
        await mesh.supervise(task, restart="always", max_restarts=1000)
    assert 10 <= len(task.begun) <= 50


async def test_too_many_within_the_time_and_the_last_failure_is_the_callers(
    autojump_clock: trio.testing.MockClock,
) -> None:
    last = ValueError("the last")
    task = Task(*[KeyError(n) for n in range(3)], last)
    with pytest.raises(ValueError) as caught:
        await mesh.supervise(task, max_restarts=3, within=1000)
    assert caught.value is last
    assert len(task.begun) == 4
    with pytest.raises(RuntimeError, match="sensor ended"):
        await mesh.supervise(Task(), name="sensor", restart="always", max_restarts=2)


async def test_failures_far_apart_are_forgiven(autojump_clock: trio.testing.MockClock) -> None:
    task = Task(*[ValueError(n) for n in range(20)], lasts=31.0)
    await mesh.supervise(task, max_restarts=2, within=60)
    assert len(task.begun) == 21


async def test_backoff_doubles_to_a_ceiling_with_jitter(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: high)  # the longest that jitter allows
    task = Task(*[ValueError(n) for n in range(8)])
    await mesh.supervise(task, max_restarts=100, within=1000, backoff=(0.5, 8.0))
    pauses = [after - before for before, after in zip(task.begun, task.begun[1:], strict=False)]
    assert pauses == pytest.approx([0.5, 1, 2, 4, 8, 8, 8, 8])


async def test_backoff_falls_back_after_a_long_run(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    task = Task(*[ValueError(n) for n in range(4)])
    begun: list[float] = []

    async def run() -> None:
        begun.append(trio.current_time())
        await trio.sleep(100 if len(begun) == 3 else 0)
        await task()

    await mesh.supervise(run, max_restarts=100, within=60, backoff=(1.0, 64.0))
    pauses = [after - before for before, after in itertools.pairwise(begun)]
    assert pauses == pytest.approx([1, 2, 101, 2])


async def test_cancelling_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    task = Task(*[ValueError(n) for n in range(1000)], lasts=1.0)
    with trio.move_on_after(10) as scope:
        await mesh.supervise(task, max_restarts=1000, within=10)
    assert scope.cancelled_caught


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_what_ends_a_program_ends_it(error: type[BaseException]) -> None:
    with pytest.raises(error):
        await mesh.supervise(Task(error()))


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"restart": "sometimes"}, "restart"),
        ({"backoff": (5, 1)}, "backoff"),
        ({"backoff": (-1, 1)}, "backoff"),
    ],
)
async def test_wrong_policies(options: dict[str, Any], key: str) -> None:
    with pytest.raises(mesh.ConfigError) as caught:
        await mesh.supervise(Task(), **options)
    assert caught.value.key == key


async def test_restarts_are_logged_by_name(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="mesh.supervise"):
        await mesh.supervise(Task(ValueError("broken")), name="sensor")
    assert caplog.messages == ["sensor failed: ValueError('broken'); restarting"]


async def test_in_a_nursery(autojump_clock: trio.testing.MockClock) -> None:
    task = Task(ValueError())
    supervised: Callable[..., Any] = partial(mesh.supervise, task, name="t")
    async with trio.open_nursery() as nursery:
        await nursery.start(supervised)
    assert len(task.begun) == 2
