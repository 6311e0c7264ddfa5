"""Templates and patterns, held against naive models."""

from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mesh
from bridges.mapping import Template, glob, literal, regex, reject_topic, words

LEVELS = st.lists(st.text("ab1-ü ", min_size=1, max_size=4), min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("text", "wildcards", "filled"),
    [
        ("home.{topic}", 0, "home.a.b.c"),
        ("{1}", 1, "b.c"),
        ("{2}:{1}:{2}", 2, "x:b.c:x"),
        ("plain", 0, "plain"),
        ("{{{topic}}}", 0, "{a.b.c}"),
        ("", 0, ""),
    ],
)
def test_templates_are_filled(text: str, wildcards: int, filled: str) -> None:
    template = Template.parse(text, wildcards=wildcards)
    assert template.fill("a/b/c", ["b/c", "x"][:wildcards], separator="/", to=".") == filled


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("{1}", "has {1}, and the pattern has no wildcard"),
        ("{topc}", "has {topc}; known are {topic}"),
        ("a{", "single '{'"),
        ("a}b", "single '}'"),
        ("{0}", "known are"),
        ("{}", "known are"),
    ],
)
def test_templates_that_cannot_be(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=re.escape(wrong)):
        Template.parse(text, wildcards=0)
    with pytest.raises(ValueError, match=r"the pattern has 1 wildcard$"):
        Template.parse("{2}", wildcards=1)


@given(st.text("a{}1/topic.", max_size=20))
def test_any_template_is_filled_or_refused(text: str) -> None:
    try:
        template = Template.parse(text, wildcards=1)
    except ValueError:
        return
    filled = template.fill("x/y", ["z"], separator="/", to=".")
    assert template.fixed == (template.fill("other", ["other"], separator="/", to=".") == filled)


@given(LEVELS, st.sampled_from([".", ":", "::"]))
def test_names_come_back_when_no_level_holds_the_separator(levels: list[str], separator: str) -> None:
    topic = "/".join(levels)
    there = Template.parse("out" + separator + "{topic}", wildcards=0).fill(
        topic, (), separator="/", to=separator
    )
    took = words(f"out{separator}#", separator=separator).captures(there)
    assert took is not None
    assert Template.parse("{1}", wildcards=1).fill(there, took, separator=separator, to="/") == topic


@given(LEVELS, st.lists(st.sampled_from(["a", "b", "*", "**"]), min_size=1, max_size=5))
def test_words_take_what_the_mesh_patterns_take(levels: list[str], pattern: list[str]) -> None:
    """AMQP's ``*`` and ``#`` are the mesh's ``*`` and ``**``."""
    topic = "/".join(levels)
    ours = mesh.Pattern.parse("/".join(pattern)).captures(topic)
    theirs = words(".".join("#" if word == "**" else word for word in pattern)).captures(".".join(levels))
    assert (ours is None) == (theirs is None)
    if ours is not None and theirs is not None:
        assert [each.replace("/", ".") for each in ours] == list(theirs)


@given(
    st.lists(st.sampled_from(["a", "b", ".", "*", "?", "[ab]", "[^a]"]), max_size=7),
    st.text("ab.*", max_size=7),
)
def test_globs_take_what_fnmatch_takes(parts: list[str], name: str) -> None:
    pattern = "".join(parts)
    captures = glob(pattern).captures(name)
    assert (captures is not None) == fnmatch.fnmatchcase(name, pattern.replace("[^", "[!"))
    if captures is None:
        return
    filled = iter(captures)
    places = [next(filled) if part in ("*", "?", "[ab]", "[^a]") else part for part in parts]
    assert "".join(places) == name
    assert glob(pattern).wildcards == len(captures)


def test_stars_take_little() -> None:
    assert glob("a*b*c").captures("a1b2b3c") == ("1", "2b3")
    assert words("#.x.#").captures("a.x.b.x") == ("a", "b.x")


def test_globs_as_redis_has_them() -> None:
    assert glob("h[a-c]llo").captures("hbllo") == ("b",)
    assert glob("h[c-a]llo").captures("hbllo") == ("b",)
    assert glob(r"what\*[\]]").captures("what*]") == ("]",)
    assert glob("open[").captures("open[") == ()
    assert glob("trailing\\").captures("trailing\\") == ()
    assert glob("a*").captures("a\nb") == ("\nb",)


def test_a_glob_of_many_stars_is_quick() -> None:
    assert glob("*a" * 20 + "*b").captures("a" * 250) is None


def test_other_sources() -> None:
    assert literal("a.*").captures("a.*") == ()
    assert literal("a.*").captures("a.b") is None
    assert literal("a").exact
    assert regex(r"^sensor-(\d+)(-x)?$").captures("sensor-12") == ("12", "")
    assert regex("a").captures("ab") is None
    with pytest.raises(ValueError, match="no regular expression"):
        regex("(")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("a//b", "empty level"),
        ("a/*", "wildcard"),
        ("@mesh/x", "mesh's own"),
        ("x" * 300, "bytes long"),
        ("", "empty"),
    ],
)
def test_topics_that_nobody_may_publish_on(text: str, wrong: str) -> None:
    assert wrong in (reject_topic(text) or "")
    assert reject_topic("a/b") is None


@given(
    st.lists(st.sampled_from(["x", "y", "*", "#"]), max_size=6),
    st.lists(st.sampled_from(["x", "y"]), max_size=6),
)
def test_words_against_a_naive_model(pattern: list[str], levels: list[str]) -> None:
    def naive(rest: list[str], left: list[str]) -> bool:
        if not rest:
            return not left
        if rest[0] == "#":
            return any(naive(rest[1:], left[skip:]) for skip in range(len(left) + 1))
        return bool(left) and rest[0] in ("*", left[0]) and naive(rest[1:], left[1:])

    # An empty text is one empty word, for both.
    pattern, levels = pattern or [""], levels or [""]
    captures = words(".".join(pattern)).captures(".".join(levels))
    assert (captures is not None) == naive(pattern, levels)
    assert captures is None or len(captures) == sum(word in "*#" for word in pattern if word)
