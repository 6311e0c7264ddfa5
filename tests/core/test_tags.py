from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.config import Limits
from mesh.core.keys import beacon_key, derive, intro_key_pair
from mesh.core.tags import (
    SubscriptionBody,
    TagKey,
    barrier_tag,
    parse_barrier,
    parse_subscription,
    subscription_body,
    verify_subscription,
)
from mesh.core.types import MeshId, NodeId, Reason, RemoteProtocolError
from mesh.errors import TopicError
from tests.core.naive import naive_matches, patterns, topics

FOLDER = Path(__file__).parent.parent / "vectors"
FILE = (FOLDER / "tags.json").read_text(encoding="utf-8")
VECTORS: dict[str, Any] = json.loads(FILE)

KEY = TagKey(bytes(32))
NODE = NodeId(bytes(range(16)))
TOKEN = b"\7" * 32


def test_the_script_makes_the_file() -> None:
    assert runpy.run_path(str(FOLDER / "make_tags.py"))["text"]() == FILE


@pytest.mark.parametrize("vector", VECTORS["derive"])
def test_vectors_derive(vector: dict[str, Any]) -> None:
    key = derive(bytes.fromhex(vector["secret"]), vector["info"].encode(), vector["length"])
    assert key.hex() == vector["key"]


@pytest.mark.parametrize("vector", VECTORS["keys"])
def test_vectors_keys(vector: dict[str, str]) -> None:
    mesh = MeshId(bytes.fromhex(vector["mesh_id"]))
    public, secret = intro_key_pair(mesh)
    assert secret.hex() == vector["intro_secret"]
    assert public.hex() == vector["intro_public"]
    assert beacon_key(mesh).hex() == vector["beacon_key"]


@pytest.mark.parametrize("vector", VECTORS["tags"])
def test_vectors_tags(vector: dict[str, Any]) -> None:
    key = TagKey(bytes.fromhex(vector["mesh_secret"]))
    for each in vector["chains"]:
        assert key.chain(each["topic"]).hex() == each["tag"]
    for each in vector["prefixes"]:
        assert key.prefix(each["pattern"]).hex() == each["tag"]


@pytest.mark.parametrize("vector", VECTORS["barriers"])
def test_vectors_barriers(vector: dict[str, Any]) -> None:
    nonce, tag = bytes.fromhex(vector["nonce"]), bytes.fromhex(vector["tag"])
    assert barrier_tag(nonce, vector["version"]) == tag
    assert parse_barrier(tag) == (nonce, vector["version"])


@pytest.mark.parametrize("vector", VECTORS["subscriptions"])
def test_vectors_subscriptions(vector: dict[str, Any]) -> None:
    node, token, tag, body = (bytes.fromhex(vector[name]) for name in ("node", "token", "tag", "body"))
    assert subscription_body(NodeId(node), vector["token_epoch"], token, tag) == body
    parsed = parse_subscription(body)
    assert (parsed.node, parsed.epoch, parsed.tag) == (node, vector["token_epoch"], tag)
    assert verify_subscription(parsed, token)


@given(pattern=patterns, topic=topics)
def test_a_prefix_lets_every_matching_topic_through(pattern: str, topic: str) -> None:
    if naive_matches(pattern, topic):
        assert KEY.chain(topic).startswith(KEY.prefix(pattern))


def test_an_exact_pattern_lets_nothing_else_through() -> None:
    assert KEY.prefix("a/b") == KEY.chain("a/b")
    assert not KEY.chain("a/b/c").startswith(KEY.prefix("a/b"))
    assert not KEY.chain("a").startswith(KEY.prefix("a/b"))
    assert not KEY.chain("ab").startswith(KEY.prefix("a/**"))


def test_another_secret_makes_other_tags() -> None:
    assert TagKey(b"\1" * 32).chain("a") != KEY.chain("a")


def test_a_bad_pattern_has_no_prefix() -> None:
    with pytest.raises(TopicError):
        KEY.prefix("a//b")


@pytest.mark.parametrize("pattern", ["/".join(["x"] * 128), "/".join(["x"] * 127) + "/*", "x" * 256])
def test_the_longest_subscription_fits_in_a_frame(pattern: str) -> None:
    body = subscription_body(NODE, 1, TOKEN, KEY.prefix(pattern))
    assert 1 + len(body) <= Limits().subscription_frame_bytes
    assert KEY.chain(pattern.replace("*", "y")).startswith(KEY.prefix(pattern))


@given(nonce=st.binary(min_size=8, max_size=8), version=st.integers(0, (1 << 64) - 1))
def test_barriers(nonce: bytes, version: int) -> None:
    assert parse_barrier(barrier_tag(nonce, version)) == (nonce, version)


@given(tag=st.binary(max_size=20))
def test_nothing_else_is_a_barrier(tag: bytes) -> None:
    parsed = parse_barrier(tag)
    assert (parsed is not None) == (len(tag) == 17 and tag.startswith(b"B"))
    assert parsed is None or barrier_tag(*parsed) == tag


def test_the_tag_of_a_topic_is_no_barrier() -> None:
    assert parse_barrier(KEY.prefix("a/b/*")) is None
    assert len(KEY.prefix("a/b/*")) == 17


@given(body=st.binary(max_size=80))
def test_any_bytes_are_a_body_or_refused(body: bytes) -> None:
    if len(body) < 37:
        with pytest.raises(RemoteProtocolError) as caught:
            parse_subscription(body)
        assert caught.value.reason is Reason.BAD_SUBSCRIPTION
        return
    parsed = parse_subscription(body)
    assert parsed.node + parsed.epoch.to_bytes(4, "big") + parsed.mac + parsed.tag == body
    assert not verify_subscription(parsed, TOKEN)


@given(
    epoch=st.integers(0, (1 << 32) - 1), tag=st.binary(min_size=1, max_size=40), flip=st.integers(0, 1 << 30)
)
def test_every_changed_bit_is_noticed(epoch: int, tag: bytes, flip: int) -> None:
    body = subscription_body(NODE, epoch, TOKEN, tag)
    assert parse_subscription(body) == SubscriptionBody(NODE, epoch, body[20:36], tag)
    assert verify_subscription(parse_subscription(body), TOKEN)
    assert not verify_subscription(parse_subscription(body), bytes(32))
    changed = bytearray(body)
    bit = flip % (8 * len(body))
    changed[bit // 8] ^= 1 << bit % 8
    assert not verify_subscription(parse_subscription(bytes(changed)), TOKEN)
