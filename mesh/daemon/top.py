"""What ``mesh top`` shows: a node's counters at one moment, as JSON carries them.

The numbers of topics are the sequence numbers that are known anyway, so that nobody counts anything for this
while messages go by.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from mesh.node.statistics import topics

if TYPE_CHECKING:
    import mesh

__all__ = ["MOST_TOPICS", "rates", "snapshot"]

MOST_TOPICS: Final = 2000
"""Topics in one snapshot, those with the most messages: a line of JSON stays under 1 MiB."""

_SHOWN: Final = 200  # topics whose rates are told
_COUNTERS: Final = (
    "published",
    "received",
    "delivered",
    "lost",
    "dropped",
    "repaired",
    "rejected",
    "queued",
    "awaited",
)


def snapshot(node: mesh.Node) -> dict[str, Any]:
    """The node now. ``at`` is monotonic seconds."""
    seen = node.statistics()
    every = topics(node._board)
    chosen = heapq.nlargest(MOST_TOPICS, every.items(), key=lambda item: item[1].published)
    return {
        "at": time.monotonic(),
        "node": {"name": node.name, "id": node.id},
        "counters": {name: getattr(seen, name) for name in _COUNTERS},
        "lost_by_cause": dict(seen.lost_by_cause),
        "dropped_by_reason": dict(seen.dropped_by_reason),
        "rejected_by_reason": dict(seen.rejected_by_reason),
        "peers": [
            {
                "id": each.id,
                "name": each.name,
                "state": node.peers[each.id].state if each.id in node.peers else "left",
                "rtt": each.rtt,
                "received": each.received,
                "lost": each.lost,
                "queued_bytes": each.queued_bytes,
                "unsent_frames": each.dropped,
                "rejected": dict(each.rejected),
            }
            for each in seen.peers.values()
        ],
        "subscriptions": [
            {
                **{
                    name: getattr(each, name)
                    for name in ("pattern", "group", "received", "delivered", "dropped")
                },
                **{name: getattr(each, name) for name in ("lost", "queued", "awaited")},
                "lost_by_cause": dict(each.lost_by_cause),
                "dropped_by_reason": dict(each.dropped_by_reason),
            }
            for each in seen.subscriptions
        ],
        "topics": [{"topic": topic, **asdict(each)} for topic, each in chosen],
        "topics_known": len(every),
    }


def rates(before: dict[str, Any] | None, now: dict[str, Any]) -> dict[str, Any]:
    """The later of two snapshots with ``rate``, in messages a second, for peers and topics; the busiest topics first."""
    seconds = 0.0 if before is None else now["at"] - before["at"]
    peers = {} if before is None else {each["id"]: each["received"] for each in before["peers"]}
    known = {} if before is None else {each["topic"]: each["published"] for each in before["topics"]}

    def rate(earlier: int | None, later: int) -> float | None:
        if seconds <= 0 or before is None:
            return None
        return round(max(0, later - (earlier or 0)) / seconds, 1)

    listed = [
        {**each, "rate": rate(known.get(each["topic"], 0), each["published"])} for each in now["topics"]
    ]
    listed.sort(key=lambda each: (-(each["rate"] or 0), -each["published"], each["topic"]))
    shown = {key: value for key, value in now.items() if key != "at"}
    return {
        **shown,
        "peers": [
            {**each, "rate": rate(peers.get(each["id"], 0), each["received"])} for each in now["peers"]
        ],
        "topics": listed[:_SHOWN],
        "seconds": round(seconds, 3),
    }
