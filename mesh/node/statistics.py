"""What a node counted, as a frozen snapshot.

Nothing is dropped that is not in here.  For a receiver that was subscribed from the start,
published = delivered + dropped + lost + queued + awaited.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from mesh.core.types import NodeId
from mesh.core.windows import Window
from mesh.discovery.base import Discovery
from mesh.node.message import Peer
from mesh.node.subscription import Subscription
from mesh.node.switchboard import Switchboard

__all__ = [
    "PeerStatistics",
    "Statistics",
    "SubscriptionStatistics",
    "TopicStatistics",
    "WindowStatistics",
    "collect",
    "topics",
]


@dataclass(frozen=True, slots=True)
class SubscriptionStatistics:
    """One subscription: messages. ``lost`` never arrived, ``dropped`` fell to its overflow policy, ``awaited`` are missing and
    asked for, or wait behind such. What was published for it = delivered + dropped + lost + queued + awaited.
    """

    pattern: str
    group: str
    received: int
    delivered: int
    dropped: int
    lost: int
    queued: int
    awaited: int
    lost_by_cause: Mapping[str, int]
    dropped_by_reason: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class TopicStatistics:
    """One topic, as far as this node has seen: how many publish there, and how many messages they have published."""

    publishers: int
    published: int


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
class WindowStatistics:
    """A subscription that our publishers wait for: whose it is, and how far we are ahead of it.

    ``ahead`` messages of ``ahead_bytes`` are sent and not yet taken; we may be ``messages`` and ``bytes`` ahead.
    ``waiting`` tells whether some publisher waits for it now, ``cut_off`` that none does any more.
    """

    peer: str
    name: str
    pattern: str
    ahead: int
    ahead_bytes: int
    messages: int
    bytes: int
    waiting: bool
    cut_off: bool


@dataclass(frozen=True, slots=True)
class Statistics:
    """All of a node. ``published``, ``received``, ``delivered``, ``lost``, ``dropped`` and
    ``repaired`` are messages, ``lost`` and ``dropped`` with their break-down beside them; ``awaited`` are those of
    reliable publishers that are missing and asked for, or wait behind such; ``rejected`` is frames;
    ``congested`` counts frames that were sent past a subscriber whose pipe stayed full. ``bridges`` is what the
    bridges that run on this node tell of themselves, by name. ``windows`` are the subscriptions that publishers of this
    node wait for, ``cut_off`` how often such a wait was given up. ``denied`` is what rules denied lately: (member, action,
    topic or pattern) → which rule. ``unsent`` is 0 until the node has left: then, the messages that it could not
    send to everybody who wanted them, published ones by topic, directed ones and replies by peer's id.
    """

    published: int
    received: int
    delivered: int
    lost: int
    dropped: int
    lost_by_cause: Mapping[str, int]
    dropped_by_reason: Mapping[str, int]
    repaired: int
    awaited: int
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
    windows: tuple[WindowStatistics, ...]
    cut_off: int
    bridges: Mapping[str, Any]
    denied: Mapping[tuple[str, str, str], str]
    unsent: int
    unsent_by_topic: Mapping[str, int]
    unsent_by_peer: Mapping[str, int]


def collect(board: Switchboard, mechanisms: Sequence[Discovery], bridges: Mapping[str, object]) -> Statistics:
    """What the parts of a node have counted up to now."""
    inbox, engine = board.inbox, board.engine
    awaited = _awaited(board)
    subscriptions = tuple(
        _of_subscription(each, awaited[number]) for number, each in inbox.subscriptions.items()
    )
    reasons = _rejected(board, mechanisms)
    return Statistics(
        published=board.publishing.published,
        received=inbox.received,
        delivered=inbox.delivered,
        lost=inbox.lost,
        dropped=inbox.dropped,
        lost_by_cause=MappingProxyType({cause.value: n for cause, n in inbox.lost_by_cause.items()}),
        dropped_by_reason=MappingProxyType(inbox.dropped_by_reason()),
        repaired=inbox.repaired,
        awaited=engine.accounts.awaited,
        rejected=sum(reasons.values()),
        rejected_by_reason=MappingProxyType(reasons),
        duplicates=inbox.duplicates,
        queued=sum(each.queued for each in subscriptions),
        congested=board.publishing.airlock.lossy,
        requests_in_flight=board.caller.in_flight,
        requests_served=board.responder.accepted,
        candidates_dropped=engine.introductions.dialer.dropped,
        peers=MappingProxyType(
            {peer.id: _of_peer(board, node, peer) for node, peer in board.presence.peers.items()}
        ),
        subscriptions=subscriptions,
        windows=tuple(_of_window(board, window) for window in engine.windows),
        cut_off=engine.windows.cut_off,
        bridges=MappingProxyType(bridges),
        denied=MappingProxyType(dict(engine.access.denials)),
        unsent=board.unsent.total,
        unsent_by_topic=MappingProxyType(dict(board.unsent.by_topic)),
        unsent_by_peer=MappingProxyType(dict(board.unsent.by_peer)),
    )


def _rejected(board: Switchboard, mechanisms: Sequence[Discovery]) -> dict[str, int]:
    reasons = Counter(board.engine.rejected)
    reasons.update(board.pump.rejected_by_transport)
    for mechanism in mechanisms:
        reasons.update({f"{mechanism.name}_{reason}": n for reason, n in mechanism.rejected.items()})
    return dict(reasons)


def _awaited(board: Switchboard) -> Counter[int]:
    """By the number of the subscription."""
    awaited: Counter[int] = Counter()
    for _, topic, count in board.engine.accounts.awaited_by_topic():
        for number in board.engine.router.route(topic).local:
            awaited[number] += count
    return awaited


def _of_subscription(it: Subscription, awaited: int) -> SubscriptionStatistics:
    return SubscriptionStatistics(
        it.pattern,
        it.group,
        it.received,
        it.delivered,
        it.dropped,
        it.lost,
        it.queued,
        awaited,
        MappingProxyType({cause.value: n for cause, n in it.lost_by_cause.items()}),
        MappingProxyType({it.overflow: it.dropped} if it.dropped else {}),
    )


def topics(board: Switchboard) -> Mapping[str, TopicStatistics]:
    """All topics of which this node knows how far they came: its own, and those that it is subscribed to.

    Nothing is counted for this: sequence numbers say it.
    """
    publishers: Counter[str] = Counter()
    published: Counter[str] = Counter()
    own = ((topic, stream.count) for topic, stream in board.publishing.streams.items())
    seen = ((topic, number) for _, topic, number in board.engine.accounts.numbers())
    for topic, number in (*own, *seen):
        publishers[topic] += 1
        published[topic] += number
    return MappingProxyType(
        {topic: TopicStatistics(publishers[topic], number) for topic, number in published.items()}
    )


def _of_window(board: Switchboard, it: Window) -> WindowStatistics:
    peer = board.presence.peer(it.member.peer)
    return WindowStatistics(
        peer.id, peer.name, it.pattern, it.ahead, it.size, it.messages, it.bytes, it.waiting > 0, it.cut
    )


def _of_peer(board: Switchboard, node: NodeId, peer: Peer) -> PeerStatistics:
    session = board.engine.links.sessions.get(node)
    return PeerStatistics(
        peer.id,
        peer.name,
        peer.rtt,
        board.inbox.received_from[node],
        board.inbox.lost_from[node],
        board.outbox.waiting(node),
        board.outbox.dropped[node],
        MappingProxyType(
            {} if session is None else {reason.value: n for reason, n in session.strikes.counts.items()}
        ),
    )
