"""Every message of the wire: there and back, with fields of every form, and nothing else gets in."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.codec import (
    decode_batch,
    decode_direct,
    decode_intro,
    decode_strict,
    decode_tail,
    encode_batch,
    encode_direct,
    encode_intro,
    encode_tail,
)
from mesh.core.messages import (
    DIRECT,
    INTRO,
    PLAIN,
    AttachMessage,
    Batch,
    CancelMessage,
    CertificateMessage,
    CertificateWantedMessage,
    CreditMessage,
    CutOffMessage,
    DirectedMessage,
    ErrorMessage,
    GoodbyeMessage,
    GossipMessage,
    HelloMessage,
    InterestsMessage,
    InterestsWantedMessage,
    JoinChallengeMessage,
    JoinGrantMessage,
    JoinHelloMessage,
    JoinProofMessage,
    KeyMessage,
    KeyWantedMessage,
    PartMessage,
    PingMessage,
    PingRequestMessage,
    PongMessage,
    PositionsMessage,
    RecordMessage,
    RefuseMessage,
    RepairedMessage,
    RepairMessage,
    ReplyMessage,
    RequestMessage,
    RevocationsMessage,
    Tail,
    VouchMessage,
    WelcomeMessage,
    WindowMessage,
    WindowWantedMessage,
)
from mesh.core.topic import is_valid_topic
from mesh.core.types import Reason, RemoteProtocolError

# -- fields of every form -----------------------------------------------------------

uints = st.integers(0, (1 << 64) - 1) | st.sampled_from([0, 23, 24, 255, 256, 1 << 32, (1 << 64) - 1])
blobs = st.binary(max_size=64)
letters = st.characters(exclude_categories=("Cs",))


def sized(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


def text(limit: int) -> st.SearchStrategy[str]:
    return st.text(letters, max_size=min(limit, 40)) | st.just("é" * limit)


levels = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/*"), min_size=1, max_size=8
)
topics = st.lists(levels, min_size=1, max_size=6).map("/".join).filter(is_valid_topic)
headers = st.none() | st.dictionaries(text(20), text(20), max_size=4)
versions = st.tuples(uints, uints).map(sorted)
kinds = st.integers(0, 1)
keys = st.tuples(sized(8), text(256), uints, uints, sized(32), uints).map(list)
entries = st.tuples(uints, st.sampled_from("sr"), topics, text(64), uints, uints).map(list)

MESSAGES: dict[type[Any], st.SearchStrategy[Any]] = {
    HelloMessage: st.builds(HelloMessage, versions, blobs, blobs),
    WelcomeMessage: st.builds(WelcomeMessage, uints, blobs, blobs),
    RefuseMessage: st.builds(RefuseMessage, text(64), text(256), versions),
    JoinHelloMessage: st.builds(JoinHelloMessage, sized(8), sized(16), sized(32), text(64)),
    JoinChallengeMessage: st.builds(JoinChallengeMessage, sized(16), sized(32), sized(32)),
    JoinProofMessage: st.builds(JoinProofMessage, sized(32), sized(64)),
    JoinGrantMessage: st.builds(JoinGrantMessage, blobs),
    AttachMessage: st.builds(
        AttachMessage, sized(8), st.none() | sized(8), sized(32), uints, uints, uints, uints, keys
    ),
    GoodbyeMessage: st.builds(GoodbyeMessage, st.booleans(), text(256)),
    PingMessage: st.builds(PingMessage, uints, uints, sized(16)),
    PongMessage: st.builds(PongMessage, uints, uints, sized(16), uints),
    PingRequestMessage: st.builds(PingRequestMessage, uints, sized(16)),
    VouchMessage: st.builds(VouchMessage, uints, sized(16)),
    InterestsMessage: st.builds(
        InterestsMessage,
        uints,
        uints,
        st.lists(entries, max_size=3),
        st.lists(uints, max_size=3),
        st.booleans(),
    ),
    InterestsWantedMessage: st.builds(InterestsWantedMessage, uints),
    KeyMessage: st.builds(KeyMessage, keys),
    KeyWantedMessage: st.builds(KeyWantedMessage, sized(8)),
    RecordMessage: st.builds(RecordMessage, blobs),
    GossipMessage: st.builds(GossipMessage, st.lists(st.tuples(blobs, blobs).map(list), max_size=3)),
    RevocationsMessage: st.builds(RevocationsMessage, blobs, uints, sized(32)),
    CertificateWantedMessage: st.builds(CertificateWantedMessage, uints),
    CertificateMessage: st.builds(CertificateMessage, blobs),
    DirectedMessage: st.builds(DirectedMessage, text(64), blobs),
    RequestMessage: st.builds(
        RequestMessage, uints, topics, kinds, blobs, headers, uints, uints, st.booleans()
    ),
    ReplyMessage: st.builds(ReplyMessage, uints, kinds, st.none() | blobs, headers, st.booleans(), uints),
    ErrorMessage: st.builds(ErrorMessage, uints, text(256), text(4096), uints),
    CancelMessage: st.builds(CancelMessage, uints),
    PositionsMessage: st.builds(
        PositionsMessage,
        uints,
        st.lists(st.tuples(uints, topics, uints, st.none() | uints, uints).map(list), max_size=3),
        st.booleans(),
    ),
    RepairMessage: st.builds(RepairMessage, uints, topics, uints, uints, uints),
    RepairedMessage: st.builds(RepairedMessage, uints, topics, uints, st.none() | blobs, st.booleans()),
    PartMessage: st.builds(PartMessage, uints, uints, uints, uints, uints, blobs),
    CreditMessage: st.builds(CreditMessage, uints, uints),
    WindowMessage: st.builds(
        WindowMessage, uints, uints, uints, st.lists(st.tuples(topics, uints).map(list), max_size=3)
    ),
    WindowWantedMessage: st.builds(WindowWantedMessage, uints),
    CutOffMessage: st.builds(CutOffMessage, uints),
}

CODES = {message: code for table in (INTRO, DIRECT) for code, (message, _) in table.items()}


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    values = draw(st.lists(blobs, min_size=1, max_size=5))
    each = st.lists(kinds, min_size=len(values), max_size=len(values)).map(bytes)
    some = st.dictionaries(
        st.integers(0, len(values) - 1), headers.map(lambda h: h or {"a": "b"}), min_size=1
    )
    return Batch(draw(topics), draw(uints), draw(uints), draw(kinds | each), values, draw(st.none() | some))


everything = st.one_of(*MESSAGES.values())
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | blobs | text(20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text(8), inner, max_size=3),
    max_leaves=8,
)


def decode(message: Any, frame: bytes) -> Any:
    return (decode_intro if CODES[type(message)] in INTRO else decode_direct)(frame)


def decode_if_it_can_be(message: Any, frame: bytes) -> Any:
    """The message, or None if it was refused in the one way there is."""
    try:
        return decode(message, frame)
    except RemoteProtocolError as error:
        assert error.reason is Reason.BAD_MESSAGE
        return None


# -- tests --------------------------------------------------------------------------


def test_no_message_is_left_out() -> None:
    assert MESSAGES.keys() == CODES.keys()
    assert len(CODES) == len(INTRO) + len(DIRECT)  # no code twice
    assert all(len(forms) == len(message._fields) for message, forms in (*INTRO.values(), *DIRECT.values()))


FIELDS = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        1,
        2,
        -1,
        1.0,
        (1 << 64) - 1,
        1 << 64,
        b"",
        b"x",
        "",
        "a/b",
        "a//b",
        "*",
        {},
        {"a": "b"},
        {"a": 1},
        [],
    ]
)


@pytest.mark.parametrize("code", PLAIN)
@given(data=st.data())
def test_the_short_way_takes_nothing_that_the_forms_refuse(code: int, data: st.DataObject) -> None:
    kind, forms = DIRECT[code]
    message = data.draw(MESSAGES[kind])
    fields = [data.draw(FIELDS | st.just(value)) for value in message]
    if PLAIN[code](*fields):
        assert all(form(value) for form, value in zip(forms, fields, strict=True))


def test_the_usual_request_and_reply_take_the_short_way() -> None:
    assert PLAIN[33](*RequestMessage(7, "a/b", 0, b"x", None, 5000, 1, False))
    assert PLAIN[34](*ReplyMessage(7, 1, b"x", None, True, 0))


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_there_and_back(kind: type[Any], data: st.DataObject) -> None:
    message = data.draw(MESSAGES[kind])
    encode, right, wrong = (
        (encode_intro, decode_intro, decode_direct)
        if CODES[kind] in INTRO
        else (encode_direct, decode_direct, decode_intro)
    )
    frame = encode(message)
    assert right(frame) == message
    assert type(right(frame)) is kind
    with pytest.raises(RemoteProtocolError):  # not on the other plane
        wrong(frame)


@given(everything, st.lists(anything, min_size=1, max_size=3))
def test_fields_of_a_later_version_are_passed_over(message: Any, more: list[Any]) -> None:
    assert decode(message, cbor2.dumps([CODES[type(message)], *message, *more])) == message


@given(everything, st.data())
def test_a_missing_field_is_refused(message: Any, data: st.DataObject) -> None:
    kept = data.draw(st.integers(0, len(message) - 1))
    assert decode_if_it_can_be(message, cbor2.dumps([CODES[type(message)], *message[:kept]])) is None


@given(everything, anything, st.data())
def test_a_field_of_another_form_is_refused(message: Any, value: Any, data: st.DataObject) -> None:
    """Whatever stands in a field: it is refused, or it is a message of this form all the same."""
    at = data.draw(st.integers(0, len(message) - 1))
    changed = message._replace(**{message._fields[at]: value})
    decoded = decode_if_it_can_be(message, cbor2.dumps([CODES[type(message)], *changed]))
    if decoded is not None:
        assert decode(message, encode_direct(decoded)) == decoded
        assert not isinstance(decoded[at], float)
        if isinstance(decoded[at], bool):
            assert isinstance(message[at], bool)  # a number that is true is none


@given(everything, st.data())
def test_what_is_cut_off_or_goes_on_is_refused(message: Any, data: st.DataObject) -> None:
    frame = encode_direct(message)
    cut = data.draw(st.integers(0, len(frame) - 1))
    assert decode_if_it_can_be(message, frame[:cut]) is None
    assert decode_if_it_can_be(message, frame + data.draw(st.binary(min_size=1, max_size=8))) is None


@given(everything, st.data())
def test_flipped_bits_are_refused_or_another_message(message: Any, data: st.DataObject) -> None:
    frame = bytearray(encode_direct(message))
    bit = data.draw(st.integers(0, len(frame) * 8 - 1))
    frame[bit // 8] ^= 1 << bit % 8
    decode_if_it_can_be(message, bytes(frame))


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    for decoder in (decode_intro, decode_direct, decode_batch):
        try:
            decoder(data)
        except RemoteProtocolError as error:
            assert error.reason is Reason.BAD_MESSAGE


@given(st.sampled_from(sorted(CODES.values())), st.lists(anything, max_size=9))
def test_well_formed_garbage_is_refused_or_fits(code: int, fields: list[Any]) -> None:
    frame = cbor2.dumps([code, *fields])
    for decoder in (decode_intro, decode_direct):
        try:
            message = decoder(frame)
        except RemoteProtocolError as error:
            assert error.reason is Reason.BAD_MESSAGE
        else:
            assert decoder(encode_direct(message)) == message


# -- batches ------------------------------------------------------------------------

tails = st.builds(Tail, topics, uints, st.none() | uints)


@given(tails, anything, st.integers(0, 2))
def test_tails_there_and_back_and_nothing_else(tail: Tail, value: Any, at: int) -> None:
    assert decode_tail(encode_tail(tail)) == tail
    fields = list(tail)
    fields[at] = value
    for wrong in (cbor2.dumps(fields), cbor2.dumps(fields[:2]), encode_tail(tail) + b"\0"):
        try:
            assert decode_tail(wrong) == Tail._make(fields)
        except RemoteProtocolError as error:
            assert error.reason is Reason.BAD_MESSAGE


@given(batches())
def test_batches_there_and_back(batch: Batch) -> None:
    assert decode_batch(encode_batch(batch)) == batch


@given(batches(), anything, st.data())
def test_a_batch_with_another_field_is_refused_or_fits(batch: Batch, value: Any, data: st.DataObject) -> None:
    fields = [*batch[:5], None if not batch.headers else [[k, v] for k, v in batch.headers.items()]]
    at = data.draw(st.integers(0, 5))
    fields[at] = value
    try:
        decoded = decode_batch(cbor2.dumps(fields))
    except RemoteProtocolError as error:
        assert error.reason is Reason.BAD_MESSAGE
        return
    assert decode_batch(encode_batch(decoded)) == decoded
    assert is_valid_topic(decoded.topic)
    assert type(decoded.kinds) is int or len(decoded.kinds) == len(decoded.values)


@given(batches())
def test_a_batch_that_is_cut_off_or_goes_on_is_refused(batch: Batch) -> None:
    encoded = encode_batch(batch)
    for wrong in (encoded[:-1], encoded + b"\0", cbor2.dumps([*batch[:5]])):
        with pytest.raises(RemoteProtocolError):
            decode_batch(wrong)


def test_headers_have_a_bound() -> None:
    def reply(count: int) -> bytes:
        return encode_direct(ReplyMessage(1, 0, b"", {f"name {n}": "" for n in range(count)}, True, 0))

    assert len(decode_direct(reply(64)).headers) == 64
    with pytest.raises(RemoteProtocolError):
        decode_direct(reply(65))
    with pytest.raises(RemoteProtocolError):
        decode_batch(encode_batch(Batch("a", 0, 0, 0, [b""], {0: {str(n): "" for n in range(65)}})))


plain_values = st.integers(16 << 10, 70 << 10).map(bytes) | st.binary(max_size=40)


@given(
    topics,
    uints,
    st.sampled_from([0, 1, b"\0", b"\1"]),
    plain_values,
    st.none() | st.dictionaries(text(20), text(20), min_size=1, max_size=4),
    st.lists(st.integers(0, 70 << 10), max_size=4),
)
def test_a_batch_with_one_large_value_is_what_cbor_makes_of_it(
    topic: str, number: int, kinds: int | bytes, value: bytes, headers: Any, cuts: list[int]
) -> None:
    batch = Batch(topic, number, number, kinds, [value], None if headers is None else {0: headers})
    encoded = encode_batch(batch)
    assert encoded == cbor2.dumps((*batch[:5], None if headers is None else [[0, headers]]))
    assert decode_batch(encoded) == batch
    bounds = sorted({0, len(encoded), *(cut for cut in cuts if cut < len(encoded))})
    pieces = [memoryview(encoded)[a:b] for a, b in pairwise(bounds)]
    assert decode_batch(pieces) == batch


@given(st.integers(0, 60), st.binary(max_size=3), st.booleans())
def test_a_large_batch_that_is_none_is_refused(at: int, instead: bytes, cut: bool) -> None:
    batch = Batch("home/kitchen/picture", 70000, 1, 0, [bytes(20 << 10)], {0: {"a": "b"}})
    encoded = encode_batch(batch)
    changed = encoded[:at] + instead + encoded[at + (0 if cut else len(instead)) :]
    try:
        naive = decode_strict(changed)
    except RemoteProtocolError:
        naive = None
    try:
        decoded = decode_batch(changed)
    except RemoteProtocolError as error:
        assert error.reason is Reason.BAD_MESSAGE
    else:  # whatever is accepted is what plain CBOR says
        assert naive is not None
        assert [*naive[:5]] == [*decoded[:5]]
