from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.replay import ReplayWindow
from mesh.core.types import Reason


class NaiveWindow:
    """The window as its definition reads: a set of everything seen."""

    def __init__(self, size: int, start: int = 0) -> None:
        self.size = size
        self.start = start
        self.seen: set[int] = set()

    def check(self, counter: int) -> Reason | None:
        highest = max(self.seen, default=self.start - 1)
        if counter < self.start or counter <= highest - self.size:
            return Reason.TOO_OLD
        return Reason.DUPLICATE if counter in self.seen else None

    def mark(self, counter: int) -> None:
        if self.check(counter) is None:
            self.seen.add(counter)


# Steps relative to the highest counter so far: mostly the next one, else near the window's edges.
steps = st.lists(
    st.tuples(st.one_of(st.just(1), st.integers(-70, 70), st.integers(-300, 300)), st.booleans()), max_size=60
)


@given(size=st.sampled_from([1, 2, 7, 64, 65]), start=st.integers(0, 1 << 64), steps=steps)
def test_same_as_a_set(size: int, start: int, steps: list[tuple[int, bool]]) -> None:
    window, naive = ReplayWindow.starting_at(start, size=size), NaiveWindow(size, start)
    for step, authentic in steps:
        counter = max(0, window.next - 1 + step)
        assert window.check(counter) == naive.check(counter)
        if authentic:  # also of what check refuses: it must change nothing
            window.mark(counter)
            naive.mark(counter)
        for near in range(max(0, counter - size - 2), counter + 3):
            assert window.check(near) == naive.check(near)


def test_in_order() -> None:
    window = ReplayWindow()
    for counter in range(5000):
        assert window.check(counter) is None
        window.mark(counter)
        assert window.check(counter) is Reason.DUPLICATE
    assert window.check(5000 - 1024) is Reason.DUPLICATE
    assert window.check(5000 - 1025) is Reason.TOO_OLD


def test_a_check_alone_moves_nothing() -> None:
    window = ReplayWindow()
    window.mark(0)
    assert window.check(1 << 40) is None
    assert window.check(1) is None
    assert window.next == 1


def test_a_late_counter_is_accepted_once() -> None:
    window = ReplayWindow()
    for counter in (0, 1, 5):
        window.mark(counter)
    assert window.check(3) is None
    window.mark(3)
    assert window.check(3) is Reason.DUPLICATE
    assert window.check(2) is None


def test_a_new_receiver_accepts_nothing_from_before_it() -> None:
    window = ReplayWindow.starting_at(100, size=64)
    assert window.check(99) is Reason.TOO_OLD
    assert window.check(100) is None
    window.mark(101)
    assert window.check(100) is None
    assert window.check(99) is Reason.TOO_OLD


def test_a_far_jump_costs_no_memory() -> None:
    window = ReplayWindow(64)
    window.mark((1 << 64) - 1)
    assert window._missing < 1 << 64
    assert window.check((1 << 64) - 64) is None
    assert window.check((1 << 64) - 65) is Reason.TOO_OLD


def test_needs_a_place() -> None:
    with pytest.raises(ValueError, match="at least one"):
        ReplayWindow(0)
