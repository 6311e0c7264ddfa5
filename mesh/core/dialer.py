"""Whom to dial, and when: hints in, endpoints to try out.

A *target* is somebody we would like to be introduced to: a node (known by its id, from
discovery or gossip) or a seed (known by its endpoint only).  A round goes through the addresses of a
target, the likeliest first, each a moment after the one before and while that one may still
answer (RFC 8305, "happy eyeballs"): a dead address costs ``dial_stagger``, never a time-out, and
where the first one works, which is nearly always, nobody pays for the others.  A round that
fails is repeated after a full-jitter backoff.

Where discovery tells two nodes of each other it does so at the same moment; the one with the lower id
leaves the other ``dial_yield`` seconds to dial first.  Everything is bounded, because hints cost a
stranger nothing.  And where many start together answers take longer: so few dials are under
way at once, and both of these times grow with their number, lest everybody dials everybody thrice.

``offer`` → target → ``due(clock)`` → (target, endpoint) → the engine dials →
``failed`` or ``reached``.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final

from mesh.config import Config
from mesh.core.types import NodeId, RandomBytes

__all__ = ["Dialer", "Target"]

_tries = attrgetter("tries")
_CROWD: Final = 4  # so many more at once, and patience is doubled
_HOPELESS: Final = 3  # rounds without success after which a target makes room for a new one


@dataclass(slots=True)
class Target:
    """Somebody to be introduced to. ``node`` is None for a seed that has not answered yet."""

    node: NodeId | None
    endpoints: tuple[str, ...]
    permanent: bool
    last_hint: float
    tries: int = 0
    next_try: float = 0.0
    dialling: set[str] = field(default_factory=set)
    untried: list[str] = field(default_factory=list)  # of the present round
    step_at: float = 0.0  # when the next of them is tried


class Dialer:
    """The targets of one node. ``clock`` is monotonic seconds."""

    def __init__(self, config: Config, rng: RandomBytes, own: NodeId) -> None:
        self._config = config
        self._rng = rng
        self._own = own
        self._targets: dict[NodeId | str, Target] = {}
        self._tokens = config.limits.dials_per_second
        self._tokens_at = 0.0
        self.dropped = 0  # hints beyond the bound
        self.version = 0  # goes up with every change, so that ``deadline`` need not be asked for anew

    def __len__(self) -> int:
        return len(self._targets)

    def offer(
        self,
        node: NodeId | None,
        endpoints: Iterable[str],
        clock: float,
        *,
        permanent: bool = False,
        fresh: bool = True,
        whole: bool = False,
    ) -> Target | None:
        """A hint. ``permanent`` targets (seeds the user gave) are never forgotten.

        ``fresh`` hints (the peer itself spoke just now) end a backoff; it may have heard of us in the
        same way. ``whole`` means that it has no other endpoints than these. None: refused, too many.
        """
        some = tuple(dict.fromkeys(endpoints))[: self._config.limits.addresses_per_node]
        if not some:
            return None
        self.version += 1
        key: NodeId | str = node if node is not None else some[0]
        target = self._targets.get(key)
        if target is None:
            if len(self._targets) >= self._config.limits.candidates and not permanent:
                self.dropped += 1
                if not self._evict():
                    return None
            first = clock + (self._yield(node) if fresh else 0.0)
            target = self._targets[key] = Target(node, some, permanent, clock, next_try=first)
        else:
            changed = set(some) - set(target.endpoints)
            # The peer's own newest word comes first; older ones stay where it may not have told all.
            older = () if whole else target.endpoints
            merged = (*some, *older) if fresh or whole else (*older, *some)
            target.endpoints = tuple(dict.fromkeys(merged))[: self._config.limits.addresses_per_node]
            target.last_hint = clock
            idle = not target.dialling and not target.untried
            if (changed or fresh) and idle and target.next_try > clock:
                # A full round's worth of backoff stays: a spoofed hint a millisecond is no reason to dial.
                target.next_try = min(target.next_try, clock + self._config.redial_min)
        return target

    def _evict(self) -> bool:
        """Make room: the target that failed most often goes, if it is a hopeless one. Whether there is room now."""
        idle = [t for t in self._targets.values() if not t.permanent and not t.dialling and not t.untried]
        worst = max(idle, key=_tries, default=None)
        if worst is None or worst.tries < _HOPELESS:
            return False
        self._targets = {key: target for key, target in self._targets.items() if target is not worst}
        return True

    def _yield(self, node: NodeId | None) -> float:
        """Seconds that the other side has to dial first."""
        if node is None or self._own > node:
            return 0.0
        new = sum(1 for target in self._targets.values() if target.tries == 0)
        return self._config.dial_yield * (1 + min(new, self._config.limits.dials_at_once) / _CROWD)

    def due(self, clock: float, skip: Container[NodeId | None] = ()) -> list[tuple[Target, str]]:
        """The (target, endpoint) pairs to dial now; each must later be ``failed`` or ``reached``."""
        waiting = [
            target
            for target in self._targets.values()
            if self._due_at(target) <= clock and target.node not in skip
        ]
        if not waiting:
            return []
        pairs: list[tuple[Target, str]] = []
        self.version += 1
        self._refill(clock)
        most = self._config.limits.dials_at_once
        room = most - sum(len(target.dialling) for target in self._targets.values())
        # Newcomers first: those that have failed before may be many, and dead.
        for target in sorted(waiting, key=lambda each: each.tries):
            if self._tokens < 1 or room < 1:
                break
            if not target.untried:
                target.untried = list(target.endpoints)
            endpoint = target.untried.pop(0)
            target.step_at = clock + self._config.dial_stagger * (1 + (most - room) / _CROWD)
            target.dialling.add(endpoint)
            pairs.append((target, endpoint))
            self._tokens -= 1
            room -= 1
        return pairs

    @staticmethod
    def _due_at(target: Target) -> float:
        """When the target's next address is to be tried; infinity while only answers are waited for."""
        if target.untried:
            return target.step_at
        return float("inf") if target.dialling else target.next_try

    def _refill(self, clock: float) -> None:
        rate = self._config.limits.dials_per_second
        self._tokens = min(rate, self._tokens + (clock - self._tokens_at) * rate)
        self._tokens_at = clock

    def failed(self, target: Target, endpoint: str, clock: float) -> None:
        """One endpoint of the round did not answer in time, or refused."""
        self.version += 1
        target.dialling.discard(endpoint)
        if target.untried:
            target.step_at = min(target.step_at, clock)  # the next one at once
        elif not target.dialling:
            self._back_off(target, clock)

    def _back_off(self, target: Target, clock: float) -> None:
        ceiling = min(self._config.redial_max, self._config.redial_min * (1 << min(target.tries, 10)))
        target.tries += 1
        spread = int.from_bytes(self._rng(4), "big") / 0xFFFFFFFF
        target.next_try = clock + ceiling * (0.5 + 0.5 * spread)

    def mistaken(self, target: Target, endpoint: str, clock: float) -> None:
        """Somebody else than the node we looked for lives at this endpoint.

        The node's other addresses may be right all the same (every host has the same address on
        Docker's bridge); if it has none left, its process has gone, and its id with it.
        """
        self.version += 1
        self.failed(target, endpoint, clock)
        if target.permanent:
            target.node = None
            return
        target.endpoints = tuple(each for each in target.endpoints if each != endpoint)
        if not target.endpoints and target.node is not None:
            self.forget(target.node)

    def reached(self, target: Target, node: NodeId, clock: float) -> None:
        """The target answered, as ``node``: the round is over."""
        self.version += 1
        target.dialling.clear()
        target.untried.clear()
        self._back_off(target, clock)
        target.next_try = max(target.next_try, clock + self._config.attach_timeout)
        if target.node is None:
            target.node = node

    def lost(self, node: NodeId, clock: float, within: float | None = None) -> None:
        """The link to a node ended: try it again from now on, ``within`` so many seconds."""
        self.version += 1
        pause = self._config.redial_min + self._yield(node) if within is None else within
        for target in self._targets.values():
            if target.node == node:
                target.next_try = clock + pause
                target.tries = 0
                target.last_hint = clock
                if target.permanent:
                    target.node = None  # another process may answer at a seed's endpoint

    def hurry(self, clock: float) -> None:
        """The network has changed: what failed may work now, so that every backoff ends."""
        self.version += 1
        for target in self._targets.values():
            target.tries = 0
            target.next_try = min(target.next_try, clock)
            if target.dialling or target.untried:  # what is under way goes over the network as it was
                target.untried, target.step_at = list(target.endpoints), clock

    def forget(self, node: NodeId) -> None:
        """The node said goodbye: its id never comes back."""
        self.version += 1
        target = self._targets.get(node)
        if target is not None and not target.permanent:
            del self._targets[node]
        for other in self._targets.values():
            if other.node == node:
                other.node = None

    def expire(self, clock: float, alive: Iterable[NodeId]) -> None:
        """Drop targets that nobody has spoken of for long."""
        self.version += 1
        keep = set(alive)
        horizon = clock - self._config.forget_after
        for key, target in list(self._targets.items()):
            busy = target.dialling or target.untried
            forgettable = not target.permanent and not busy and target.node not in keep
            if forgettable and target.last_hint < horizon:
                del self._targets[key]

    def deadline(self, skip: Container[NodeId | None] = ()) -> float:
        """When the next dial is due."""
        soonest, under_way = float("inf"), 0
        for target in self._targets.values():
            under_way += len(target.dialling)
            at = self._due_at(target)
            if at < soonest and target.node not in skip:
                soonest = at
        if soonest == float("inf") or under_way >= self._config.limits.dials_at_once:
            return float("inf")  # of many under way, the end of one makes room
        refilled = self._tokens_at + max(0.0, 1 - self._tokens) / self._config.limits.dials_per_second
        return max(soonest, refilled)

    def unresolved(self, skip: Container[NodeId | None] = ()) -> int:
        """How many targets are in their first rounds: neither reached nor failed yet."""
        return sum(1 for target in self._targets.values() if target.tries == 0 and target.node not in skip)
