from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.sequence import Observation, StreamSequences

batches = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 12), st.integers(1, 5)), max_size=40)


@given(batches=batches)
def test_same_as_sets_of_numbers(batches: list[tuple[str, int, int]]) -> None:
    """A message is new if it lies above all that came before on its topic; each gap is lost once."""
    sequences = StreamSequences()
    begun: dict[str, int] = {}
    highest: dict[str, int] = {}
    delivered: dict[str, list[int]] = {"a": [], "b": []}
    lost = {"a": 0, "b": 0}
    for topic, first, count in batches:
        seen = sequences.observe(topic, first, count)
        numbers = list(range(first, first + count))
        begun.setdefault(topic, first)
        before = highest.setdefault(topic, first - 1)
        assert numbers[seen.fresh_from :] == [n for n in numbers if n > before]
        delivered[topic] += numbers[seen.fresh_from :]
        lost[topic] += seen.lost
        highest[topic] = max(before, numbers[-1])
    for topic, start in begun.items():
        assert delivered[topic] == sorted(set(delivered[topic]))  # once, in order
        assert len(delivered[topic]) + lost[topic] == highest[topic] + 1 - start  # nothing unaccounted for


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=30),
    drops=st.sets(st.integers(1, 29)),
    repeats=st.sets(st.integers(0, 29)),
)
def test_every_drop_is_counted_and_no_repetition_delivered(
    sizes: list[int], drops: set[int], repeats: set[int]
) -> None:
    sequences = StreamSequences()
    delivered = lost = following = 0
    for index, size in enumerate(sizes):
        first, following = following, following + size
        for _ in range(0 if index in drops else 2 if index in repeats else 1):
            seen = sequences.observe("t", first, size)
            delivered += size - seen.fresh_from
            lost += seen.lost
    lost += sequences.tail("t", following)
    assert delivered + lost == sum(sizes)
    assert lost == sum(size for index, size in enumerate(sizes) if index in drops)


def test_the_first_batch_sets_the_start() -> None:
    sequences = StreamSequences()
    assert sequences.observe("t", 41, 2) == Observation(0, 0)
    assert sequences.observe("t", 44, 1) == Observation(1, 0)
    assert sequences.observe("t", 42, 4) == Observation(0, 3)
    assert sequences.observe("t", 43, 1) == Observation(0, 1)
    assert sequences.observe("t", 46, 1) == Observation(0, 0)


def test_expected_from_the_start() -> None:
    sequences = StreamSequences()
    sequences.expect("t", 3)
    assert sequences.observe("t", 5, 1) == Observation(2, 0)
    sequences.expect("u", 3)
    assert sequences.observe("u", 1, 3) == Observation(0, 2)


def test_tail() -> None:
    sequences = StreamSequences()
    assert sequences.tail("t", 7) == 0  # it has not begun …
    assert sequences.observe("t", 5, 2) == Observation(0, 0)  # … and still begins with what comes first
    assert sequences.tail("t", 9) == 2
    assert sequences.tail("t", 9) == 0  # each loss once
    assert sequences.tail("t", 4) == 0  # an announcement that was overtaken
    assert sequences.observe("t", 7, 3) == Observation(0, 2)


def test_forgetting_begins_anew() -> None:
    sequences = StreamSequences()
    for topic in ("a/1", "a/2", "b/1"):
        sequences.observe(topic, 0, 1)
    sequences.forget("b/1")
    sequences.forget("b/1")
    sequences.forget_if(lambda topic: topic == "a/1")
    assert len(sequences) == 1
    assert sequences.observe("b/1", 9, 1) == Observation(0, 0)
    assert sequences.observe("a/1", 9, 1) == Observation(0, 0)
    assert sequences.observe("a/2", 9, 1) == Observation(8, 0)


def test_bounded_by_the_topics_used_last() -> None:
    sequences = StreamSequences(topics=2)
    sequences.observe("a", 0, 1)
    sequences.observe("b", 0, 1)
    sequences.observe("a", 1, 1)
    sequences.observe("c", 0, 1)  # b makes room
    assert (len(sequences), sequences.evicted) == (2, 1)
    assert sequences.observe("a", 3, 1).lost == 1
    assert sequences.observe("b", 3, 1).lost == 0
    assert sequences.evicted == 2
    with pytest.raises(ValueError, match="one topic"):
        StreamSequences(topics=0)
