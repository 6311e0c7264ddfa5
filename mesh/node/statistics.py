"""What a node counted, as a frozen snapshot.

Nothing is dropped that is not in here.  For a receiver that was subscribed from the start,
published = delivered + dropped + lost + queued.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["PeerStatistics", "Statistics", "SubscriptionStatistics"]


@dataclass(frozen=True, slots=True)
class SubscriptionStatistics:
    """One subscription: messages. ``lost`` never arrived, ``dropped`` fell to its overflow policy."""

    pattern: str
    group: str
    received: int
    delivered: int
    dropped: int
    lost: int
    queued: int


@dataclass(frozen=True, slots=True)
class PeerStatistics:
    """One peer. ``queued_bytes`` wait for its link; ``dropped`` frames did not fit there."""

    id: str
    name: str
    rtt: float | None
    received: int
    lost: int
    queued_bytes: int
    dropped: int
    rejected: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Statistics:
    """All of a node. ``published``, ``received``, ``delivered``, ``lost``, ``dropped`` and
    ``repaired`` are messages; ``rejected`` is frames, broken down in ``rejected_by_reason``;
    ``congested`` counts frames that were sent past a subscriber whose pipe stayed full.
    """

    published: int
    received: int
    delivered: int
    lost: int
    dropped: int
    repaired: int
    rejected: int
    rejected_by_reason: Mapping[str, int]
    duplicates: int
    queued: int
    congested: int
    requests_in_flight: int
    requests_served: int
    candidates_dropped: int
    peers: Mapping[str, PeerStatistics]
    subscriptions: tuple[SubscriptionStatistics, ...]
