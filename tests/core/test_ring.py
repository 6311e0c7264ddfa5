"""What a publisher keeps: the latest, within its bytes, and exactly what is asked for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesh.core.ring import Ring

batches = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 40)), max_size=30)
numbers = st.integers(0, 120)


@given(
    batches,
    st.integers(1, 200),
    st.none() | st.integers(1, 9),
    st.integers(0, 10),
    numbers,
    numbers,
    st.integers(1, 100),
)
def test_against_a_list(
    sizes: list[tuple[int, int]],
    limit: int,
    most: int | None,
    start: int,
    first: int,
    end: int,
    budget: int,
) -> None:
    ring = Ring(limit, start, most)
    everything: list[tuple[int, int, bytes]] = []
    for count, size in sizes:
        begin = everything[-1][1] if everything else start
        everything.append((begin, begin + count, bytes([len(everything)]) * size))
        ring.append(count, everything[-1][2])
    here = list(everything)
    while len(here) > 1 and sum(len(each[2]) for each in here) > limit:
        del here[0]
    while most is not None and len(here) > 1 and here[-1][1] - here[1][0] >= most:
        del here[0]
    assert len(ring) == sum(len(each[2]) for each in here)
    assert ring.first == (here[0][0] if here else start)
    assert ring.next == (here[-1][1] if here else start)
    overlapping = [each for each in here if each[1] > first and each[0] < end]
    cut = [tuple(kept) for kept in ring.cut(first, end, budget)]
    assert cut == overlapping[: len(cut)]
    assert bool(cut) == bool(overlapping)
    assert sum(len(each[2]) for each in cut[1:]) <= budget
    if len(cut) < len(overlapping):
        assert sum(len(each[2]) for each in overlapping[: len(cut) + 1]) > budget
