"""Headers of what is published: Redis' pub/sub carries a channel and bytes, and nothing else.

    ``PUBLISH zeromesh:headers <notes of a batch>``, then the batch itself, in one pipeline of one connection

Redis gives a subscriber what one connection published in its order: the notes come first.  They are a JSON array of
``[channel, digest, {name: text, …}]``, the digest being BLAKE2b of the bytes (8 bytes, in hexadecimal).  An import finds a message's
note by channel and digest.  Who knows nothing of notes sees plain bytes on plain channels; what such a one
publishes has no note, and no headers.

A note whose message never comes (of a channel that nobody here reads, or dropped by Redis) is forgotten when
``_KEPT`` newer ones have come.
"""

from __future__ import annotations

import json
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, Final

from bridges.messages import BrokerMessage, Flattening

__all__ = ["CHANNEL", "Notes", "encode_notes"]

CHANNEL: Final = "zeromesh:headers"

_KEPT: Final = 8192
"""Notes that wait for their message: some batches' worth."""


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=8).hexdigest()


def encode_notes(messages: Iterable[BrokerMessage]) -> bytes:
    """The notes of a batch."""
    flat = Flattening().flat
    notes = [(message.destination, _digest(message.data), flat(message)) for message in messages]
    return json.dumps(notes, separators=(",", ":")).encode()


class Notes:
    """Notes that have come, of messages that have not yet."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[tuple[str, str], deque[Mapping[str, str]]] = OrderedDict()
        self._count = 0

    def add(self, data: bytes) -> None:
        """A publication on ``CHANNEL``. What has not the form of notes is nobody's."""
        try:
            notes = json.loads(data)
        except (ValueError, RecursionError):
            return
        for note in notes if isinstance(notes, list) else ():
            if _is_note(note):
                channel, digest, headers = note
                self._waiting.setdefault((channel, digest), deque()).append(headers)
                self._count += 1
        while self._count > _KEPT:
            _, forgotten = self._waiting.popitem(last=False)
            self._count -= len(forgotten)

    def take(self, channel: str, data: bytes) -> Mapping[str, str]:
        """The headers of this message; empty if nobody noted any."""
        if not self._waiting:
            return {}
        key = channel, _digest(data)
        waiting = self._waiting.get(key)
        if waiting is None:
            return {}
        self._count -= 1
        headers = waiting.popleft()
        if not waiting:
            del self._waiting[key]
        return headers


def _is_note(note: Any) -> bool:
    return (
        isinstance(note, list)
        and len(note) == 3
        and isinstance(note[0], str)
        and isinstance(note[1], str)
        and isinstance(note[2], dict)
        and all(isinstance(text, str) for pair in note[2].items() for text in pair)
    )
