"""Whom to dial, and when: hints in, endpoints to try out.

A *target* is somebody we would like to be introduced to: a node (known by its id, from
discovery or gossip) or a seed (known by its endpoint only).  All addresses of
a target are tried at once (serial dialling costs minutes on dead addresses, zenoh#2090);
a round that fails is repeated after a full-jitter backoff; everything is bounded, because
hints cost a stranger nothing.

``offer`` → target → ``due(clock)`` → rounds of (target, endpoints) → the engine dials →
``failed`` or ``reached``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from mesh.config import Config
from mesh.core.types import NodeId, RandomBytes

__all__ = ["Dialer", "Target"]


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


class Dialer:
    """The targets of one node. ``clock`` is monotonic seconds."""

    def __init__(self, config: Config, rng: RandomBytes) -> None:
        self._config = config
        self._rng = rng
        self._targets: dict[NodeId | str, Target] = {}
        self._tokens = config.limits.dials_per_second
        self._tokens_at = 0.0
        self.dropped = 0  # hints beyond the bound

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
    ) -> Target | None:
        """A hint. ``permanent`` targets (seeds the user gave) are never forgotten.

        ``fresh`` hints (the peer itself spoke just now) end a backoff. None: refused, too many.
        """
        some = tuple(dict.fromkeys(endpoints))[: self._config.limits.addresses_per_node]
        if not some:
            return None
        key: NodeId | str = node if node is not None else some[0]
        target = self._targets.get(key)
        if target is None:
            if len(self._targets) >= self._config.limits.candidates and not permanent:
                self.dropped += 1
                return None
            target = self._targets[key] = Target(node, some, permanent, clock)
        else:
            changed = set(some) - set(target.endpoints)
            target.endpoints = some
            target.last_hint = clock
            if (changed or fresh) and not target.dialling and target.next_try > clock:
                # A full round's worth of backoff stays: a spoofed hint a millisecond is no reason to dial.
                target.next_try = min(target.next_try, clock + self._config.redial_min)
        return target

    def due(self, clock: float, skip: Iterable[NodeId] = ()) -> list[tuple[Target, str]]:
        """The (target, endpoint) pairs to dial now; each must later be ``failed`` or ``reached``."""
        skipped = set(skip)
        rounds: list[tuple[Target, str]] = []
        self._refill(clock)
        for target in self._targets.values():
            if target.dialling or target.next_try > clock or target.node in skipped:
                continue
            if self._tokens < 1:
                break
            for endpoint in target.endpoints:
                self._tokens -= 1
                target.dialling.add(endpoint)
                rounds.append((target, endpoint))
        return rounds

    def _refill(self, clock: float) -> None:
        rate = self._config.limits.dials_per_second
        self._tokens = min(rate, self._tokens + (clock - self._tokens_at) * rate)
        self._tokens_at = clock

    def failed(self, target: Target, endpoint: str, clock: float) -> None:
        """One endpoint of the round did not answer in time, or refused."""
        target.dialling.discard(endpoint)
        if not target.dialling:
            ceiling = min(self._config.redial_max, self._config.redial_min * (1 << min(target.tries, 10)))
            target.tries += 1
            spread = int.from_bytes(self._rng(4), "big") / 0xFFFFFFFF
            target.next_try = clock + ceiling * (0.5 + 0.5 * spread)

    def hold(self, target: Target, until: float) -> None:
        """Do not try again before ``until`` (a refusal, a peer that was cut off)."""
        target.next_try = max(target.next_try, until)

    def reached(self, target: Target, node: NodeId) -> None:
        """The target answered, as ``node``: the round is over."""
        target.dialling.clear()
        target.tries = 0
        if target.node is None:
            target.node = node

    def lost(self, node: NodeId, clock: float) -> None:
        """The link to a node ended: try it again from now on."""
        for target in self._targets.values():
            if target.node == node:
                target.next_try = clock + self._config.redial_min
                target.last_hint = clock
                if target.permanent:
                    target.node = None  # another process may answer at a seed's endpoint

    def forget(self, node: NodeId) -> None:
        """The node said goodbye: its id never comes back."""
        target = self._targets.get(node)
        if target is not None and not target.permanent:
            del self._targets[node]
        for other in self._targets.values():
            if other.node == node:
                other.node = None

    def expire(self, clock: float, alive: Iterable[NodeId]) -> None:
        """Drop targets that nobody has spoken of for long."""
        keep = set(alive)
        horizon = clock - self._config.forget_after
        for key, target in list(self._targets.items()):
            forgettable = not target.permanent and not target.dialling and target.node not in keep
            if forgettable and target.last_hint < horizon:
                del self._targets[key]

    def deadline(self, skip: Iterable[NodeId] = ()) -> float:
        """When the next round is due."""
        skipped = set(skip)
        waiting = [
            target.next_try
            for target in self._targets.values()
            if not target.dialling and target.node not in skipped
        ]
        if not waiting:
            return float("inf")
        return max(
            min(waiting), self._tokens_at + max(0.0, 1 - self._tokens) / self._config.limits.dials_per_second
        )

    def unresolved(self, skip: Iterable[NodeId] = ()) -> int:
        """How many targets are in their first rounds: neither reached nor failed yet."""
        skipped = set(skip)
        return sum(1 for target in self._targets.values() if target.node not in skipped and target.tries == 0)
