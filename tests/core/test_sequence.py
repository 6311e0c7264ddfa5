from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.sequence import Missing, Observation, StreamSequences

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
    missing = sequences.tail("t", following)
    lost += missing.end - missing.first
    assert delivered + lost == sum(sizes)
    assert lost == sum(size for index, size in enumerate(sizes) if index in drops)


def test_the_first_batch_sets_the_start() -> None:
    sequences = StreamSequences()
    assert sequences.observe("t", 41, 2) == Observation(0, 0)
    assert sequences.observe("t", 44, 1) == Observation(1, 0)
    assert sequences.observe("t", 42, 4) == Observation(0, 3)
    assert sequences.observe("t", 43, 1) == Observation(0, 1)
    assert sequences.observe("t", 46, 1) == Observation(0, 0)


def test_the_publisher_says_where_it_stands() -> None:
    sequences = StreamSequences()
    assert sequences.stands_at("t", 3) == []
    assert sequences.settle() == []
    assert sequences.observe("t", 5, 1) == Observation(2, 0)
    assert sequences.observe("t", 1, 3) == Observation(0, 3)


def test_what_begins_after_all_has_been_told_begins_at_0() -> None:
    sequences = StreamSequences()
    sequences.observe("early", 2, 1)  # the positions are under way, and do not know of it
    sequences.observe("first", 0, 1)
    assert sequences.settle() == [("early", Missing(0, 2))]
    assert sequences.observe("late", 4, 1) == Observation(4, 0)
    assert sequences.tail("last", 6) == Missing(0, 6)
    sequences.unsettle()  # another subscription: what it brings may have begun long ago
    assert sequences.observe("old", 7, 1) == Observation(0, 0)
    assert sequences.tail("older", 9) == Missing(0, 0)


def test_a_position_that_comes_behind_the_first_batches() -> None:
    sequences = StreamSequences()
    sequences.observe("t", 5, 1)
    assert sequences.stands_at("t", 3) == [Missing(3, 5)]
    assert sequences.stands_at("t", 3) == []  # each loss once
    assert sequences.observe("t", 6, 1) == Observation(0, 0)
    assert sequences.stands_at("t", 9) == [Missing(7, 9)]  # another session: it went on meanwhile
    sequences.observe("u", 1, 1)
    assert sequences.stands_at("u", 4) == [Missing(2, 4)]
    assert sequences.settle() == []


def test_what_somebody_else_counts_is_old_here() -> None:
    sequences = StreamSequences()
    sequences.observe("t", 0, 3)
    assert sequences.next_of("t") == 3
    sequences.retire("t")
    assert sequences.observe("t", 3, 2) == Observation(0, 2)


def test_tail() -> None:
    sequences = StreamSequences()
    nothing = Missing(0, 0)
    assert sequences.tail("t", 7) == nothing  # it has not begun …
    assert sequences.observe("t", 5, 2) == Observation(0, 0)  # … and still begins with what comes first
    assert sequences.tail("t", 9) == Missing(7, 9)
    assert sequences.tail("t", 9) == nothing  # each loss once
    assert sequences.tail("t", 4) == nothing  # an announcement that was overtaken
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
    sequences.settle()
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
