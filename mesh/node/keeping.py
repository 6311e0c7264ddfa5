"""What a program asks a publisher to keep, judged before anything is kept."""

from __future__ import annotations

from mesh.config import Config
from mesh.core.outgoing import Line, Outgoing
from mesh.errors import ConfigError
from mesh.node.subscription import MOST_HISTORY

__all__ = ["keep"]


def keep(
    outgoing: Outgoing,
    line: Line,
    config: Config,
    *,
    reliable: bool,
    history: int,
    retain: bool,
    ring: int | None,
) -> None:
    """Keep what is published on ``line`` from now on, as asked. Raises ``ConfigError`` that names the option."""
    if type(history) is not int or not 0 <= history <= MOST_HISTORY:
        raise ConfigError(f"{history!r} is not a number of messages from 0 to {MOST_HISTORY}", key="history")
    if ring is not None and not (reliable or history or retain):
        raise ConfigError("nothing is kept: add reliable=True, history= or retain=True", key="ring")
    if reliable or history or retain:
        size = config.ring_bytes if ring is None else ring
        outgoing.keep(line, size, reliable=reliable, history=history, retain=retain)
