"""Restart a task by policy: what Erlang calls a supervisor, for one task.

The task runs in the caller's own scope: cancelling the scope ends it, and an error that the
policy does not forgive is the caller's to see.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import trio

from mesh.errors import ConfigError

__all__ = ["supervise"]

log = logging.getLogger("mesh.supervise")


async def supervise(
    task: Callable[..., Awaitable[Any]],
    *args: Any,
    name: str | None = None,
    restart: Literal["on_failure", "always", "never"] = "on_failure",
    max_restarts: int = 5,
    within: float = 60.0,
    backoff: tuple[float, float] = (0.1, 10.0),
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run ``task(*args)``, and again when it fails.

    ``restart`` is ``on_failure`` (an exception), ``always`` (a return too) or ``never``.
    More than ``max_restarts`` restarts within ``within`` seconds, and the last
    exception is raised. Between tries it waits a random time below a ceiling that doubles
    from ``backoff[0]`` to ``backoff[1]`` seconds (full jitter), and falls back to the first once
    a run has lasted for ``within``.

        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(mesh.supervise, poll_sensor, node, name="sensor"))
    """
    if restart not in ("on_failure", "always", "never"):
        raise ConfigError(f"{restart!r} is not one of on_failure, always, never", key="restart")
    low, high = backoff
    if not 0 <= low <= high:
        raise ConfigError(f"{backoff!r} is not (lowest, highest) in seconds", key="backoff")
    called = name or getattr(task, "__qualname__", repr(task))
    restarts: deque[float] = deque()
    ceiling = low
    task_status.started()
    while True:
        began = trio.current_time()
        error: Exception | None = None
        try:
            await task(*args)
        except Exception as failure:  # noqa: BLE001
            # Policy: this is what a supervisor is for; what it does not forgive it raises below.
            error = failure
        if restart == "never" or (error is None and restart == "on_failure"):
            if error is not None:
                raise error
            return
        now = trio.current_time()
        if now - began > within:
            ceiling = low
        restarts.append(now)
        while restarts and restarts[0] < now - within:
            restarts.popleft()
        if len(restarts) > max_restarts:
            if error is not None:
                raise error
            raise RuntimeError(f"{called} ended {len(restarts)} times within {within:g} s")
        log.warning("%s %s; restarting", called, f"failed: {error!r}" if error else "ended")
        await trio.sleep(random.uniform(0, ceiling))  # noqa: S311 - jitter, not a secret
        ceiling = min(high, max(ceiling, 0.001) * 2)
