from __future__ import annotations

import gc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mesh.core.subtrie import SubscriptionTrie, _Node
from mesh.errors import TopicError
from tests.core.naive import naive_matches, patterns, topics

values = st.integers(0, 4)


class TrieAgainstASetOfPairs(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.trie: SubscriptionTrie[int] = SubscriptionTrie()
        self.pairs: set[tuple[str, int]] = set()

    @rule(pattern=patterns, value=values)
    def add(self, pattern: str, value: int) -> None:
        before = self.trie.generation
        added = self.trie.add(pattern, value)
        assert added == ((pattern, value) not in self.pairs)
        assert (self.trie.generation != before) == added
        self.pairs.add((pattern, value))

    @rule(pattern=patterns, value=values)
    def remove_any(self, pattern: str, value: int) -> None:
        self._remove(pattern, value)

    @rule(data=st.data())
    def remove_one(self, data: st.DataObject) -> None:
        if self.pairs:
            self._remove(*data.draw(st.sampled_from(sorted(self.pairs))))

    def _remove(self, pattern: str, value: int) -> None:
        before = self.trie.generation
        removed = self.trie.remove(pattern, value)
        assert removed == ((pattern, value) in self.pairs)
        assert (self.trie.generation != before) == removed
        self.pairs.discard((pattern, value))

    @rule(topic=topics)
    def match(self, topic: str) -> None:
        expected = sorted({value for pattern, value in self.pairs if naive_matches(pattern, topic)})
        assert sorted(self.trie.match(topic)) == expected  # as lists: each value once
        assert self.trie.match_any(topic) == bool(expected)

    @invariant()
    def same_pairs(self) -> None:
        assert len(self.trie) == len(self.pairs)
        assert sorted(self.trie) == sorted(self.pairs)

    @invariant()
    def no_empty_nodes(self) -> None:
        nodes = [self.trie._root]
        for node in nodes:
            nodes += [n for n in (*node.children.values(), node.star, node.globstar) if n is not None]
            assert node is self.trie._root or not node.empty


TestTrie = TrieAgainstASetOfPairs.TestCase
TestTrie.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


@given(pairs=st.lists(st.tuples(patterns, values), max_size=40), topic=topics)
def test_many_patterns_at_once(pairs: list[tuple[str, int]], topic: str) -> None:
    trie: SubscriptionTrie[int] = SubscriptionTrie()
    for pattern, value in pairs:
        trie.add(pattern, value)
    expected = sorted({value for pattern, value in pairs if naive_matches(pattern, topic)})
    assert sorted(trie.match(topic)) == expected
    assert trie.match_any(topic) == bool(expected)


def test_a_wildcard_at_the_first_level_does_not_take_the_meshs_own() -> None:
    trie: SubscriptionTrie[str] = SubscriptionTrie()
    for pattern in ("**", "*/state", "**/@mesh/state", "@mesh/**", "@mesh/*"):
        trie.add(pattern, pattern)
    assert sorted(trie.match("@mesh/state")) == ["@mesh/*", "@mesh/**"]
    assert trie.match("@other/state") == []


def test_membership() -> None:
    trie: SubscriptionTrie[int] = SubscriptionTrie()
    trie.add("a/*", 1)
    assert ("a/*", 1) in trie
    assert ("a/*", 2) not in trie
    assert ("a/b", 1) not in trie
    assert "a/*" not in trie


def test_a_bad_pattern_changes_nothing() -> None:
    trie: SubscriptionTrie[int] = SubscriptionTrie()
    with pytest.raises(TopicError):
        trie.add("a//b", 1)
    assert (len(trie), trie.generation) == (0, 0)
    assert trie.remove("a//b", 1) is False
    assert trie._root.empty


def nodes_alive() -> int:
    return sum(type(thing) is _Node for thing in gc.get_objects())


def test_memory_comes_back_at_once() -> None:
    gc.collect()
    gc.disable()  # reference counts alone must do it
    try:
        before = nodes_alive()
        trie: SubscriptionTrie[int] = SubscriptionTrie()
        for number in range(100):
            trie.add(f"a/*/{number}/**", number)
        assert nodes_alive() == before + 203
        for number in range(100):
            trie.remove(f"a/*/{number}/**", number)
        assert nodes_alive() == before + 1
    finally:
        gc.enable()
    assert trie._root.empty
    assert not trie._ends


def test_many_globstars_do_not_explode() -> None:
    trie: SubscriptionTrie[int] = SubscriptionTrie()
    trie.add("/".join(["**/a"] * 50) + "/b", 1)
    trie.add("/".join(["**"] * 80), 2)
    assert trie.match("/".join(["a"] * 127)) == [2]
    assert sorted(trie.match("/".join(["a"] * 126 + ["b"]))) == [1, 2]


def test_deep_patterns_need_no_recursion() -> None:
    trie: SubscriptionTrie[int] = SubscriptionTrie()
    deep = "/".join(["a"] * 128)
    trie.add(deep, 1)
    assert trie.match(deep) == [1]
    assert list(trie) == [(deep, 1)]
    assert trie.remove(deep, 1)
    assert trie._root.empty
