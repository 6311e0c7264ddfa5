"""Who wants a topic: our own subscriptions and every peer's, matched in one place.

Interests come in as they change (``RemoteInterests`` of each peer, ``InterestSet`` of our own);
out come the answers to three questions: which local subscriptions get this topic, does
any peer want it broadcast, and which members of which groups, or which
responders, can be chosen.  Callers cache an answer for as long as ``generation`` stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from mesh.core.messages import InterestEntry
from mesh.core.subtrie import SubscriptionTrie
from mesh.core.types import NodeId

__all__ = ["LOCAL", "RESPONDER", "SUBSCRIPTION", "Member", "Route", "Router"]

SUBSCRIPTION: Final = "s"
RESPONDER: Final = "r"

LOCAL: Final = NodeId(b"")
"""Stands for this node where a peer's id is expected."""


class Member(NamedTuple):
    """One subscription or responder: whose (``LOCAL`` for ours), and its number there."""

    peer: NodeId
    number: int


class Route(NamedTuple):
    """Where a topic goes. ``broadcast`` is what peers want of it from the broadcast plane."""

    local: tuple[int, ...]
    broadcast: tuple[Member, ...]
    groups: dict[str, tuple[Member, ...]]


class Follower(Protocol):
    """Who wants to know of interests as they begin and end."""

    def begin(self, peer: NodeId, entries: Sequence[InterestEntry]) -> None: ...
    def end(self, peer: NodeId, entries: Sequence[InterestEntry]) -> None: ...


class Router:
    """The interests of all, by pattern."""

    _CACHED_ROUTES: Final = 4096  # topics whose route is remembered; a program has fewer

    def __init__(self) -> None:
        self._tries: dict[str, SubscriptionTrie[tuple[Member, str]]] = {
            SUBSCRIPTION: SubscriptionTrie(),
            RESPONDER: SubscriptionTrie(),
        }
        self._known: dict[NodeId, dict[int, InterestEntry]] = {}
        self._routes: dict[str, Route] = {}
        self._responders: dict[str, tuple[Member, ...]] = {}
        self.generation = 0
        self.followers: list[Follower] = []
        self.may: Callable[[str, NodeId, str], bool] | None = None
        """The rules, if there are any: whether a peer may subscribe to, or serve, a topic."""

    def add(self, peer: NodeId, entries: Sequence[InterestEntry]) -> None:
        for follower in self.followers:
            follower.begin(peer, entries)
        known = self._known.setdefault(peer, {})
        for entry in entries:
            trie = self._tries.get(entry.kind)
            if trie is None or entry.number in known:
                continue  # a kind that a later version knows
            known[entry.number] = entry
            trie.add(entry.pattern, (Member(peer, entry.number), entry.group))
        self._changed()

    def remove(self, peer: NodeId, entries: Sequence[InterestEntry]) -> None:
        for follower in self.followers:
            follower.end(peer, entries)
        known = self._known.get(peer, {})
        for entry in entries:
            if known.pop(entry.number, None) is not None:
                self._tries[entry.kind].remove(entry.pattern, (Member(peer, entry.number), entry.group))
        if not known:
            self._known.pop(peer, None)
        self._changed()

    def remove_peer(self, peer: NodeId) -> None:
        self.remove(peer, list(self._known.get(peer, {}).values()))

    def forget_routes(self) -> None:
        """Something that decides who may have what has changed."""
        self._changed()

    def _changed(self) -> None:
        self.generation += 1
        self._routes.clear()
        self._responders.clear()

    def route(self, topic: str) -> Route:
        """Where a message on ``topic`` goes."""
        route = self._routes.get(topic)
        if route is None:
            if len(self._routes) >= self._CACHED_ROUTES:
                self._routes.clear()
            route = self._routes[topic] = self._match(topic)
        return route

    def _match(self, topic: str) -> Route:
        local: list[int] = []
        broadcast: list[Member] = []
        groups: dict[str, list[Member]] = {}
        for member, group in self._tries[SUBSCRIPTION].match(topic):
            if self.may is not None and not self.may("subscribe", member.peer, topic):
                continue
            if group:
                groups.setdefault(group, []).append(member)
            elif member.peer == LOCAL:
                local.append(member.number)
            else:
                broadcast.append(member)
        return Route(
            tuple(sorted(local)),
            tuple(sorted(broadcast)),
            {name: tuple(sorted(members)) for name, members in groups.items()},
        )

    def responders(self, topic: str) -> tuple[Member, ...]:
        """Who serves ``topic``, in a stable order."""
        responders = self._responders.get(topic)
        if responders is None:
            if len(self._responders) >= self._CACHED_ROUTES:
                self._responders.clear()
            matching = [member for member, _ in self._tries[RESPONDER].match(topic)]
            if self.may is not None:
                matching = [member for member in matching if self.may("serve", member.peer, topic)]
            responders = self._responders[topic] = tuple(sorted(matching))
        return responders

    def entry(self, member: Member) -> InterestEntry | None:
        return self._known.get(member.peer, {}).get(member.number)

    def subscribed(self, topic: str) -> bool:
        """Whether any of our own subscriptions takes ``topic`` from the broadcast plane: one in no group."""
        return bool(self.route(topic).local)
