"""What a program asks a publisher to keep, judged before anything is kept."""

from __future__ import annotations

from mesh.config import Config
from mesh.core.outgoing import Line, Outgoing
from mesh.errors import ConfigError

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
    for key, asked in (("history", history), ("retain", retain)):
        if asked:
            raise ConfigError("this version does not have it: leave it out", key=key)
    if ring is not None and not reliable:
        raise ConfigError("only reliable publishers keep something: add reliable=True", key="ring")
    if reliable:
        outgoing.keep(line, config.ring_bytes if ring is None else ring)
