"""What a bridge counts, and its frozen form in ``statistics()``.

Nothing is dropped that is not in here, and each reason is logged once a route: a thousand malformed messages are
one line and a number.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any, Final, Literal

from bridges.spool import SpoolStatistics

__all__ = ["BridgeState", "BridgeStatistics", "RouteCounters", "RouteStatistics"]

log = logging.getLogger("mesh.bridges")

BridgeState = Literal["starting", "connected", "blocked", "away", "refused", "closed"]

_REASONS: Final = 32
"""Different reasons that a route counts by name; a broker's own words may be many."""


@dataclass(frozen=True, slots=True)
class RouteStatistics:
    """One route, in messages. ``moved`` have arrived on the other side; ``repeated`` were sent once more, because it
    was not known whether they had; ``duplicates`` and ``looped`` were here before; ``rejected`` can never cross, by
    reason, of which ``dead_letters`` were put on the topic that an export names for them; ``dropped`` were given up, by reason (``away``: the broker was, and the route is not reliable;
    ``standby``: a sibling moves them; ``spool``: it was full). ``lag`` waits at the broker, None if unknown."""

    name: str
    moved: int
    repeated: int
    duplicates: int
    looped: int
    rejected: Mapping[str, int]
    dropped: Mapping[str, int]
    lag: int | None
    dead_letters: int = 0


@dataclass(frozen=True, slots=True)
class BridgeStatistics:
    """One bridge. ``state`` is ``connected``, ``blocked`` (the broker takes nothing for now), ``away`` (tried again, with backoff), ``refused`` (the broker knows us
    and says no; tried again, too), ``starting`` or ``closed``; ``why`` the last failure in words. ``leads``: this one
    of the bridges of its name moves messages; ``siblings``: how many others there are."""

    name: str
    kind: str
    address: str
    identity: str
    state: BridgeState
    why: str
    leads: bool
    siblings: int
    connections: int
    spool: SpoolStatistics | None
    routes: tuple[RouteStatistics, ...]

    def plain(self) -> dict[str, Any]:
        """The same as JSON can carry it."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        values["spool"] = None if self.spool is None else asdict(self.spool)
        values["routes"] = [
            {each.name: _unfrozen(getattr(route, each.name)) for each in fields(route)}
            for route in self.routes
        ]
        return values


def _unfrozen(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


class RouteCounters:
    """One route's numbers while they grow."""

    def __init__(self, bridge: str, route: str) -> None:
        self.route = route
        self._where = f"bridge {bridge}: {route}"
        self.moved = 0
        self.repeated = 0
        self.duplicates = 0
        self.looped = 0
        self.dead_letters = 0
        self.lag: int | None = None
        self._rejected: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()

    def rejected(self, reason: str, detail: str) -> None:
        """A message can never cross."""
        known = reason if reason in self._rejected or len(self._rejected) < _REASONS else "other"
        if known not in self._rejected:
            log.warning(
                "%s: rejected: %s%s (further ones are only counted)",
                self._where,
                reason,
                f": {' '.join(detail.split())[:300]}" if detail else "",
            )
        self._rejected[known] += 1

    def dropped(self, reason: str, count: int) -> None:
        """Messages were given up."""
        if count and reason != "standby" and reason not in self._dropped:
            log.warning("%s: dropping messages: %s (further ones are only counted)", self._where, reason)
        if count:
            self._dropped[reason] += count

    def snapshot(self) -> RouteStatistics:
        return RouteStatistics(
            self.route,
            self.moved,
            self.repeated,
            self.duplicates,
            self.looped,
            MappingProxyType(dict(self._rejected)),
            MappingProxyType(dict(self._dropped)),
            self.lag,
            self.dead_letters,
        )
