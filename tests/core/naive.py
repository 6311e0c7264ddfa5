"""The rules of topics and patterns as their definition reads, for tests to hold the code against."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import strategies as st

# Few names, so that patterns and topics meet often; no "@", which has its own strategy below.
_words = st.sampled_from(["a", "b", "c"])
_first = st.one_of(_words, st.just("@m"))


def _join(first: str, rest: list[str]) -> str:
    return "/".join([first, *rest])


topics = st.builds(_join, _first, st.lists(_words, max_size=6))
patterns = st.builds(
    _join,
    st.one_of(_first, st.sampled_from(["*", "**"])),
    st.lists(st.one_of(_words, st.sampled_from(["*", "**"])), max_size=6),
)


def placings(pattern: list[str], topic: list[str]) -> Iterator[list[str]]:
    """Every way to lay the pattern over the topic; shorter ``**`` first, further left first."""
    if not pattern:
        if not topic:
            yield []
        return
    level, *rest = pattern
    if level == "**":
        for count in range(len(topic) + 1):
            for others in placings(rest, topic[count:]):
                yield ["/".join(topic[:count]), *others]
    elif topic and level in ("*", topic[0]):
        for others in placings(rest, topic[1:]):
            yield [topic[0], *others] if level == "*" else others


def naive_captures(pattern: str, topic: str) -> list[str] | None:
    if topic.startswith("@") and pattern.startswith("*"):
        return None
    return next(placings(pattern.split("/"), topic.split("/")), None)


def naive_matches(pattern: str, topic: str) -> bool:
    return naive_captures(pattern, topic) is not None
