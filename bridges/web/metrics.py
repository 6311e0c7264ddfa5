"""``/metrics``: what the node and its gateway counted, in Prometheus' text format (version 0.0.4).

Names follow its conventions: a unit and ``_total`` for what only grows, base units (seconds, bytes), labels for
what a sum makes sense over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import mesh
from bridges.counters import BridgeStatistics
from bridges.web.counters import Counters, Histogram

__all__ = ["CONTENT_TYPE", "exposition"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_Sample = tuple[Mapping[str, str], float]
_Add = Callable[[str, str, str, Iterable[_Sample]], None]

_NODE: Final = (
    ("published", "published_messages", "Messages that this node's programs published."),
    ("received", "received_messages", "Messages that arrived for this node's subscriptions."),
    ("delivered", "delivered_messages", "Messages that this node's programs took."),
    ("lost", "lost_messages", "Messages that never arrived."),
    ("dropped", "dropped_messages", "Messages that full buffers dropped."),
    ("repaired", "repaired_messages", "Messages that were lost and sent again."),
)


def exposition(
    node: mesh.Node, counters: Counters, *, clients: int, queued: int, sent: int, dropped: int
) -> str:
    """The whole page."""
    statistics = node.statistics()
    peers = node.peers.values()
    lines: list[str] = []

    def add(name: str, kind: str, text: str, samples: Iterable[_Sample]) -> None:
        lines.extend(_family(name, kind, text, samples))

    for attribute, name, text in _NODE:
        add(f"zeromesh_{name}_total", "counter", text, [({}, getattr(statistics, attribute))])
    add(
        "zeromesh_rejected_frames_total",
        "counter",
        "Frames that were refused, by reason.",
        [({"reason": reason}, count) for reason, count in sorted(statistics.rejected_by_reason.items())],
    )
    add(
        "zeromesh_peers",
        "gauge",
        "Peers in the mesh, by state.",
        [({"state": state}, sum(peer.state == state for peer in peers)) for state in ("alive", "suspect")],
    )
    add("zeromesh_queued_messages", "gauge", "Messages that wait in buffers.", [({}, statistics.queued)])
    add(
        "zeromesh_requests_in_flight",
        "gauge",
        "Requests without a reply yet.",
        [({}, statistics.requests_in_flight)],
    )
    add(
        "zeromesh_requests_served_total",
        "counter",
        "Requests accepted here.",
        [({}, statistics.requests_served)],
    )
    lines.extend(
        _histogram(
            "zeromesh_peer_round_trip_seconds", "Round trips to peers, as sampled.", counters.round_trips
        )
    )
    _add_bridges(add, statistics.bridges)
    add("zeromesh_web_connections", "gauge", "Open connections of the gateway.", [({}, counters.connections)])
    add("zeromesh_web_clients", "gauge", "Open WebSocket clients.", [({}, clients)])
    add("zeromesh_web_queue_bytes", "gauge", "Bytes that wait for WebSocket clients.", [({}, queued)])
    add("zeromesh_web_sent_messages_total", "counter", "Messages handed to clients.", [({}, sent)])
    add(
        "zeromesh_web_dropped_messages_total",
        "counter",
        "Messages that clients were too slow for.",
        [({}, dropped)],
    )
    add(
        "zeromesh_web_published_messages_total",
        "counter",
        "Messages that clients published.",
        [({}, counters.published)],
    )
    add(
        "zeromesh_web_requests_total",
        "counter",
        "Requests of clients that had a reply.",
        [({}, counters.requested)],
    )
    add(
        "zeromesh_web_rejected_total",
        "counter",
        "What the gateway turned away, by reason.",
        [({"reason": reason}, count) for reason, count in sorted(counters.rejected.items())],
    )
    add(
        "zeromesh_web_answers_total",
        "counter",
        "HTTP answers, by route and status.",
        [
            ({"route": route, "status": str(status)}, count)
            for (route, status), count in sorted(counters.answers.items())
        ],
    )
    return "\n".join(lines) + "\n"


def _add_bridges(add: _Add, bridges: Mapping[str, BridgeStatistics]) -> None:
    routes = [
        ({"bridge": name, "route": route.name}, route)
        for name, it in sorted(bridges.items())
        for route in it.routes
    ]
    add(
        "zeromesh_bridge_connected",
        "gauge",
        "Whether a bridge's broker is there.",
        [({"bridge": name}, int(it.state == "connected")) for name, it in sorted(bridges.items())],
    )
    add(
        "zeromesh_bridge_moved_messages_total",
        "counter",
        "Messages that arrived on the other side.",
        [(labels, route.moved) for labels, route in routes],
    )
    add(
        "zeromesh_bridge_lag_messages",
        "gauge",
        "Messages at the broker that a route has still to pass on.",
        [(labels, route.lag) for labels, route in routes if route.lag is not None],
    )
    add(
        "zeromesh_bridge_spooled_messages",
        "gauge",
        "Messages that wait here for a broker.",
        [
            ({"bridge": name}, it.spool.messages)
            for name, it in sorted(bridges.items())
            if it.spool is not None
        ],
    )


def _family(name: str, kind: str, text: str, samples: Iterable[_Sample]) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield f"{name}{_labels(labels)} {_number(value)}"


def _histogram(name: str, text: str, histogram: Histogram) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} histogram"
    total = 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        total += count
        shown = "+Inf" if bound == float("inf") else _number(bound)
        yield f'{name}_bucket{{le="{shown}"}} {total}'
    yield f"{name}_sum {_number(histogram.sum)}"
    yield f"{name}_count {total}"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))
