"""Sequence numbers: what makes a loss visible, and a repetition harmless.

Sending: each topic of a publisher counts its messages from 0 (``mesh.node.publisher``).  Receiving: a batch
(topic, first number, count) → ``observe`` → how many are missing in front of it, and how many of
its first ones were delivered before.  A publisher that falls silent announces its ``tail``, so that a loss at
the end is seen too; and as a subscription becomes live it says where its streams stand.

Nothing is put back in order here.  Links keep the order; what was overtaken nevertheless counts
as lost when the gap shows, and is not delivered when it comes after all. (``reorder`` is for streams that
their publisher keeps.)
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

__all__ = ["TOPICS_PER_PUBLISHER", "Missing", "Observation", "StreamSequences"]

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


class Missing(NamedTuple):
    """Numbers from ``first`` up to, not including, ``end``."""

    first: int
    end: int


_NEVER: Final = 1 << 64  # above every number
_IN_ORDER: Final = Observation(0, 0)


class StreamSequences:
    """A receiver's account of one publisher. ``evicted`` counts topics forgotten for want of room.

    Where a topic's account begins, the publisher's *positions* say (``stands_at`` for each topic that it has, then
    ``settle``). Until they have come, the first batch of a topic begins it provisionally; after
    that, topics not heard of before begin at 0. After an eviction nothing is certain any more: then
    each topic begins with its first batch.
    """

    __slots__ = ("_begun", "_next", "_topics", "evicted", "settled")

    def __init__(self, topics: int = TOPICS_PER_PUBLISHER) -> None:
        if topics < 1:
            raise ValueError("an account has room for one topic at least")
        self._topics = topics
        self._next: OrderedDict[str, int] = OrderedDict()  # topic → next number, the latest used last
        self._begun: dict[str, int] = {}  # topic → where it began provisionally
        self.settled = False  # whether topics not heard of begin at 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._next)

    def observe(self, topic: str, first: int, count: int) -> Observation:
        """A batch of ``count`` messages arrived, numbered from ``first``."""
        expected = self._next.get(topic)
        if expected is None:
            self._set(topic, first + count)
            if self.settled:
                return Observation(first, 0)
            self._begun[topic] = first
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

    def next_of(self, topic: str) -> int | None:
        """The number expected next; None if that is not known."""
        expected = self._next.get(topic)
        return 0 if expected is None and self.settled else expected

    def numbers(self) -> list[tuple[str, int]]:
        """Each topic that is remembered, and its next number."""
        return [(topic, number) for topic, number in self._next.items() if number != _NEVER]

    def tail(self, topic: str, next_number: int) -> Missing:
        """The publisher announced, behind everything it has sent, the number that would come next: what is
        missing at the end. Of a topic of which nobody knows where it began nothing can be said."""
        expected = self.next_of(topic)
        if expected is None or next_number <= expected:
            return Missing(0, 0)
        self._set(topic, next_number)
        return Missing(expected, next_number)

    def stands_at(self, topic: str, next_number: int) -> list[Missing]:
        """As our subscription became live, ``next_number`` came next; everything before that was sent before
        what tells us so. What is missing: in front of where we began provisionally, and at the end."""
        expected = self._next.get(topic)
        if expected is None:
            self._set(topic, next_number)
            # It says so once more, having lost us for a while: what has begun since then, we were subscribed to.
            return [Missing(0, next_number)] if self.settled else []
        begun = self._begun.pop(topic, 0)
        missing = [Missing(next_number, begun)] if begun > next_number else []
        if expected < next_number:
            self._set(topic, next_number)
            missing.append(Missing(expected, next_number))
        return missing

    def settle(self) -> list[tuple[str, Missing]]:
        """All positions have been told: what has begun and was not among them began at 0."""
        missing = [(topic, Missing(0, begun)) for topic, begun in self._begun.items() if begun]
        self._begun.clear()
        if self.evicted:
            return []
        self.settled = True
        return missing

    def unsettle(self) -> None:
        """We subscribe to more, or afresh: the positions that we have been told are not all any more."""
        self.settled = False

    def retire(self, topic: str) -> None:
        """Somebody else keeps account of this topic: whatever comes here is old."""
        self._begun.pop(topic, None)
        self._set(topic, _NEVER)

    def forget(self, topic: str) -> None:
        """What comes next on ``topic`` is a new beginning. Idempotent."""
        self._next.pop(topic, None)
        self._begun.pop(topic, None)

    def forget_if(self, predicate: Callable[[str], bool]) -> None:
        """``forget`` every topic for which ``predicate`` is true."""
        for topic in [topic for topic in self._next if predicate(topic)]:
            self.forget(topic)

    def _set(self, topic: str, next_number: int) -> None:
        self._next[topic] = next_number
        self._next.move_to_end(topic)
        if len(self._next) > self._topics:
            oldest, _ = self._next.popitem(last=False)
            self._begun.pop(oldest, None)
            self.evicted += 1
            self.settled = False
