from __future__ import annotations

import unicodedata
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.topic import (
    Pattern,
    captures,
    check_pattern,
    check_topic,
    is_valid_pattern,
    is_valid_topic,
    matches,
)
from mesh.errors import TopicError
from tests.core.naive import naive_captures, naive_matches, patterns, topics


def is_topic(text: str) -> bool:
    """The definition, step by step."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return False
    return (
        size <= 256
        and "*" not in text
        and all(text.split("/"))
        and not any(unicodedata.category(c) == "Cc" for c in text)
    )


def is_pattern(text: str) -> bool:
    levels = ["x" if level in ("*", "**") else level for level in text.split("/")]
    return is_topic("/".join(levels)) and len(text.encode()) <= 256


texts = st.one_of(
    st.text(st.characters(), max_size=20),
    st.text("a/*@\0\x7f\x9fé\ud800", max_size=12),
    st.text("a/é€𝄞", min_size=60, max_size=260),
)


@given(text=texts)
def test_rules(text: str) -> None:
    assert is_valid_topic(text) == is_topic(text)
    assert is_valid_pattern(text) == is_pattern(text)
    for check, good in ((check_topic, is_topic(text)), (check_pattern, is_pattern(text))):
        if good:
            assert check(text) == text
        else:
            with pytest.raises(TopicError) as caught:
                check(text)
            assert caught.value.topic == text


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        ("", "empty"),
        ("/a", "empty level"),
        ("a/", "empty level"),
        ("a//b", "empty level"),
        ("a/\0", "U\\+0000"),
        ("a\x85b", "U\\+0085"),
        ("a/\ud800", "surrogate"),
        ("a/*", "only patterns"),
        ("é" * 129, "258 bytes long, and 256"),
    ],
)
def test_the_reason_says_what_is_wrong(topic: str, reason: str) -> None:
    with pytest.raises(TopicError, match=reason):
        check_topic(topic)


@pytest.mark.parametrize("pattern", ["ab*", "a/*b/c", "***", "a/** /b"])
def test_a_wildcard_is_a_whole_level(pattern: str) -> None:
    with pytest.raises(TopicError, match="whole level"):
        check_pattern(pattern)


def test_limit() -> None:
    assert check_topic("a" * 256)
    assert check_topic("a" * 8, limit=8)
    with pytest.raises(TopicError, match="9 bytes"):
        check_topic("a" * 9, limit=8)
    assert not is_valid_topic("a" * 257)
    assert not is_valid_pattern("a" * 257)


@pytest.mark.parametrize("wrong", [None, 5, b"a/b", ["a"]])
def test_must_be_text(wrong: object) -> None:
    for check in (check_topic, check_pattern):
        with pytest.raises(TopicError, match="must be text"):
            check(wrong)  # type: ignore[arg-type]


def test_a_kind_of_text_becomes_plain_text() -> None:
    class Topics(StrEnum):
        HUMIDITY = "home/humidity"

    assert type(check_topic(Topics.HUMIDITY)) is str
    assert check_topic(Topics.HUMIDITY) == "home/humidity"


@given(pattern=patterns, topic=topics)
def test_same_as_the_definition(pattern: str, topic: str) -> None:
    assert matches(pattern, topic) == naive_matches(pattern, topic)
    assert captures(pattern, topic) == naive_captures(pattern, topic)


@pytest.mark.parametrize(
    ("pattern", "topic", "expected"),
    [
        ("home/*/temperature", "home/kitchen/temperature", ["kitchen"]),
        ("home/**", "home", [""]),
        ("home/**", "home/a/b", ["a/b"]),
        ("**/b/**", "a/b/c/b/d", ["a", "c/b/d"]),
        ("**/*", "a/b", ["a", "b"]),
        ("*/**/*", "a/b", ["a", "", "b"]),
        ("a/b", "a/b", []),
        ("a/b", "a/c", None),
        ("a/*", "a", None),
        ("**", "@mesh/state", None),
        ("*/state", "@mesh/state", None),
        ("**/@mesh/state", "@mesh/state", None),
        ("@mesh/**", "@mesh/state", ["state"]),
        ("a/*", "a/@mesh", ["@mesh"]),
    ],
)
def test_captures(pattern: str, topic: str, expected: list[str] | None) -> None:
    assert captures(pattern, topic) == expected
    assert matches(pattern, topic) == (expected is not None)


def test_many_globstars_do_not_explode() -> None:
    pattern = Pattern.parse("/".join(["**/a"] * 50) + "/b")
    assert not pattern.matches("/".join(["a"] * 127))
    assert pattern.matches("/".join(["a"] * 126 + ["b"]))


@given(pattern=patterns)
def test_pattern(pattern: str) -> None:
    parsed = Pattern.parse(pattern)
    assert parsed.text == pattern
    assert "/".join(parsed.levels) == pattern
    assert parsed.exact == ("*" not in pattern)
    assert parsed.prefix_levels == parsed.levels[: len(parsed.prefix_levels)]
    assert not any("*" in level for level in parsed.prefix_levels)
    if not parsed.exact:
        assert "*" in parsed.levels[len(parsed.prefix_levels)]
    assert Pattern.parse(pattern) == parsed


def test_a_bad_pattern_matches_nothing_but_raises() -> None:
    for use in (matches, captures):
        with pytest.raises(TopicError):
            use("a//b", "a/b")
