"""CBOR under strict limits: what comes in, what a program's values become, and what neither may be."""

from __future__ import annotations

import re
from collections import deque
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from ipaddress import ip_address
from typing import Any
from uuid import UUID

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.codec import (
    Encoded,
    decode_strict,
    decode_value,
    encode_canonical,
    encode_value,
)
from mesh.core.messages import CBOR, RAW
from mesh.core.types import Reason, RemoteProtocolError
from mesh.errors import ValueEncodingError

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 80), 1 << 80)
    | st.floats(allow_nan=False)
    | st.binary(max_size=20)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
)
keys = st.text(st.characters(exclude_categories=("Cs",)), max_size=8) | st.binary(max_size=8)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


def refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_strict(data)
    assert caught.value.reason is Reason.BAD_MESSAGE


# -- what comes in --------------------------------------------------------------------


@given(values)
def test_an_item_there_and_back(value: Any) -> None:
    assert decode_strict(cbor2.dumps(value)) == value
    assert decode_strict(encode_canonical(value)) == value


@given(st.binary(max_size=300))
def test_garbage_raises_one_error(data: bytes) -> None:
    try:
        decode_strict(data)
    except RemoteProtocolError as error:
        assert error.reason is Reason.BAD_MESSAGE


@given(st.integers(0, 300) | st.sampled_from([1004, 1040, 43000, 55799]), values)
def test_whatever_is_tagged_raises_one_error(tag: int, value: Any) -> None:
    try:
        decode_strict(cbor2.dumps(cbor2.CBORTag(tag, value)))
    except RemoteProtocolError as error:
        assert error.reason is Reason.BAD_MESSAGE


@given(values, st.binary(min_size=1, max_size=9))
def test_trailing_bytes_are_refused(value: Any, more: bytes) -> None:
    refused(cbor2.dumps(value) + more)


@given(values)
def test_truncated_items_are_refused(value: Any) -> None:
    encoded = cbor2.dumps(value)
    for length in range(len(encoded)):
        refused(encoded[:length])


@pytest.mark.parametrize("opening", [b"\x81", b"\xa1\x61a"], ids=["arrays", "maps"])
def test_sixteen_levels_are_the_most(opening: bytes) -> None:
    decode_strict(opening * 16 + b"\x01")
    refused(opening * 17 + b"\x01")
    refused(opening * 100_000 + b"\x01")


@pytest.mark.parametrize(
    "encoded",
    [
        b"\xa2\x61a\x01\x61a\x02",  # a key twice
        b"\xa2\x41a\x01\x41a\x02",
        b"\x9f\x01\xff",  # indefinite lengths
        b"\xbf\x61a\x01\xff",
        b"\x5f\x41a\xff",
        b"\x7f\x61a\xff",
        b"\xa1\x01\x02",  # keys that are neither text nor bytes
        b"\xa1\xf5\x02",
        b"\xa1\xf6\x02",
        b"\xa1\xf9\x3c\x00\x02",
        b"\xa1\x81\x01\x02",
        b"\xa1\xc2\x41\x01\x02",
        b"\x61\xff",  # not UTF-8
        b"\x63\xed\xa0\x80",
        b"\xf8\x1f",  # a simple value in two bytes that is none
        b"\x1c",  # reserved heads
        b"\xff",
        b"\x9b" + b"\xff" * 8,  # an array of 2^64 - 1
        b"\x5b\x00\x00\x00\xff" + b"\xff" * 4,  # a byte string of a terabyte
        b"",
    ],
    ids=bytes.hex,
)
def test_forms_that_are_refused(encoded: bytes) -> None:
    refused(encoded)


@pytest.mark.parametrize("tag", [25, 28, 29, 35, 36, 256, 6, 24, 32, 99, 55555])
@pytest.mark.parametrize("content", [0, "a", b"a", []], ids=repr)
def test_tags_that_are_refused(tag: int, content: Any) -> None:
    refused(cbor2.dumps(cbor2.CBORTag(tag, content)))
    refused(cbor2.dumps({"deep": [cbor2.CBORTag(tag, content)]}))


def test_deterministic_encoding_sorts_by_encoded_keys() -> None:
    assert encode_canonical({"b": 1, "aa": 2, "a": 3}).hex() == "a3" + "616103" + "616201" + "62616102"


# -- a program's values -----------------------------------------------------------------


@given(values)
def test_a_value_there_and_back(value: Any) -> None:
    kind, data = encode_value(value)
    assert kind == (RAW if isinstance(value, bytes) else CBOR)
    assert decode_value(kind, data) == value


@pytest.mark.parametrize(
    "value",
    [
        datetime(2027, 1, 15, 8, 0, tzinfo=UTC),
        date(2027, 1, 15),
        Decimal("21.50"),
        Fraction(1, 3),
        UUID(bytes=bytes(16)),
        ip_address("192.0.2.7"),
        ip_address("2001:db8::7"),
        1 - 2j,
        pytest.param({"a", b"b"}, id="set"),
        float("inf"),
        1 << 200,
    ],
    ids=repr,
)
def test_richer_values_there_and_back(value: Any) -> None:
    kind, data = encode_value([value])
    decoded = decode_value(kind, data)
    assert decoded == [value]
    assert type(decoded[0]) is type(value)


def test_bytes_travel_untouched() -> None:
    assert encode_value(b"\x00\xff") == (RAW, b"\x00\xff")
    assert encode_value(bytearray(b"ab")) == encode_value(memoryview(b"ab")) == (RAW, b"ab")
    assert decode_value(RAW, b"\xff\xff") == b"\xff\xff"
    done = Encoded(CBOR, b"\x01")
    assert encode_value(done) is done


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_what_nests_too_deep_is_the_callers_mistake() -> None:
    kind, data = encode_value(nested(14))
    assert decode_value(kind, data) == nested(14)
    endless: list[Any] = []
    endless.append(endless)
    for value in (nested(15), endless, {"a": nested(14)}):
        with pytest.raises(ValueEncodingError, match="deeper"):
            encode_value(value)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (object(), "object"),
        ({1: "a"}, "dict"),
        ([{"a": {None: 1}}], "dict"),
        ({1, 2}, "set"),
        ("\ud800", "str"),
        (datetime(2027, 1, 15), "datetime"),  # noqa: DTZ001 - without a time zone: nobody knows when that is
        (print, "builtin_function_or_method"),
    ],
)
def test_what_cannot_travel_is_the_callers_mistake(value: Any, named: str) -> None:
    with pytest.raises(ValueEncodingError) as caught:
        encode_value(value)
    assert caught.value.type_name == named


def test_what_every_receiver_refuses_is_not_sent() -> None:
    for value in (re.compile("a+"), cbor2.CBORTag(28, []), deque([{1: 2}])):
        for wrapped in (value, [value], {"a": (value,)}):
            with pytest.raises(ValueEncodingError, match="receivers refuse it"):
                encode_value(wrapped)


@given(st.sampled_from([RAW, CBOR]), st.binary(max_size=100))
def test_received_values_raise_one_error(kind: int, data: bytes) -> None:
    try:
        decode_value(kind, data)
    except RemoteProtocolError as error:
        assert error.reason is Reason.BAD_MESSAGE
