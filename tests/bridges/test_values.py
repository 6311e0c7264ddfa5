"""Values and headers across a bridge."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mesh
from bridges.messages import BrokerMessage, flatten, header_text, unflatten
from bridges.values import CBOR, JSON, RAW, Unmappable, encode, from_broker, to_broker

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@dataclass
class Sent:
    """What ``to_broker`` needs of a ``mesh.Message``."""

    value: Any

    @property
    def kind(self) -> int:
        return 0 if isinstance(self.value, bytes) else 1

    @property
    def data(self) -> bytes:
        return self.value if isinstance(self.value, bytes) else mesh.encode_cbor(self.value)


def there_and_back(value: Any, form: Literal["raw", "json", "cbor"]) -> Any:
    data, content_type = to_broker(Sent(value), form)  # type: ignore[arg-type]
    return from_broker(data, content_type, form)


@given(PLAIN | st.binary())
def test_raw_and_cbor_bring_every_value_back(value: Any) -> None:
    assert there_and_back(value, "raw") == value
    assert there_and_back(value, "cbor") == value


@given(PLAIN)
def test_json_brings_back_what_json_can_say(value: Any) -> None:
    assert there_and_back(value, "json") == value


@given(st.binary(max_size=200))
def test_foreign_bytes_are_a_value_or_unmappable(data: bytes) -> None:
    assert from_broker(data, "", "raw") == data
    for form in ("json", "cbor"):
        try:
            from_broker(data, "", form)  # type: ignore[arg-type]
        except Unmappable as error:
            assert error.reason in ("not JSON", "not CBOR")


def test_bytes_cross_untouched() -> None:
    assert to_broker(Sent(b"\x00\xff"), "raw") == (b"\x00\xff", RAW)  # type: ignore[arg-type]
    assert to_broker(Sent(21.5), "raw")[1] == CBOR  # type: ignore[arg-type]
    assert from_broker(b"on", "text/plain", "raw") == b"on"


def test_json_says_readably_what_it_lacks() -> None:
    when = datetime(2026, 1, 2, tzinfo=UTC)
    data, content_type = encode(
        {b"k": b"\xff", "s": {"b", "a"}, "t": when, "n": 1 << 9000, "p": (1, 2)}, "json"
    )
    assert content_type == JSON
    assert json.loads(data) == {
        "aw==": {"base64": "/w=="},
        "s": ["a", "b"],
        "t": when.isoformat(),
        "n": hex(1 << 9000),
        "p": [1, 2],
    }


@pytest.mark.parametrize("bad", [b"", b"{", b"NaN", b"\xff", b"[" * 100_000, b'{"a": Infinity}'])
def test_what_is_no_json(bad: bytes) -> None:
    with pytest.raises(Unmappable, match="not JSON"):
        from_broker(bad, JSON, "json")


def test_values_that_cannot_cross() -> None:
    with pytest.raises(Unmappable, match="not JSON"):
        encode([float("nan")], "json")
    with pytest.raises(Unmappable, match="not CBOR"):
        encode(object(), "cbor")
    with pytest.raises(Unmappable, match="not CBOR"):
        from_broker(b"\xff", CBOR, "raw")


TEXTS = st.text(max_size=8)


@given(
    st.builds(
        BrokerMessage,
        destination=TEXTS,
        data=st.binary(max_size=8),
        key=TEXTS,
        headers=st.dictionaries(st.text("abc", min_size=1), TEXTS, max_size=3),
        content_type=TEXTS,
        message_id=TEXTS,
        timestamp=st.none() | st.floats(0, 1e12),
        reply_to=TEXTS,
        correlation_id=TEXTS,
        filled=st.just({}),
    )
)
def test_fields_among_the_headers_come_back(message: BrokerMessage) -> None:
    flat = flatten(message)
    assert all(isinstance(each, str) for pair in flat.items() for each in pair)
    assert unflatten(message.destination, message.data, flat, key=message.key) == message


def test_headers_of_others() -> None:
    foreign = unflatten("a", b"", {"timestamp": "yesterday", "x": "1"})
    assert foreign.timestamp is None
    assert foreign.headers == {"timestamp": "yesterday", "x": "1"}
    assert [header_text(each) for each in ("a", b"\xffb", None, 3, True, {"k": [1]}, {1, 2})] == [
        "a", "\ufffdb", "", "3", "true", '{"k": [1]}', "{1, 2}",
    ]  # fmt: skip


@given(PLAIN | st.binary())
def test_cbor_by_itself(value: Any) -> None:
    assert mesh.decode_cbor(mesh.encode_cbor(value)) == value


@pytest.mark.parametrize("bad", [b"", b"\xff", b"\x01\x01", b"\x9f\xff", b"\xd8\x23\x61a"])
def test_what_is_not_one_value_of_cbor(bad: bytes) -> None:
    with pytest.raises(mesh.ValueEncodingError):
        mesh.decode_cbor(bad)
