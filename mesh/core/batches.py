"""The payload of sealed and directed batches: what publishers say to subscribers.

Values of a program are opaque bytes here.  ``kinds`` says how to read them: ``RAW`` (bytes, untouched) or ``CBOR``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from mesh.core.shapes import Form, all_octets, headers, kind, octets, optional, topic, uint

__all__ = [
    "CBOR",
    "PAYLOADS",
    "RAW",
    "Batch",
    "Chunk",
    "Headers",
    "Tail",
]

RAW: Final = 0
CBOR: Final = 1

Headers = Mapping[str, str]


class Batch(NamedTuple):
    """Consecutive messages of one publisher on one topic.

    ``sequence`` is the first one's number, ``timestamp`` microseconds since the
    Unix epoch; ``kinds`` is RAW or CBOR for all of them, or a byte string with one
    kind each; ``headers`` maps an index to that message's headers, None if there are none.
    """

    topic: str
    sequence: int
    timestamp: int
    kinds: int | bytes
    values: list[bytes]
    headers: Mapping[int, Headers] | None


class Chunk(NamedTuple):
    """What stands in front of a piece of a batch that does not fit a frame.

    The batch has one message, numbered ``sequence``, and as a whole ``total`` bytes; the piece is those from ``offset``
    on.
    """

    topic: str
    sequence: int
    total: int
    offset: int


class Tail(NamedTuple):
    """The publisher has published nothing on ``topic`` for a moment: ``next`` is the number that comes next.

    ``kept`` is the oldest number it keeps, None if it keeps none.
    """

    topic: str
    next: int
    kept: int | None


def _batch_headers(value: Any) -> bool:
    # A list of pairs on the wire: a CBOR map may have text and byte-string keys only.
    return value is None or (
        type(value) is list
        and all(type(p) is list and len(p) == 2 and uint(p[0]) and headers(p[1]) for p in value)
    )


PAYLOADS: Final[dict[type[Any], tuple[Form, ...]]] = {
    Batch: (topic, uint, uint, lambda v: kind(v) or octets(v), all_octets, _batch_headers),
    Tail: (topic, uint, optional(uint)),
    Chunk: (topic, uint, uint, uint),
}
"""Their fields' forms, by what they are."""
