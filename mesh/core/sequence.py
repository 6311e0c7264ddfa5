"""Sequence numbers: what makes a loss visible, and a repetition harmless.

Sending: each topic of a publisher counts its messages from 0 (``mesh.node.publisher``).  Receiving: a batch
(topic, first number, count) → ``observe`` → how many are missing in front of it, and how many of
its first ones were delivered before.

Nothing is put back in order here.  Links keep the order; what was overtaken nevertheless counts
as lost when the gap shows, and is not delivered when it comes after all.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

__all__ = ["TOPICS_PER_PUBLISHER", "Observation", "StreamSequences"]

TOPICS_PER_PUBLISHER: Final = 16384
"""Topics of one publisher whose numbers a receiver remembers, the latest used. A peer can
name new topics without end; this many take a few MiB, and few publishers have as many."""


class Observation(NamedTuple):
    """What the numbers of a batch tell.

    ``lost`` messages are missing in front of it; its first ``fresh_from`` messages are old and must not be
    delivered again (all of them, if it equals their count).
    """

    lost: int
    fresh_from: int


_IN_ORDER: Final = Observation(0, 0)


class StreamSequences:
    """A receiver's account of one publisher. ``evicted`` counts topics forgotten for want of room.

    The first batch of a topic sets where the account begins (nothing is lost before it), unless
    ``expect`` said so already. After an eviction the topic begins anew.
    """

    __slots__ = ("_next", "_topics", "evicted")

    def __init__(self, topics: int = TOPICS_PER_PUBLISHER) -> None:
        if topics < 1:
            raise ValueError("an account has room for one topic at least")
        self._topics = topics
        self._next: OrderedDict[str, int] = OrderedDict()  # topic → next number, the latest used last
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._next)

    def observe(self, topic: str, first: int, count: int) -> Observation:
        """A batch of ``count`` messages arrived, numbered from ``first``."""
        expected = self._next.get(topic)
        if expected is None:
            self._set(topic, first + count)
            return _IN_ORDER
        self._next.move_to_end(topic)
        if first == expected:
            self._next[topic] = first + count
            return _IN_ORDER
        if first > expected:
            self._next[topic] = first + count
            return Observation(first - expected, 0)
        old = min(count, expected - first)
        self._next[topic] = max(expected, first + count)
        return Observation(0, old)

    def expect(self, topic: str, next_number: int) -> None:
        """The publisher said that ``next_number`` comes next, and no earlier one is meant for us."""
        self._set(topic, next_number)

    def tail(self, topic: str, next_number: int) -> int:
        """The publisher, idle now, announced the number that would come next: how many are lost at the end.

        They count as lost from here on, so call it only when nothing can be under way any more.
        Of a topic that has not begun nothing can be said: 0.
        """
        expected = self._next.get(topic)
        if expected is None or next_number <= expected:
            return 0
        self._set(topic, next_number)
        return next_number - expected

    def forget(self, topic: str) -> None:
        """What comes next on ``topic`` is a new beginning. Idempotent."""
        self._next.pop(topic, None)

    def forget_if(self, predicate: Callable[[str], bool]) -> None:
        """``forget`` every topic for which ``predicate`` is true."""
        for topic in [topic for topic in self._next if predicate(topic)]:
            del self._next[topic]

    def _set(self, topic: str, next_number: int) -> None:
        self._next[topic] = next_number
        self._next.move_to_end(topic)
        if len(self._next) > self._topics:
            self._next.popitem(last=False)
            self.evicted += 1
