"""All patterns at once: which values are subscribed to a topic.

Patterns are a tree of levels; ``*`` and ``**`` are branches of their own.  Matching walks all
branches that fit side by side, one level of the topic at a time (a ``**`` branch stays where it
is for any level), so that its time grows with the nodes that fit, never with the ways to
combine several ``**``.

    add / remove → generation moves on;   match(topic) → values, each once
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from mesh.core.topic import GLOBSTAR, STAR, check_pattern

__all__ = ["SubscriptionTrie"]

T = TypeVar("T", bound=Hashable)


class _Node(Generic[T]):
    """One level of some patterns, and the values of the pattern that ends here."""

    __slots__ = ("children", "globstar", "level", "loops", "parent", "star", "values")

    def __init__(self, parent: _Node[T] | None, level: str) -> None:
        self.parent = parent
        self.level = level
        self.loops = level == GLOBSTAR  # takes any level and stays active
        self.children: dict[str, _Node[T]] = {}
        self.star: _Node[T] | None = None
        self.globstar: _Node[T] | None = None
        self.values: dict[T, None] = {}  # an ordered set

    def below(self, level: str) -> _Node[T]:
        """The node one level on; made if it is not there."""
        if level == GLOBSTAR:
            if self.globstar is None:
                self.globstar = _Node(self, level)
            return self.globstar
        if level == STAR:
            if self.star is None:
                self.star = _Node(self, level)
            return self.star
        child = self.children.get(level)
        if child is None:
            child = self.children[level] = _Node(self, level)
        return child

    def drop(self, node: _Node[T]) -> None:
        if node is self.globstar:
            self.globstar = None
        elif node is self.star:
            self.star = None
        else:
            del self.children[node.level]

    @property
    def empty(self) -> bool:
        return not self.values and not self.children and self.star is None and self.globstar is None


class SubscriptionTrie(Generic[T]):
    """A set of (pattern, value) pairs that can be asked by topic. Values are hashable."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node(None, "")
        self._ends: dict[str, _Node[T]] = {}
        self._size = 0
        self._generation = 0

    @property
    def generation(self) -> int:
        """Another number after each change: what was computed under the same one still holds."""
        return self._generation

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[tuple[str, T]]:
        for pattern, node in self._ends.items():
            for value in node.values:
                yield pattern, value

    def __contains__(self, pair: object) -> bool:
        if not (isinstance(pair, tuple) and len(pair) == 2):
            return False
        node = self._ends.get(pair[0])
        return node is not None and pair[1] in node.values

    def add(self, pattern: str, value: T) -> bool:
        """Add a pair; False if it is there already. Raises ``TopicError`` for a bad pattern."""
        node = self._ends.get(pattern)
        if node is None:
            node = self._root
            for level in check_pattern(pattern).split("/"):
                node = node.below(level)
            self._ends[pattern] = node
        elif value in node.values:
            return False
        node.values[value] = None
        self._size += 1
        self._generation += 1
        return True

    def remove(self, pattern: str, value: T) -> bool:
        """Take a pair away, and every node that only it needed; False if it is not there."""
        node = self._ends.get(pattern)
        if node is None or value not in node.values:
            return False
        del node.values[value]
        self._size -= 1
        self._generation += 1
        if not node.values:
            del self._ends[pattern]
        parent = node.parent
        while parent is not None and node.empty:
            parent.drop(node)
            node.parent = None  # without the way back there is no cycle: its memory is free at once
            node, parent = parent, parent.parent
        return True

    def match(self, topic: str) -> list[T]:
        """The values of all patterns that take ``topic`` (a valid one), each value once."""
        found = [node.values for node in self._active(topic) if node.values]
        if len(found) == 1:
            return list(found[0])
        merged: dict[T, None] = {}
        for values in found:
            merged |= values
        return list(merged)

    def match_any(self, topic: str) -> bool:
        """Whether any pattern takes ``topic``."""
        return any(node.values for node in self._active(topic))

    def _active(self, topic: str) -> list[_Node[T]]:
        """The nodes at which a pattern may end that takes the topic."""
        root = self._root
        levels = topic.split("/")
        active: list[_Node[T]]
        if topic.startswith("@"):  # the mesh's own: not for a wildcard at the first level
            child = root.children.get(levels[0])
            if child is None:
                return []
            active = [child]
            _add_globstars(active, set())
            del levels[0]
        else:
            active = [root]
            _add_globstars(active, set())
        for level in levels:
            after: list[_Node[T]] = []
            looping: set[_Node[T]] = set()
            for node in active:
                if node.loops:
                    after.append(node)
                    looping.add(node)
                if node.star is not None:
                    after.append(node.star)
                child = node.children.get(level)
                if child is not None:
                    after.append(child)
            _add_globstars(after, looping)
            active = after
            if not active:
                break
        return active


def _add_globstars(active: list[_Node[T]], looping: set[_Node[T]]) -> None:
    """Add the ``**`` below each active node: it may stand for no level at all.

    Only a ``**`` node can be reached in two ways (it stayed, or its parent became active), so only those
    already active (``looping``) have to be looked up. The list grows while it is walked.
    """
    for node in active:
        below = node.globstar
        if below is not None and below not in looping:
            active.append(below)
