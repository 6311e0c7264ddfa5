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
way at once, and both of these times grow with their number, and with the time that answers took of
late (as TCP's retransmission does, RFC 6298), lest everybody dials everybody thrice.

``offer`` → target → ``due(clock)`` → (target, endpoint) → the engine dials →
``failed`` or ``reached``.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final, NamedTuple

from mesh.config import Config
from mesh.core.types import NodeId, RandomBytes

__all__ = ["Dialer", "Target"]

_tries = attrgetter("tries")
_AT_ONCE: Final = float("-inf")
_CROWD: Final = 4  # so many more at once, and patience is doubled
_TWICE: Final = 2  # as long as answers took of late, and no answer means something
_SMOOTHING: Final = 1 / 4  # weight of the newest answer's time
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
    asked: float = 0.0  # when the first dial of the round began
    began: float = 0.0  # when the last dial of the round began; the next address has its turn a moment later
    heard: float | None = None  # since when the other side has been left to dial first


class _Pauses(NamedTuple):
    stagger: float  # seconds from one address of a target to the next
    lead: float  # seconds that the other side has to dial first
    room: int  # for so many more dials at once


class Dialer:
    """The targets of one node. ``clock`` is monotonic seconds."""

    def __init__(self, config: Config, rng: RandomBytes, own: NodeId) -> None:
        self._config = config
        self._rng = rng
        self._own = own
        self._targets: dict[NodeId | str, Target] = {}
        self._tokens = config.limits.dials_per_second
        self._tokens_at = 0.0
        self._answer_time = 0.0  # seconds from a dial to its answer, smoothed
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
            target = self._targets[key] = Target(node, some, permanent, clock, next_try=clock)
            target.heard = clock if fresh and self._yields(node) else None
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

    def _yields(self, node: NodeId | None) -> bool:
        """Whether the other side is to dial first."""
        return node is not None and self._own < node

    def _patience(self, base: float, crowd: int) -> float:
        """``base`` seconds, stretched by how many there are at once and by how long answers take of late."""
        return max(
            base * (1 + max(0, crowd) / _CROWD), min(_TWICE * self._answer_time, self._config.dial_timeout)
        )

    def _pauses(self) -> _Pauses:
        """How long, at present, each kind of waiting is."""
        most = self._config.limits.dials_at_once
        new = under_way = 0
        for target in self._targets.values():
            new += target.tries == 0
            under_way += len(target.dialling)
        return _Pauses(
            self._patience(self._config.dial_stagger, under_way - 1),
            self._patience(self._config.dial_yield, min(new, most) - 1),
            most - under_way,
        )

    def due(self, clock: float, skip: Container[NodeId | None] = ()) -> list[tuple[Target, str]]:
        """The (target, endpoint) pairs to dial now; each must later be ``failed`` or ``reached``."""
        pauses = self._pauses()
        waiting = [
            target
            for target in self._targets.values()
            if _due_at(target, pauses) <= clock and target.node not in skip
        ]
        if not waiting:
            return []
        pairs: list[tuple[Target, str]] = []
        self.version += 1
        self._refill(clock)
        room = pauses.room
        # Newcomers first: those that have failed before may be many, and dead.
        for target in sorted(waiting, key=lambda each: each.tries):
            if self._tokens < 1 or room < 1:
                break
            if not target.untried:
                target.untried, target.asked = list(target.endpoints), clock
            endpoint = target.untried.pop(0)
            target.began, target.heard = clock, None
            target.dialling.add(endpoint)
            pairs.append((target, endpoint))
            self._tokens -= 1
            room -= 1
        return pairs

    def _refill(self, clock: float) -> None:
        rate = self._config.limits.dials_per_second
        self._tokens = min(rate, self._tokens + (clock - self._tokens_at) * rate)
        self._tokens_at = clock

    def failed(self, target: Target, endpoint: str, clock: float) -> None:
        """One endpoint of the round did not answer in time, or refused."""
        self.version += 1
        target.dialling.discard(endpoint)
        if target.untried:
            target.began = _AT_ONCE
        elif not target.dialling:
            self._back_off(target, clock)

    def _back_off(self, target: Target, clock: float) -> None:
        ceiling = min(self._config.redial_max, self._config.redial_min * (1 << min(target.tries, 10)))
        target.tries += 1
        target.next_try = clock + max(self._drawn(ceiling), self._config.redial_min / 4)

    def _drawn(self, most: float) -> float:
        """Full jitter: those who lost somebody at the same moment come back to it spread over the whole time."""
        return most * int.from_bytes(self._rng(4), "big") / 0xFFFFFFFF

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
        self._answer_time += (clock - target.asked - self._answer_time) * _SMOOTHING
        target.dialling.clear()
        target.untried.clear()
        self._back_off(target, clock)
        target.next_try = max(target.next_try, clock + self._config.attach_timeout)
        if target.node is None:
            target.node = node

    def lost(self, node: NodeId, clock: float, within: float | None = None) -> None:
        """The link to a node ended: try it again from now on, ``within`` so many seconds."""
        self.version += 1
        pause = self._drawn(self._config.redial_min) if within is None else within
        for target in self._targets.values():
            if target.node == node:
                target.next_try = clock + pause
                target.heard = target.next_try if within is None and self._yields(node) else None
                target.tries = 0
                target.last_hint = clock
                if target.permanent:
                    target.node = None  # another process may answer at a seed's endpoint

    def hurry(self, clock: float) -> None:
        """The network has changed: what failed may work now, so that every backoff ends."""
        self.version += 1
        for target in self._targets.values():
            target.tries = 0
            target.next_try, target.heard = min(target.next_try, clock), None
            if target.dialling or target.untried:  # what is under way goes over the network as it was
                target.untried, target.began = list(target.endpoints), _AT_ONCE

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
        soonest, pauses = float("inf"), self._pauses()
        for target in self._targets.values():
            at = _due_at(target, pauses)
            if at < soonest and target.node not in skip:
                soonest = at
        if soonest == float("inf") or pauses.room < 1:
            return float("inf")  # of many under way, the end of one makes room
        refilled = self._tokens_at + max(0.0, 1 - self._tokens) / self._config.limits.dials_per_second
        return max(soonest, refilled)

    def unresolved(self, skip: Container[NodeId | None] = ()) -> int:
        """How many targets are in their first rounds: neither reached nor failed yet."""
        return sum(1 for target in self._targets.values() if target.tries == 0 and target.node not in skip)


def _due_at(target: Target, pauses: _Pauses) -> float:
    """When the target's next address is to be tried; infinity while only answers are waited for."""
    if target.untried:
        return target.began + pauses.stagger
    if target.dialling:
        return float("inf")
    return target.next_try if target.heard is None else max(target.next_try, target.heard + pauses.lead)
