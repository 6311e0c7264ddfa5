"""What a token allows: reading scopes, and whether one pattern covers another, against a naive model."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mesh
from bridges.web.scopes import EVERYTHING, Grant, covers, read_scope
from mesh.errors import ConfigError

LEVELS = ("a", "b", "*", "**")
TOPICS = ["/".join(levels) for size in range(1, 6) for levels in itertools.product("abc", repeat=size)]
patterns = st.lists(st.sampled_from(LEVELS), min_size=1, max_size=4).map("/".join)


@given(patterns, patterns)
def test_what_is_covered_is_matched(wide: str, narrow: str) -> None:
    """Never a yes where some topic says no."""
    if covers(wide, narrow):
        mine, theirs = mesh.Pattern.parse(wide), mesh.Pattern.parse(narrow)
        assert all(mine.matches(topic) for topic in TOPICS if theirs.matches(topic))


@given(patterns)
def test_a_pattern_covers_itself_and_everything_covers_it(pattern: str) -> None:
    assert covers(pattern, pattern)
    assert covers("**", pattern)


@given(patterns, st.sampled_from(TOPICS))
def test_a_topic_is_covered_where_it_is_matched(pattern: str, topic: str) -> None:
    assert covers(pattern, topic) == mesh.Pattern.parse(pattern).matches(topic)


@pytest.mark.parametrize(
    ("wide", "narrow", "covered"),
    [
        ("home/**", "home/*/x", True),
        ("home/**", "home", True),
        ("home/**", "home/**", True),
        ("home/*", "home/**", False),
        ("home/**", "**", False),
        ("*/x", "home/x", True),
        ("home/x", "*/x", False),
        ("**", "@mesh/x", False),
        ("*/x", "@mesh/x", False),
        ("@mesh/**", "@mesh/x", True),
        ("**/x", "a/**/x", True),
        ("a/**/b/**", "a/b", True),
    ],
)
def test_examples(wide: str, narrow: str, covered: bool) -> None:
    assert covers(wide, narrow) == covered


def test_grants() -> None:
    grant = Grant.of("t", ["publish:home/*", "subscribe", "request:home/oven"])
    assert grant.allows("publish", "home/x")
    assert not grant.allows("publish", "home/x/y")
    assert not grant.allows("subscribe", "@mesh/x")
    assert grant.allows_pattern("**")
    assert grant.allows("request", "home/oven")
    assert not grant.allows("request", "home/x")
    assert EVERYTHING.allows_pattern("a/**")


@pytest.mark.parametrize("text", ["", "home/**", "admin:**", "publish:", "publish:a//b", "publish:a b*"])
def test_scopes_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError):
        read_scope(text)
