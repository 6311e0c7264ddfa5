"""Messages that came together, as they lie in a spool, on this machine's own disk: one CBOR item.

    entries → runs of messages that differ in number, id and data alone → [[what they share …, numbers, ids, datas], …]

A run is written once instead of its headers with every message: a third of the bytes, and a fraction of the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cbor2

from bridges.messages import BrokerMessage

__all__ = ["Entry", "decode_entries", "decode_ranges", "encode_entries", "encode_ranges", "ranges_of"]


Entry = tuple[str, int, BrokerMessage]
"""A message on its way to the broker: who published it on which topic, its number among those, and itself."""


def encode_entries(entries: Sequence[Entry]) -> bytes:
    """Raises ``ValueError`` for text that UTF-8 cannot carry."""
    runs: list[tuple[Any, ...]] = []
    last_origin: str | None = None
    last: BrokerMessage | None = None
    numbers: list[int] = []
    ids: list[str] = []
    datas: list[bytes] = []
    for origin, number, message in entries:
        if (
            last is None
            or origin != last_origin
            or message.headers is not last.headers
            or message.timestamp != last.timestamp
            or message.content_type != last.content_type
            or message.destination != last.destination
            or message.key != last.key
            or message.filled != last.filled
            or message.reply_to != last.reply_to
            or message.correlation_id != last.correlation_id
        ):
            numbers, ids, datas = [], [], []
            runs.append(
                (
                    origin,
                    message.destination,
                    message.key,
                    message.headers,
                    message.content_type,
                    message.timestamp,
                    message.reply_to,
                    message.correlation_id,
                    message.filled,
                    numbers,
                    ids,
                    datas,
                )
            )
            last_origin, last = origin, message
        numbers.append(number)
        ids.append(message.message_id)
        datas.append(message.data)
    try:
        return cbor2.dumps(runs)
    except cbor2.CBORError as error:
        raise ValueError(str(error)) from None


def decode_entries(data: bytes) -> list[Entry]:
    """Raises ``ValueError`` for what no bridge has written."""
    try:
        return [
            (
                origin,
                number,
                BrokerMessage(
                    destination, content, key, headers, kind, identity, timestamp, reply, correlation, filled
                ),
            )
            for origin, destination, key, headers, kind, timestamp, reply, correlation, filled, numbers, ids, datas
            in cbor2.loads(data)
            for number, identity, content in zip(numbers, ids, datas, strict=True)
        ]  # fmt: skip
    except (cbor2.CBORError, TypeError, ValueError) as error:
        raise ValueError(f"no record of a spool: {error}") from None


def ranges_of(entries: Sequence[Entry]) -> dict[str, tuple[int, int]]:
    """Origin → first and last number."""
    ranges: dict[str, tuple[int, int]] = {}
    for origin, number, _ in entries:
        known = ranges.get(origin)
        if known is None:
            ranges[origin] = (number, number)
        elif number > known[1]:
            ranges[origin] = (known[0], number)
        elif number < known[0]:
            ranges[origin] = (number, known[1])
    return ranges


def encode_ranges(ranges: Mapping[str, tuple[int, int]]) -> bytes:
    return cbor2.dumps([(origin, *both) for origin, both in ranges.items()])


def decode_ranges(data: bytes) -> dict[str, tuple[int, int]]:
    """Raises ``ValueError`` for what no bridge has written."""
    try:
        return {origin: (first, last) for origin, first, last in cbor2.loads(data)}
    except (cbor2.CBORError, TypeError, ValueError) as error:
        raise ValueError(f"no ranges of a spool: {error}") from None
