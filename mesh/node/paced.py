"""A subscription that publishers wait for: ``overflow="backpressure"``.

batches in → the queue, which publishers keep within the window they were given → the program takes a message, and as it
asks for the next one the publisher of the first is told (``receipts``), now and then.  A publisher whose patience is over
says so (``cut_off``); what it publishes from then on is dropped and noted, until the program, behind all that was queued,
has met the exception that says so.  Then its window begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any, Final

from mesh.core.messages import RAW, Batch, WindowMessage
from mesh.core.receipts import Receipts
from mesh.core.types import NodeId
from mesh.core.windows import MOST_MESSAGES
from mesh.errors import CutOff
from mesh.node.message import Message, Origin, Peer
from mesh.node.subscription import Chunk, Overflow, Subscription

__all__ = ["PacedSubscription", "make_subscription"]

_PER_MESSAGE: Final = 64
"""Bytes counted for a queued message beside its value: what a publisher that keeps no window could make of empty ones."""

_TOPICS: Final = 4096  # of which is noted what a cut-off subscription missed; of more it is counted


class _Gap:
    """What a publisher that waits no more has published since."""

    __slots__ = ("dropped", "missing", "sender")

    def __init__(self, sender: Peer) -> None:
        self.sender = sender
        self.dropped = 0
        self.missing: dict[str, tuple[int, int]] = {}

    def add(self, topic: str, first: int, count: int) -> None:
        self.dropped += count
        if topic in self.missing or len(self.missing) < _TOPICS:
            self.missing[topic] = (self.missing.get(topic, (first, 0))[0], first + count)


def make_subscription(
    pattern: str,
    *,
    overflow: Overflow,
    tell: Callable[[NodeId, WindowMessage], object],
    own: NodeId,
    **named: Any,
) -> Subscription:
    """A subscription of the kind that ``overflow`` asks for."""
    if overflow == "backpressure":
        return PacedSubscription(pattern, overflow=overflow, tell=tell, own=own, **named)
    return Subscription(pattern, overflow=overflow, **named)


class PacedSubscription(Subscription):
    """``tell`` sends a publisher what it is to know; ``own`` is this node."""

    def __init__(
        self, *args: Any, tell: Callable[[NodeId, WindowMessage], object], own: NodeId, **named: Any
    ) -> None:
        super().__init__(*args, **named)
        self._tell = tell
        self._own = own
        self._known: Receipts | None = None
        self._gaps: dict[str, _Gap] = {}  # by the publisher's id

    @property
    def _receipts(self) -> Receipts:
        if self._known is None:
            number = 0 if self.entry is None else self.entry.number
            self._known = Receipts(number, self.buffer, self._most_bytes, self._own)
        return self._known

    # -- the node's side -------------------------------------------------------

    @property
    def window(self) -> int:
        return min(self.buffer, MOST_MESSAGES)

    def feed(self, origin: Origin, batch: Batch, skip: int = 0) -> None:
        """Append a batch. Publishers see to it that it fits; of one that does not, what does not fit is a gap."""
        values = batch.values[skip:] if skip else batch.values
        count = len(values)
        size = sum(map(len, values))
        self.received += count
        gap = None if origin.apart else self._gaps.get(origin.sender.id)
        if gap is None and self._bytes + size + (self._queued + count) * _PER_MESSAGE > self._most_bytes:
            gap = self.cut_off(origin.sender)
        if gap is not None:
            self.dropped += count
            if not origin.apart:
                gap.add(batch.topic, batch.sequence + skip, count)
            return
        self._chunks.append(Chunk(origin, values, skip, size))
        self._queued += count
        self._bytes += size
        self._waiting.unpark_all()

    def passed(self, sender: Peer, topic: str, end: int, messages: int) -> None:
        """Messages below ``end`` will never come: when all that is queued is taken, they count as taken."""
        origin = Origin(Batch(topic, end, 0, RAW, [], None), sender)
        if self._chunks or self.queued:
            self._chunks.append(Chunk(origin, [], messages, 0))
        else:
            self._took(bytes.fromhex(sender.id), topic, end, messages, 0)

    def cut_off(self, sender: Peer) -> _Gap:
        """The publisher does not wait any more."""
        gap = self._gaps.get(sender.id)
        if gap is None:
            gap = self._gaps[sender.id] = _Gap(sender)
            self._chunks.append(Chunk(None, [], 0, 0, gap))
            self._waiting.unpark_all()
        return gap

    def wanted(self, node: NodeId) -> None:
        """A publisher waits: how far are we?"""
        told = self._receipts.wanted(node)
        if told is not None:
            self._tell(node, told)

    def forget(self, node: NodeId) -> None:
        """A publisher left."""
        self._receipts.forget(node)

    # -- the program's side ------------------------------------------------------

    def _took(self, node: bytes, topic: str, end: int, messages: int, size: int) -> None:
        told = self._receipts.took(NodeId(node), topic, end, messages, size)
        if told is not None:
            self._tell(NodeId(node), told)

    def _pick_up(self) -> int:
        chunk = self._chunks.popleft()
        if isinstance(chunk.gap, _Gap):
            raise self._meet(chunk.gap)
        origin, values, start, size, _ = chunk
        assert origin is not None
        if not values:
            self._took(bytes.fromhex(origin.sender.id), origin.topic, origin.first, start, 0)
            return 0
        self._queued -= len(values)
        self._bytes -= size
        self._rest = iter(values)
        self._hand = self._hand_out(origin, self._rest, start)
        return len(values)

    def _meet(self, gap: _Gap) -> CutOff:
        """The program has taken all that came before it."""
        sender = gap.sender
        del self._gaps[sender.id]
        node = NodeId(bytes.fromhex(sender.id))
        self._tell(node, self._receipts.begin(node))
        return CutOff(self.pattern, sender.name, sender.id, gap.dropped, MappingProxyType(gap.missing))

    def _hand_out(self, origin: Origin, values: Iterator[bytes], index: int) -> Iterator[Message]:
        node, topic, first = bytes.fromhex(origin.sender.id), origin.topic, origin.first
        for value in values:
            yield Message(origin, value, index)
            index += 1  # the program asks for the next one: it is done with this
            if not origin.apart:
                self._took(node, topic, first + index, 1, len(value))
