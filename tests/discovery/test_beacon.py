"""The beacon's bytes: what goes in comes out, and nothing else does."""

from __future__ import annotations

import hashlib
import hmac
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.types import NodeId, Reason, RemoteProtocolError
from mesh.discovery.beacon import BEACON_BYTES, Beacon, Kind, decode, encode, read_txt, to_txt
from mesh.discovery.endpoints import tcp
from mesh.errors import ConfigError

KEY = bytes(range(32))

ports = st.integers(1, 65535)
ipv4 = st.ip_addresses(v=4).filter(lambda each: not each.is_unspecified and not each.is_multicast)
ipv6 = st.ip_addresses(v=6).filter(lambda each: not each.is_unspecified and not each.is_multicast)
endpoints = st.one_of(
    st.builds(lambda host, port: tcp(str(host), port), ipv4, ports),
    st.builds(lambda host, port: tcp(str(host), port), ipv6, ports),
    st.builds(tcp, st.from_regex(r"[a-z][a-z0-9-]{0,20}(\.local)?", fullmatch=True), ports),
    st.from_regex(r"ipc:///[a-z/]{1,20}", fullmatch=True),
)
beacons = st.builds(
    Beacon,
    st.binary(min_size=16, max_size=16).map(NodeId),
    st.lists(endpoints, max_size=6).map(tuple),
    st.tuples(st.integers(1, 10), st.integers(10, 255)),
)


def refused(data: bytes, key: bytes = KEY) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        decode(data, key)
    assert caught.value.reason is Reason.BAD_HINT
    return caught.value.detail


def signed(message: bytes, key: bytes = KEY) -> bytes:
    """What a faulty member might send: any content under a MAC that verifies."""
    return message + hmac.new(key, b"zeromesh beacon v1" + message, hashlib.sha256).digest()[:16]


@given(beacons, st.sampled_from(Kind))
def test_round_trip(beacon: Beacon, kind: Kind) -> None:
    data = encode(beacon, kind, KEY)
    assert len(data) <= BEACON_BYTES
    assert decode(data, KEY) == (kind, beacon)
    assert read_txt(to_txt(data)) == data


@given(beacons)
def test_no_answer_is_longer_than_its_question(beacon: Beacon) -> None:
    empty = Beacon(beacon.node, ())
    assert len(encode(beacon, Kind.ANSWER, KEY)) <= len(encode(empty, Kind.QUESTION, KEY)) == BEACON_BYTES


@given(beacons, st.sampled_from(Kind), st.data())
def test_any_flipped_bit_is_refused(beacon: Beacon, kind: Kind, data: st.DataObject) -> None:
    encoded = bytearray(encode(beacon, kind, KEY))
    bit = data.draw(st.integers(0, len(encoded) * 8 - 1))
    encoded[bit // 8] ^= 1 << bit % 8
    assert refused(bytes(encoded)) in {"mac", "magic"}


@given(st.binary(max_size=BEACON_BYTES + 100))
def test_garbage_is_refused(data: bytes) -> None:
    assert refused(data) in {"size", "magic"}
    assert refused((b"ZB" + data)[:BEACON_BYTES].ljust(40, b"\0")) == "mac"


@given(st.binary(max_size=BEACON_BYTES - 41), st.sampled_from(Kind))
def test_garbage_of_a_member_is_refused_or_well_formed(body: bytes, kind: Kind) -> None:
    message = struct.pack(">2sBB16sBB", b"ZB", 1, kind, bytes(16), 1, 1) + body
    if kind is Kind.QUESTION:
        message = message.ljust(BEACON_BYTES - 16, b"\0")
    try:
        decoded = decode(signed(message), KEY)
    except RemoteProtocolError as error:
        assert error.reason is Reason.BAD_HINT
    else:
        assert decode(encode(decoded[1], kind, KEY), KEY) == decoded


@pytest.mark.parametrize(
    "message",
    [
        struct.pack(">2sBB16sBBB", b"ZB", 2, 2, bytes(16), 1, 1, 0),  # another format
        struct.pack(">2sBB16sBBB", b"ZB", 1, 9, bytes(16), 1, 1, 0),  # an unknown kind
        struct.pack(">2sBB16sBBB", b"ZB", 1, 2, bytes(16), 2, 1, 0),  # an empty protocol range
        struct.pack(">2sBB16sBBB", b"ZB", 1, 2, bytes(16), 1, 1, 17),  # more endpoints than anybody has
        struct.pack(">2sBB16sBBB", b"ZB", 1, 2, bytes(16), 1, 1, 0) + b"x",  # bytes left over
        struct.pack(">2sBB16sBBB4sH", b"ZB", 1, 2, bytes(16), 1, 1, 1, b"4\x00\x00\x00", 1),  # cut off
        struct.pack(">2sBB16sBBB", b"ZB", 1, 2, bytes(16), 1, 1, 1) + b"4\x0a\x00\x00\x01\x00\x00",  # port 0
        struct.pack(">2sBB16sBBB", b"ZB", 1, 2, bytes(16), 1, 1, 1) + b"4\xe0\x00\x00\x01\x00\x01",  # a group
        struct.pack(">2sBB16sBBB", b"ZB", 1, 2, bytes(16), 1, 1, 1) + b"t\x05ab",  # shorter than it says
        struct.pack(">2sBB16sBBB", b"ZB", 1, 2, bytes(16), 1, 1, 1) + b"t\x08ipc://\xff\xff",  # not UTF-8
        struct.pack(">2sBB16sBBB", b"ZB", 1, 2, bytes(16), 1, 1, 1) + b"t\x08ipc://a\n",  # not printable
        struct.pack(">2sBB16sBBB", b"ZB", 1, 2, bytes(16), 1, 1, 1) + b"t\x0dinproc://peer",  # not ours
    ],
)
def test_malformed_under_a_good_mac(message: bytes) -> None:
    assert refused(signed(message)) == "form"


def test_a_short_question_is_refused() -> None:
    assert refused(signed(struct.pack(">2sBB16sBBB", b"ZB", 1, 1, bytes(16), 1, 1, 0))) == "size"


def test_another_meshs_is_refused_whatever_it_says() -> None:
    data = encode(Beacon(NodeId(bytes(16)), ("tcp://10.0.0.1:7400",)), Kind.QUESTION, b"other")
    assert refused(data) == "mac"


def test_what_does_not_fit_is_left_out_from_the_end() -> None:
    long = tuple(f"ipc:///{number}{'x' * 90}" for number in range(6))
    _, beacon = decode(encode(Beacon(NodeId(bytes(16)), long), Kind.ANSWER, KEY), KEY)
    assert beacon.intros == long[:3]


def test_eight_ipv6_addresses_fit_with_two_paths() -> None:
    intros = (*(f"tcp://[fd00::{number}]:7400" for number in range(1, 9)), "ipc:///run/" + "x" * 80)
    assert decode(encode(Beacon(NodeId(bytes(16)), intros), Kind.ANSWER, KEY), KEY)[1].intros == intros


@pytest.mark.parametrize("endpoint", ["tcp://host", "tcp://host:0", "udp://h:1", "ipc://", "ipc:///a\nb", ""])
def test_what_cannot_be_announced_is_our_own_mistake(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="announced"):
        encode(Beacon(NodeId(bytes(16)), (endpoint,)), Kind.ANSWER, KEY)


@given(st.binary(max_size=1400))
def test_any_txt_record_is_read_or_refused(record: bytes) -> None:
    try:
        read_txt(record)
    except RemoteProtocolError as error:
        assert (error.reason, error.detail) == (Reason.BAD_HINT, "txt")


def test_strings_of_a_txt_record_are_short_and_unknown_ones_passed_over() -> None:
    data = bytes(range(256)) + bytes(BEACON_BYTES - 256)
    record = to_txt(data)
    rest = record
    while rest:
        assert 0 < rest[0] <= 255
        rest = rest[1 + rest[0] :]
    assert read_txt(record + b"\x07new=key") == data


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\x09txtvers=2\x06b0=AAAA",  # another version
        b"\x07b0=AAAA",
        b"\x09txtvers=1\x07b0=AA*A",  # not base64url
        b"\x09txtvers=1\x07b0=AAAA\x07b0=AAAA",  # twice
        b"\x09txtvers=1\x20b0=AAAA",  # shorter than it says
        b"\x09txtvers=1" + b"\xffx" * 700,
    ],
)
def test_bad_txt_records(record: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="txt"):
        read_txt(record)


def test_golden_bytes() -> None:
    """What another implementation must send (docs/design/wire.md)."""
    beacon = Beacon(NodeId(b"\x11" * 16), ("tcp://192.0.2.1:7400", "tcp://[fd00::1]:7400"), (1, 1))
    data = encode(beacon, Kind.ANSWER, KEY)
    assert data[:-16].hex() == (
        "5a420102" + "11" * 16 + "010102" + "34c00002011ce8" + "36fd000000000000000000000000000001" + "1ce8"
    )
    assert data[-16:] == hmac.new(KEY, b"zeromesh beacon v1" + data[:-16], hashlib.sha256).digest()[:16]
