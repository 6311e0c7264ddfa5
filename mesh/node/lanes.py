"""Large values on their way to the broadcast socket: in pieces, each sealed when it is its turn.

``Stream.flush`` → ``add`` under the topic → whenever nothing waits in the airlock: the next piece, of each
topic in turn → seal → airlock.  So what is published on other topics meanwhile goes out between two pieces; what
follows on the same topic waits here behind it, still to be sealed (a frame that was sealed long before it is sent would
fall out of the receivers' replay windows).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

import trio

from mesh.config import Config
from mesh.core.chunks import Cutting, Cuttings, Piece
from mesh.core.codec import encode_chunk
from mesh.core.envelope import BATCH, CHUNK, KEPT, KEPT_CHUNK
from mesh.core.messages import Chunk
from mesh.core.outgoing import Line
from mesh.node.airlock import Airlock

__all__ = ["Lanes"]

_ROOM: Final = 16 << 20
"""Bytes that may wait here before who publishes something large waits too: one value of the largest."""

_IN_A_ROW: Final = 256 << 10
"""Bytes after which other tasks run: about 100 µs of sealing."""

_CHUNK_OF: Final = {BATCH: CHUNK, KEPT: KEPT_CHUNK}


class _Waiting(NamedTuple):
    line: Line
    sequence: int
    messages: int
    kind: int  # of the frame that it would be as a whole


class Lanes:
    """What of one node goes out in pieces, or waits behind such."""

    def __init__(
        self, airlock: Airlock, seal: Callable[[str, bytes, int], tuple[bytes, bytes]], config: Config
    ) -> None:
        self._airlock = airlock
        self._seal = seal
        self.whole = config.limits.whole_bytes
        self._piece = min(config.piece_bytes, self.whole)
        self._cuttings: Cuttings[str, _Waiting] = Cuttings()
        self._filled = trio.Event()
        self._room = trio.lowlevel.ParkingLot()
        self._closed = False

    def add(self, line: Line, sequence: int, count: int, plaintext: bytes, kind: int) -> None:
        """A batch that does not fit a frame, or one on a topic that is ``busy``."""
        size = self._piece if len(plaintext) > self.whole else None
        line.busy = True
        line.behind += count
        self._cuttings.add(line.topic, Cutting(_Waiting(line, sequence, count, kind), plaintext, size))
        self._filled.set()

    @property
    def full(self) -> bool:
        """Whether who publishes something large, or on a topic that is busy, should wait."""
        return self._cuttings.bytes > _ROOM

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Cut, seal and send, until cancelled."""
        while True:
            await self._filled.wait()
            self._filled = trio.Event()
            since_yield = 0
            while True:
                await self._airlock.flush()
                if since_yield >= _IN_A_ROW:
                    since_yield = 0
                    await trio.lowlevel.checkpoint()
                    continue  # something may wait in the airlock again
                taken = self._cuttings.next()
                if taken is None:
                    break
                topic, cutting, piece = taken
                since_yield += len(piece.data)
                self._send(topic, cutting, piece)
                if self._room and not self.full:
                    self._room.unpark_all()

    def _send(self, topic: str, cutting: Cutting[_Waiting], piece: Piece) -> None:
        line, sequence, count, kind = cutting.what
        if not piece.offset:
            line.behind -= count
        if cutting.size is None:
            tag, frame = self._seal(topic, cutting.whole, kind)
        else:
            head = Chunk(topic, sequence, piece.total, piece.offset)
            tag, frame = self._seal(topic, encode_chunk(head, piece.data), _CHUNK_OF[kind])
        # With its last piece a message is sent.
        self._airlock.send(tag, frame, topic, 0 if cutting.left else count)
        line.busy = topic in self._cuttings

    def waiting(self) -> Counter[str]:
        """Messages that have not gone out as a whole, by topic."""
        found: Counter[str] = Counter()
        for topic, cutting in self._cuttings.items():
            found[topic] += cutting.what.messages
        return found

    async def wait_room(self) -> None:
        """Return when ``full`` is over."""
        while self.full and not self._closed:
            await self._room.park()

    async def flush(self) -> None:
        """Return when everything is in the airlock."""
        while len(self._cuttings) and not self._closed:
            await self._room.park()

    def close(self) -> None:
        """Nothing goes out any more: tell who waits."""
        self._closed = True
        self._cuttings = Cuttings()
        self._room.unpark_all()
