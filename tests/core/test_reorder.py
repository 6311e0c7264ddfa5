"""Order out of disorder: whatever comes in whatever order, each message goes out once, or is named as lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesh.core.messages import Batch
from mesh.core.reorder import HELD_BYTES, Fresh, Hole, Reorder, Room, Step


def batch(first: int, count: int, size: int = 1) -> Batch:
    return Batch("t", first, 0, 0, [b"x" * size] * count, None)


class Reader:
    """Takes the steps, and sees to it that nothing comes twice or out of order."""

    def __init__(self) -> None:
        self.next: int | None = None
        self.delivered: list[int] = []
        self.lost: list[int] = []

    def take(self, steps: list[Step]) -> None:
        for step in steps:
            if isinstance(step, Fresh):
                first, end = step.batch.sequence + step.skip, step.batch.sequence + len(step.batch.values)
                self.delivered += range(first, end)
            else:
                first, end = step
                self.lost += range(first, end)
            assert first < end
            assert self.next in (None, first)
            self.next = end


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    """Batches of a stream of 60, some never, some twice, in any order; the publisher's word now and then."""
    events: list[tuple[str, int, int]] = []
    at = 0
    while at < 60:
        count = draw(st.integers(1, 6))
        events += [("batch", at, count)] * draw(st.integers(0, 2))
        at += count
    events += [("gone", draw(st.integers(0, 60)), 0) for _ in range(draw(st.integers(0, 2)))]
    events += [("tail", draw(st.integers(0, 60)), 0) for _ in range(draw(st.integers(0, 2)))]
    return draw(st.permutations(events))


@given(histories(), st.integers(0, 30) | st.none(), st.data())
def test_each_once_in_order_or_lost(
    events: list[tuple[str, int, int]], begin: int | None, data: st.DataObject
) -> None:
    room = Room()
    reorder, reader = Reorder(begin, room), Reader()
    known = begin or 0
    lowest = 60
    for kind, first, count in events:
        if kind == "batch":
            reader.take(reorder.take(batch(first, count)))
            known = max(known, first + count)
            lowest = min(lowest, first)
        elif kind == "gone":
            reader.take(reorder.gone_below(first))
            known = max(known, first)
        else:
            reorder.announced(first)
            known = max(known, first)
        hole = reorder.hole
        if hole is not None:
            assert hole.first == reorder.next
            assert hole.first < hole.end <= known
    if begin is None:
        assert reader.delivered == []
        begin = data.draw(st.integers(0, 30))
        reader.take(reorder.begin(begin))
        begin = min(begin, lowest)
    assert (reorder.hole is None) == (reorder.next == max(known, begin))
    reader.take(reorder.give_up())
    assert reorder.hole is None
    assert room.held == 0
    assert sorted(reader.delivered + reader.lost) == list(range(begin, max(known, begin)))


def test_what_does_not_fit_is_asked_for_again() -> None:
    room = Room()
    reorder = Reorder(0, room)
    reorder.take(batch(1, 1, HELD_BYTES - 10))
    reorder.take(batch(2, 1, 20))
    assert reorder.hole == Hole(0, 1)
    assert len(reorder.take(batch(0, 1))) == 2
    assert reorder.hole == Hole(2, 3)
    other = Reorder(0, room)
    other.take(batch(1, 1, HELD_BYTES))
    assert (room.held, other.held) == (HELD_BYTES, 1)
    assert reorder.take(batch(3, 1, 1)) == []
    assert reorder.held == 0  # the room is the publisher's, not the stream's
    other.drop()
    assert room.held == 0


def test_without_a_beginning_it_begins_with_what_is_here() -> None:
    reorder = Reorder(None, Room())
    assert reorder.take(batch(7, 2)) == []
    assert reorder.hole is None
    assert reorder.begin_with_held() == [Fresh(batch(7, 2), 0)]
    assert reorder.begin(0) == []  # it has begun
