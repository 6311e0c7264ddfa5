"""Messages to bytes and back: CBOR (RFC 8949) under strict limits.

Outgoing: a named tuple of ``messages`` → ``encode_*`` → bytes.  Incoming:
bytes → ``decode_*`` → one CBOR item (depth, duplicates, indefinite lengths, map
keys and tags restricted) → the table's forms → the named tuple; anything else
raises ``RemoteProtocolError(BAD_MESSAGE)``.  Nothing that has not been
authenticated by CURVE or an AEAD tag reaches a decoder here, except the intro
plane's, which are at most 4 KiB.

A program's own values go through ``encode_value`` and ``decode_value``.
"""

from __future__ import annotations

import os
from typing import Any, Final, NamedTuple, NoReturn

import cbor2

from mesh.core.messages import CBOR, DIRECT, INTRO, PAYLOADS, PLAIN, RAW, Batch, Chunk, Tail
from mesh.core.types import Reason, RemoteProtocolError
from mesh.errors import ValueEncodingError

__all__ = [
    "Encoded",
    "CODES",
    "decode_batch",
    "decode_chunk",
    "decode_direct",
    "decode_intro",
    "decode_strict",
    "decode_tail",
    "decode_value",
    "encode_batch",
    "encode_canonical",
    "encode_chunk",
    "encode_direct",
    "encode_intro",
    "encode_tail",
    "encode_value",
]


def _refuse(*_: Any) -> NoReturn:
    raise ValueError("this CBOR tag is not accepted")


# Tags that a value may not carry: shared references can build cycles (28, 29), string
# references are stateful (25, 256), a regular expression is compiled by decoding it (35),
# a MIME message is parsed by decoding it (36). Tags that cbor2 does not know are refused too.
_REFUSED: Final = dict.fromkeys((25, 28, 29, 35, 36, 256), _refuse)

# cbor2 ignores bytes that follow the item. Decoding ``[item, secret]`` instead of
# ``item`` shows them at no cost: with trailing bytes the second element is not the secret.
_SECRET: Final = os.urandom(8)
_TAIL: Final = b"\x48" + _SECRET


def decode_strict(data: bytes) -> Any:
    """One CBOR item, and nothing behind it.

    Raises ``RemoteProtocolError(BAD_MESSAGE)`` for anything else: bytes that are not
    CBOR, that nest deeper than 16, trailing bytes, indefinite lengths, duplicate keys, map
    keys other than text and bytes, tags that are not accepted.
    """
    try:
        pair = cbor2.loads(
            b"\x82" + data + _TAIL,
            max_depth=17,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
            semantic_decoders=_REFUSED,
            tag_hook=_refuse,
        )
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, ArithmeticError, RecursionError) as error:
        raise RemoteProtocolError(Reason.BAD_MESSAGE, str(error)) from None
    if pair[1] != _SECRET:
        raise RemoteProtocolError(Reason.BAD_MESSAGE, "trailing bytes")
    return pair[0]


def encode_canonical(item: Any) -> bytes:
    """Deterministic CBOR (RFC 8949 §4.2), for what is signed."""
    return cbor2.dumps(item, canonical=True)


# -- messages -----------------------------------------------------------------

CODES: Final[dict[type[Any], int]] = {
    message: code for table in (INTRO, DIRECT) for code, (message, _) in table.items()
}
"""Message → the code that it begins with."""


def encode_direct(message: Any) -> bytes:
    """A message of the direct plane as one frame."""
    return cbor2.dumps((CODES[type(message)], *message))


encode_intro = encode_direct


def _decode(data: bytes, table: dict[int, tuple[type[Any], tuple[Any, ...]]]) -> Any:
    item = decode_strict(data)
    if type(item) is not list or not item:
        raise RemoteProtocolError(Reason.BAD_MESSAGE, "not an array")
    code = item[0]
    entry = table.get(code) if type(code) is int else None
    if entry is None:
        raise RemoteProtocolError(Reason.BAD_MESSAGE, "unknown message code")
    message, checks = entry
    count = len(checks)
    if len(item) <= count:
        raise RemoteProtocolError(Reason.BAD_MESSAGE, f"{message.__name__}: too few fields")
    fields = item[1 : count + 1]
    plain = PLAIN.get(code)
    if plain is not None and plain(*fields):
        return message._make(fields)
    for check, value in zip(checks, fields, strict=True):
        if not check(value):
            raise RemoteProtocolError(Reason.BAD_MESSAGE, f"{message.__name__}: a field has a wrong form")
    return message._make(fields)


def decode_intro(data: bytes) -> Any:
    """One frame of the intro plane → a message of ``IntroMessage``."""
    return _decode(data, INTRO)


def decode_direct(data: bytes) -> Any:
    """One frame of the direct plane → a message of ``DirectMessage``."""
    return _decode(data, DIRECT)


# -- batches ------------------------------------------------------------------

_BATCH_FORMS: Final = PAYLOADS[Batch]


_LARGE: Final = 16 << 10
"""Bytes from which one value more or less copied is what a batch costs."""

_MOST_HEAD: Final = 512
"""Bytes in front of the value of a batch with one: a topic has 256."""


def encode_batch(batch: Batch) -> bytes:
    headers = batch.headers
    plain = None if not headers else [[index, dict(each)] for index, each in headers.items()]
    values = batch.values
    if len(values) == 1 and len(values[0]) >= _LARGE:
        # The same bytes, with the value copied once.
        head = cbor2.dumps((*batch[:4], 0, 0))[:-2]
        size = len(values[0])
        opened = (
            b"\x81\x59" + size.to_bytes(2, "big") if size < 1 << 16 else b"\x81\x5a" + size.to_bytes(4, "big")
        )
        return b"".join((head, opened, values[0], cbor2.dumps(plain)))
    return cbor2.dumps((*batch[:5], plain))


def _value_at(head: bytes) -> tuple[int, int, int] | None:
    """Where the only value of a batch begins, and its content, and how long that is; None if that is not to be seen
    from the first bytes."""
    at = began = 0
    numbers = []
    for major in (4, 3, 0, 0, 0, 4, 2):  # array, topic, sequence, timestamp, kind, array, value (RFC 8949 §3)
        if at + 9 > len(head) or head[at] >> 5 != major:
            return None
        number = head[at] & 31
        began, at = at, at + 1
        if number > 27:
            return None
        if number >= 24:
            end = at + (1 << number - 24)
            number, at = int.from_bytes(head[at:end], "big"), end
        numbers.append(number)
        if major == 3:
            at += number
    return (began, at, numbers[6]) if (numbers[0], numbers[5]) == (6, 1) else None


def _take_value(pieces: list[bytes | memoryview], size: int) -> tuple[bytes, bytes] | None:
    """A batch with one large value as the same batch with an empty one, and the value, copied once."""
    found = _value_at(bytes(pieces[0][:_MOST_HEAD]))
    if found is None:
        return None
    began, start, length = found
    behind = size - start - length
    if length < _LARGE or start > len(pieces[0]) or not 0 < behind <= len(pieces[-1]):
        return None
    head, last = bytes(pieces[0][:began]), memoryview(pieces[-1])
    rest = bytes(last[len(last) - behind :])
    pieces[-1] = last[: len(last) - behind]
    pieces[0] = memoryview(pieces[0])[start:]
    return head + b"\x40" + rest, b"".join(pieces)


def decode_batch(data: bytes | list[bytes | memoryview]) -> Batch:
    """An encoded batch, or the pieces of one, which are given up."""
    pieces: list[bytes | memoryview] = data if isinstance(data, list) else [data]
    size = sum(map(len, pieces))
    taken = _take_value(pieces, size) if size >= _LARGE else None
    if taken is None:
        return _decode_batch(b"".join(pieces) if isinstance(data, list) else data)
    batch = _decode_batch(taken[0])
    if len(batch.values) != 1:
        raise RemoteProtocolError(Reason.BAD_MESSAGE, "Batch: not one value")
    batch.values[0] = taken[1]
    return batch


def _decode_batch(data: bytes) -> Batch:
    item = decode_strict(data)
    if type(item) is not list or len(item) < 6:
        raise RemoteProtocolError(Reason.BAD_MESSAGE, "Batch: not an array of six")
    fields = item[:6]
    for check, value in zip(_BATCH_FORMS, fields, strict=True):
        if not check(value):
            raise RemoteProtocolError(Reason.BAD_MESSAGE, "Batch: a field has a wrong form")
    kinds, values = fields[3], fields[4]
    if not values:
        raise RemoteProtocolError(Reason.BAD_MESSAGE, "Batch: empty")
    if type(kinds) is bytes and (len(kinds) != len(values) or kinds.translate(None, b"\0\1")):
        raise RemoteProtocolError(Reason.BAD_MESSAGE, "Batch: kinds do not fit the values")
    if fields[5] is not None:
        fields[5] = dict(map(tuple, fields[5])) or None
    return Batch._make(fields)


_TAIL_FORMS: Final = PAYLOADS[Tail]


def encode_tail(tail: Tail) -> bytes:
    return cbor2.dumps(tuple(tail))


def decode_tail(data: bytes) -> Tail:
    item = decode_strict(data)
    if type(item) is not list or len(item) < 3:
        raise RemoteProtocolError(Reason.BAD_MESSAGE, "Tail: not an array of three")
    for check, value in zip(_TAIL_FORMS, item, strict=False):
        if not check(value):
            raise RemoteProtocolError(Reason.BAD_MESSAGE, "Tail: a field has a wrong form")
    return Tail._make(item[:3])


_CHUNK_FORMS: Final = PAYLOADS[Chunk]


def encode_chunk(chunk: Chunk, piece: bytes | memoryview) -> bytes:
    """A piece of a batch, with what tells where it belongs: length of the head (u16), head, piece."""
    head = cbor2.dumps(tuple(chunk))
    return b"".join((len(head).to_bytes(2, "big"), head, piece))


def decode_chunk(data: bytes) -> tuple[Chunk, memoryview]:
    """The head, and the piece behind it, which is not copied."""
    end = 2 + int.from_bytes(data[:2], "big")
    if not 2 < end < len(data):
        raise RemoteProtocolError(Reason.BAD_MESSAGE, "Chunk: no piece")
    item = decode_strict(data[2:end])
    if type(item) is not list or len(item) < 4:
        raise RemoteProtocolError(Reason.BAD_MESSAGE, "Chunk: not an array of four")
    for check, value in zip(_CHUNK_FORMS, item, strict=False):
        if not check(value):
            raise RemoteProtocolError(Reason.BAD_MESSAGE, "Chunk: a field has a wrong form")
    return Chunk._make(item[:4]), memoryview(data)[end:]


# -- values -------------------------------------------------------------------


_PLAIN: Final = frozenset((str, int, float, bool, type(None), bytes))
"""Types of which every value that encodes also decodes."""


class Encoded(NamedTuple):
    """A value that ``encode_value`` has judged and encoded already, in another thread."""

    kind: int
    data: bytes


def encode_value(value: Any) -> tuple[int, bytes]:
    """A program's value → (kind, bytes). ``bytes`` are RAW and untouched, ``Encoded`` is, all else is CBOR.

    Raises ``ValueEncodingError`` for what CBOR cannot carry, and for maps whose keys
    are neither text nor bytes (a receiver refuses them: colliding keys of
    other types would let one sender stall every receiver).
    """
    if type(value) is bytes:
        return RAW, value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return RAW, bytes(value)
    if type(value) is Encoded:
        return value
    rare = type(value) not in _PLAIN
    if isinstance(value, (dict, list, tuple, set, frozenset)):
        rare = _check(value, 14)
    try:
        encoded = cbor2.dumps(value)
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueEncodingError(type(value).__name__, str(error)) from None
    if rare:  # a regular expression, a deque of maps …: better refused here than by everybody else
        try:
            decode_strict(encoded)
        except RemoteProtocolError as error:
            raise ValueEncodingError(type(value).__name__, f"receivers refuse it: {error.detail}") from None
    return CBOR, encoded


def _check(value: Any, depth: int) -> bool:
    """Judge a container; whether it holds anything but plain values and containers."""
    if depth <= 0:
        raise ValueEncodingError(type(value).__name__, "it nests deeper than 14 levels")
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, (str, bytes)):
                raise ValueEncodingError(
                    "dict", f"a key is {type(key).__name__}, and keys must be text or bytes"
                )
        items: Any = value.values()
    elif isinstance(value, (set, frozenset)):
        for member in value:
            if not isinstance(member, (str, bytes)):
                raise ValueEncodingError(
                    "set", f"a member is {type(member).__name__}, and members must be text or bytes"
                )
        return False
    else:
        items = value
    rare = False
    for item in items:
        if type(item) in _PLAIN:
            continue
        if isinstance(item, (dict, list, tuple, set, frozenset)):
            rare |= _check(item, depth - 1)
        else:
            rare = True
    return rare


def decode_value(kind: int, data: bytes) -> Any:
    """(kind, bytes) → the value. Raises ``RemoteProtocolError(BAD_MESSAGE)``."""
    return data if kind == RAW else decode_strict(data)
