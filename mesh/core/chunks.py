"""Values larger than a frame: cut into pieces, and put together again within bounds.

Sending: an encoded batch, or a message of the direct plane → a ``Cutting`` → its pieces in order, each made when it
is its turn.  Several cuttings go on at once, a piece of each in turn (``Cuttings``), so that none waits for
another as a whole; what follows under the same key (a topic, a request) waits behind it, so that nothing is overtaken.

Receiving: each piece → ``Assembly.take`` → all pieces, once the last has come.  Both planes are in order: a piece that
does not continue what is here shows that something was lost, and the value is given up at once.

Memory grows with what has arrived, never with what was announced: a total over our limit is refused at its first piece,
what one peer has under way is bounded in bytes and in values, and what all have in bytes.  What makes no
progress for a while is given up.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, TypeVar

from mesh.core.types import NodeId, Reason, RemoteProtocolError

__all__ = [
    "AT_ONCE",
    "LEAST_PIECE",
    "SLACK",
    "STALLED",
    "TOGETHER",
    "Assembly",
    "Cutting",
    "Cuttings",
    "Piece",
    "Pool",
]

LEAST_PIECE: Final = 16 << 10
"""Bytes that every piece but a last one has: what comes in smaller ones costs more to keep than it is."""

AT_ONCE: Final = 4
"""Values that a sender has under way at once on one link: enough for none to wait long, few enough for all to end."""

TOGETHER: Final = 16 << 20
"""Bytes of them, unless it is one alone: what a receiver must be ready to hold of one peer on one plane."""

_HELD_AT_ONCE: Final = 4 * AT_ONCE
"""Values of one peer that a receiver holds parts of: those of which pieces were lost among them."""

SLACK: Final = 64 << 10
"""Bytes that an encoded message may have beside its value: topic, headers, framing."""

STALLED: Final = 10.0
"""Seconds without a piece after which a value is given up: a link that stalls for so long is taken for gone."""

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Piece(NamedTuple):
    """Bytes of a whole that has ``total``, from ``offset`` on."""

    total: int
    offset: int
    data: memoryview | bytes


# -- sending ------------------------------------------------------------------


@dataclass(slots=True)
class Cutting(Generic[T]):
    """A whole on its way out; ``what`` says to its sender what it is. ``size`` None: it goes in one."""

    what: T
    whole: bytes
    size: int | None
    offset: int = 0

    @property
    def left(self) -> int:
        """Bytes that are still to be sent."""
        return len(self.whole) - self.offset

    def next(self) -> Piece:
        """The next piece. There must be one left."""
        total, offset = len(self.whole), self.offset
        if self.size is None or (offset == 0 and total <= self.size):
            self.offset = total
            return Piece(total, 0, self.whole)
        self.offset = end = min(offset + self.size, total)
        return Piece(total, offset, memoryview(self.whole)[offset:end])


@dataclass(slots=True)
class Cuttings(Generic[K, T]):
    """What waits to go out in pieces, by key: of each key in order, of several keys in turn."""

    bytes: int = 0
    _lanes: OrderedDict[K, deque[Cutting[T]]] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        """Messages that have not gone out as a whole."""
        return sum(map(len, self._lanes.values()))

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def __contains__(self, key: K) -> bool:
        """Whether something waits under this key: what follows has to wait behind it."""
        return key in self._lanes

    def items(self) -> Iterator[tuple[K, Cutting[T]]]:
        """All that waits, of each key in order."""
        for key, lane in self._lanes.items():
            for cutting in lane:
                yield key, cutting

    def add(self, key: K, cutting: Cutting[T]) -> None:
        self._lanes.setdefault(key, deque()).append(cutting)
        self.bytes += cutting.left

    def next(self) -> tuple[K, Cutting[T], Piece] | None:
        """The next piece, and whose; None if there is none."""
        key = self._turn()
        if key is None:
            return None
        lane = self._lanes[key]
        cutting = lane[0]
        piece = cutting.next()
        self.bytes -= len(piece.data)
        self._lanes.move_to_end(key)
        if not cutting.left:
            lane.popleft()
            if not lane:
                del self._lanes[key]
        return key, cutting, piece

    def _turn(self) -> K | None:
        """The first whose next message is under way, or may begin."""
        begun = [lane[0] for lane in self._lanes.values() if lane[0].offset]
        together = sum(len(cutting.whole) for cutting in begun)
        for key, lane in self._lanes.items():
            cutting = lane[0]
            fits = not begun or (len(begun) < AT_ONCE and together + len(cutting.whole) <= TOGETHER)
            if cutting.offset or cutting.size is None or fits:
                return key
        return None


# -- receiving ----------------------------------------------------------------


class Pool:
    """Bytes of unfinished values of all peers on both planes."""

    __slots__ = ("held", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0


@dataclass(slots=True)
class _Partial(Generic[T]):
    number: int
    what: T
    total: int
    touched: float
    size: int = 0
    pieces: list[memoryview | bytes] = field(default_factory=list)


class Assembly(Generic[K, T]):
    """Unfinished values of all peers on one plane.

    ``largest`` bounds a whole; a key (a topic, a number) has one value under way at a time, of the highest ``number``.
    ``given_up(peer, key, number, what, clock)`` is told of each that will not come.
    """

    def __init__(
        self, largest: int, pool: Pool, given_up: Callable[[NodeId, K, int, T, float], None]
    ) -> None:
        self._largest = largest
        self._per_peer = max(largest, TOGETHER + AT_ONCE * SLACK)
        self._pool = pool
        self._given_up = given_up
        self._held: dict[NodeId, OrderedDict[K, _Partial[T]]] = {}  # the latest touched last
        self._bytes: dict[NodeId, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def _find(self, peer: NodeId, key: K) -> _Partial[T] | None:
        held = self._held.get(peer)
        return None if held is None else held.get(key)

    def under_way(self, peer: NodeId, key: K) -> int | None:
        """The number of the value that is under way there."""
        partial = self._find(peer, key)
        return None if partial is None else partial.number

    def held(self, peer: NodeId) -> int:
        """Bytes of this peer's that wait for the rest."""
        return self._bytes.get(peer, 0)

    def take(
        self, peer: NodeId, key: K, number: int, what: T, piece: Piece, clock: float
    ) -> list[memoryview | bytes] | None:
        """One piece arrived. All pieces, if it was the last.

        Raises ``RemoteProtocolError``: TOO_LARGE, BAD_MESSAGE (no sender cuts like that), UNEXPECTED (it has come
        before), INCOMPLETE (what comes before it has not).
        """
        total, offset, data = piece
        size = len(data)
        if total > self._largest:
            raise RemoteProtocolError(Reason.TOO_LARGE, f"{total} bytes")
        if offset + size > total or not size or (size < LEAST_PIECE and offset + size < total):
            raise RemoteProtocolError(Reason.BAD_MESSAGE, "a piece that does not fit")
        partial = self._find(peer, key)
        if partial is not None and partial.number < number:
            self._give_up(peer, key, clock)  # links are in order: nothing more comes of it
            partial = None
        if offset == 0:
            if partial is not None:
                raise RemoteProtocolError(Reason.UNEXPECTED, "a beginning, again")
            if size == total:
                return [data]
            partial = _Partial(number, what, total, clock)
        elif partial is None or partial.number != number:
            raise RemoteProtocolError(Reason.INCOMPLETE, "its beginning did not come")
        elif total != partial.total or what != partial.what:
            self._give_up(peer, key, clock)
            raise RemoteProtocolError(Reason.BAD_MESSAGE, "pieces of different wholes")
        elif offset < partial.size:
            raise RemoteProtocolError(Reason.UNEXPECTED, "a piece, again")
        elif offset > partial.size:
            self._give_up(peer, key, clock)
            raise RemoteProtocolError(Reason.INCOMPLETE, "a piece before it did not come")
        return self._append(peer, key, partial, data, clock)

    def _append(
        self, peer: NodeId, key: K, partial: _Partial[T], data: memoryview | bytes, clock: float
    ) -> list[memoryview | bytes] | None:
        if partial.size + len(data) == partial.total:
            self._forget(peer, key)
            return [*partial.pieces, data]
        self._make_room(peer, key, len(data), clock)
        held = self._held.setdefault(peer, OrderedDict())
        held[key] = partial
        held.move_to_end(key)
        partial.pieces.append(data)
        partial.size += len(data)
        partial.touched = clock
        self._bytes[peer] = self._bytes.get(peer, 0) + len(data)
        self._pool.held += len(data)
        return None

    def _make_room(self, peer: NodeId, key: K, size: int, clock: float) -> None:
        """Give up this peer's others, the one that waits for longest first; then those of whoever holds most."""
        while self.held(peer) + size > self._per_peer or len(self._held.get(peer, ())) > _HELD_AT_ONCE:
            oldest = next((each for each in self._held.get(peer, ()) if each != key), None)
            if oldest is None:
                break
            self._give_up(peer, oldest, clock)
        while self._pool.held + size > self._pool.most:
            most = max(self._bytes, key=lambda each: self._bytes[each], default=None)
            oldest = (
                None
                if most is None
                else next((each for each in self._held[most] if (most, each) != (peer, key)), None)
            )
            if most is None or oldest is None:
                break
            self._give_up(most, oldest, clock)

    def _forget(self, peer: NodeId, key: K) -> _Partial[T] | None:
        held = self._held.get(peer)
        partial = None if held is None else held.pop(key, None)
        if held is None or partial is None:
            return None
        self._pool.held -= partial.size
        self._bytes[peer] -= partial.size
        if not held:
            del self._held[peer], self._bytes[peer]
        return partial

    def _give_up(self, peer: NodeId, key: K, clock: float) -> None:
        partial = self._forget(peer, key)
        if partial is not None:
            self._given_up(peer, key, partial.number, partial.what, clock)

    def give_up_below(self, peer: NodeId, key: K, number: int, clock: float) -> None:
        """Everything below ``number`` has been sent: what of it has not come will not."""
        under_way = self.under_way(peer, key)
        if under_way is not None and under_way < number:
            self._give_up(peer, key, clock)

    def drop(self, peer: NodeId, clock: float) -> None:
        """Nothing more comes of this peer."""
        for key in list(self._held.get(peer, ())):
            self._give_up(peer, key, clock)

    def drop_if(self, predicate: Callable[[K], bool]) -> None:
        """Nobody wants these any more: they are nobody's loss."""
        for peer, key in [(peer, key) for peer, key, _ in self._all() if predicate(key)]:
            self._forget(peer, key)

    def _all(self) -> Iterator[tuple[NodeId, K, _Partial[T]]]:
        for peer, held in self._held.items():
            for key, partial in held.items():
                yield peer, key, partial

    def deadline(self) -> float:
        return min((partial.touched for _, _, partial in self._all()), default=float("inf")) + STALLED

    def timer(self, clock: float) -> None:
        """Give up what makes no progress."""
        stalled = [(peer, key) for peer, key, partial in self._all() if partial.touched + STALLED <= clock]
        for peer, key in stalled:
            self._give_up(peer, key, clock)
