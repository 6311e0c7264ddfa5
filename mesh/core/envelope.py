"""Sealed frames: one AEAD seal for all subscribers, opened by whoever was given the key.

    sealing:  plaintext → epoch due? next chain → header → AEAD(key, IV xor counter, aad) → frame
    opening:  frame → header → key id → epoch → replay window → AEAD → *then* mark → plaintext

Associated data are the tag chain that stands in front of the frame, the header (26 bytes, big-endian: magic, version,
type, flags, key id, epoch, counter) and the node id of the key's owner, so that no frame opens as somebody else's.  Key schedule, for each epoch e, all HKDF-SHA256
(RFC 5869) as in ``mesh.core.keys``::

    key_e = HKDF(chain_e, "key")   iv_e = HKDF(chain_e, "iv")   chain_{e+1} = HKDF(chain_e, "chain")

The nonce is the epoch's IV XOR the counter (RFC 8446 §5.3); counters begin at 0 in each epoch and nothing
of this is ever stored: a restarted node has a fresh root, so that no nonce repeats.

A frame that doesn't open changes nothing: neither windows nor epochs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, NamedTuple, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from mesh.core.keys import derive
from mesh.core.messages import KeyAnnouncement
from mesh.core.replay import WINDOW, ReplayWindow
from mesh.core.types import Reason, RemoteProtocolError
from mesh.errors import MeshError

__all__ = [
    "AES_256_GCM",
    "BARRIER",
    "BATCH",
    "CHUNK",
    "LAST",
    "CHACHA20_POLY1305",
    "HEADER_SIZE",
    "KEPT",
    "KEPT_CHUNK",
    "MAGIC",
    "MAX_EPOCHS_AHEAD",
    "OVERHEAD",
    "TAIL",
    "VERSION",
    "Header",
    "OpeningKey",
    "SealingKey",
    "parse_header",
]

BATCH: Final = 1
"""Frame type: the plaintext is an encoded ``Batch``."""
BARRIER: Final = 2
"""Frame type: the echo of a barrier; the plaintext is empty."""
LAST: Final = 3
"""Frame type: the sender leaves, and nothing follows on this connection; the plaintext is empty."""
KEPT: Final = 4
"""Frame type: a ``Batch`` that the publisher keeps for a while, to repair losses."""
TAIL: Final = 5
"""Frame type: the publisher fell silent on a topic; the plaintext is a ``Tail``."""

CHUNK: Final = 6
"""Frame type: a piece of the plaintext of a ``BATCH`` that does not fit a frame."""
KEPT_CHUNK: Final = 7
"""Frame type: likewise, of a ``KEPT``."""

AES_256_GCM: Final = 1
CHACHA20_POLY1305: Final = 2  # RFC 8439, for CPUs without AES instructions

_CIPHERS: Final[dict[int, type[AESGCM] | type[ChaCha20Poly1305]]] = {
    AES_256_GCM: AESGCM,
    CHACHA20_POLY1305: ChaCha20Poly1305,
}

_HEADER: Final = struct.Struct(">2sBBH8sIQ")
MAGIC: Final = b"ZM"
VERSION: Final = 1
HEADER_SIZE: Final = _HEADER.size
OVERHEAD: Final = HEADER_SIZE + 16
"""Bytes that a frame has more than its plaintext."""

MAX_EPOCHS_AHEAD: Final = 16
"""How far a frame may pull a receiver forward. Each step costs it one HKDF for a frame that may be
forged; who has missed more hours than that asks for the key again."""

_LAST_EPOCH: Final = (1 << 32) - 1
_VIEW_FROM: Final = 16 << 10  # bytes from which a memoryview costs less than a copy


class Header(NamedTuple):
    """What stands in front of the ciphertext. ``type`` says how to read the plaintext."""

    type: int
    key_id: bytes
    epoch: int
    counter: int


def parse_header(frame: bytes) -> Header:
    """The header of a sealed frame, unauthenticated. Raises ``RemoteProtocolError``."""
    if len(frame) < OVERHEAD:
        raise RemoteProtocolError(Reason.BAD_LENGTH, f"{len(frame)} bytes")
    magic, version, kind, flags, key_id, epoch, counter = _HEADER.unpack_from(frame)
    if magic != MAGIC:
        raise RemoteProtocolError(Reason.BAD_MAGIC)
    if version != VERSION or flags:  # a flag that we do not know may change what the rest means
        raise RemoteProtocolError(Reason.BAD_VERSION, f"version {version}, flags {flags:#x}")
    return Header(kind, key_id, epoch, counter)


class _Epoch:
    """Key and IV of one epoch. The chain that leads on is dropped when the epoch is over."""

    __slots__ = ("aead", "chain", "iv", "number")

    def __init__(self, number: int, chain: bytes, cipher: int) -> None:
        self.number = number
        self.chain = chain
        self.aead = _CIPHERS[cipher](derive(chain, b"key", 32))
        self.iv = int.from_bytes(derive(chain, b"iv", 12), "big")


def _next_chain(chain: bytes) -> bytes:
    return derive(chain, b"chain", 32)


class SealingKey:
    """Our own key of one scope. ``key_id`` (8) and ``chain`` (32) are random bytes, fresh for each process;
    ``owner`` is our node id.

    An epoch ends after ``max_frames``, before ``max_bytes`` of plaintext are exceeded, or ``lifetime`` seconds
    after its beginning, whichever is first.  ``clock`` is monotonic seconds.
    """

    __slots__ = (
        "_bytes",
        "_cipher",
        "_counter",
        "_encrypt",
        "_encrypt_into",
        "_epoch",
        "_iv",
        "_lifetime",
        "_max_bytes",
        "_max_frames",
        "_owner",
        "_prefixes",
        "_until",
        "key_id",
        "scope",
    )

    def __init__(
        self,
        key_id: bytes,
        chain: bytes,
        clock: float,
        *,
        scope: str = "",
        owner: bytes,
        cipher: int = AES_256_GCM,
        max_frames: int = 1 << 23,
        max_bytes: int = 64 << 30,
        lifetime: float = 3600.0,
    ) -> None:
        self.key_id = key_id
        self.scope = scope
        self._owner = owner
        self._cipher = cipher
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._lifetime = lifetime
        self._begin(0, chain, clock)

    def _begin(self, number: int, chain: bytes, clock: float) -> None:
        self._epoch = _Epoch(number, chain, self._cipher)
        self._encrypt: Callable[[bytes, bytes, bytes], bytes] = self._epoch.aead.encrypt
        self._encrypt_into: Callable[[bytes, bytes, bytes, memoryview], int] = self._epoch.aead.encrypt_into
        self._iv = self._epoch.iv
        self._counter = 0
        self._bytes = 0
        self._until = clock + self._lifetime
        self._prefixes: dict[int, bytes] = {}  # type → header without its counter

    @property
    def epoch(self) -> int:
        return self._epoch.number

    def seal(self, frame_type: int, tag: bytes, plaintext: bytes, clock: float) -> bytes:
        """One frame that opens under ``tag`` and no other. Never gives a nonce twice."""
        counter = self._counter
        sealed_bytes = self._bytes + len(plaintext)
        if counter >= self._max_frames or clock >= self._until or sealed_bytes > self._max_bytes:
            if self._epoch.number == _LAST_EPOCH:  # some 490,000 years of hours
                raise MeshError("this sealing key is used up")
            self._begin(self._epoch.number + 1, _next_chain(self._epoch.chain), clock)
            counter, sealed_bytes = 0, len(plaintext)
        # Counted before it is used: whatever goes wrong below, this counter is spent.
        self._counter = counter + 1
        self._bytes = sealed_bytes
        prefix = self._prefixes.get(frame_type)
        if prefix is None:
            prefix = _HEADER.pack(MAGIC, VERSION, frame_type, 0, self.key_id, self._epoch.number, 0)[:-8]
            self._prefixes[frame_type] = prefix
        header = prefix + counter.to_bytes(8, "big")
        nonce = (self._iv ^ counter).to_bytes(12, "big")
        if len(plaintext) < _VIEW_FROM:
            return header + self._encrypt(nonce, plaintext, tag + header + self._owner)
        frame = bytearray(OVERHEAD + len(plaintext))  # sealed where it stands, not copied behind its header
        frame[:HEADER_SIZE] = header
        self._encrypt_into(nonce, plaintext, tag + header + self._owner, memoryview(frame)[HEADER_SIZE:])
        return cast("bytes", frame)  # nobody writes to it any more, and who takes frames takes buffers

    def announcement(self) -> KeyAnnouncement:
        """The key as it stands, for one who may read: this epoch's chain, never an older one."""
        epoch = self._epoch
        return KeyAnnouncement(
            self.key_id, self.scope, self._cipher, epoch.number, epoch.chain, self._counter
        )


class _OpeningEpoch(_Epoch):
    """An epoch of somebody else's key, with the counters that have been seen of it."""

    __slots__ = ("decrypt", "owner", "window")

    def __init__(self, number: int, chain: bytes, cipher: int, window: ReplayWindow, owner: bytes) -> None:
        super().__init__(number, chain, cipher)
        self.owner = owner
        self.decrypt: Callable[[bytes, bytes | memoryview, bytes], bytes] = self.aead.decrypt
        self.window = window

    def open(self, tag: bytes, counter: int, frame: bytes) -> bytes:
        """The plaintext; the counter is marked only after the AEAD tag has verified."""
        reason = self.window.check(counter)
        if reason is not None:
            raise RemoteProtocolError(reason, f"counter {counter}")
        sealed = frame[HEADER_SIZE:] if len(frame) < _VIEW_FROM else memoryview(frame)[HEADER_SIZE:]
        try:
            plaintext = self.decrypt(
                (self.iv ^ counter).to_bytes(12, "big"), sealed, tag + frame[:HEADER_SIZE] + self.owner
            )
        except InvalidTag:
            raise RemoteProtocolError(Reason.BAD_TAG) from None
        self.window.mark(counter)
        return plaintext


class OpeningKey:
    """Somebody else's sealing key, as it was announced to us, and how far it has got since.

    Holds the current epoch and the one before it (for frames in flight around the change).
    """

    __slots__ = ("_cipher", "_current", "_owner", "_previous", "_window", "key_id", "scope")

    def __init__(self, announcement: KeyAnnouncement, owner: bytes, window: int = WINDOW) -> None:
        if announcement.cipher not in _CIPHERS:
            raise RemoteProtocolError(Reason.BAD_MESSAGE, f"cipher {announcement.cipher}")
        if announcement.epoch > _LAST_EPOCH:
            raise RemoteProtocolError(Reason.BAD_MESSAGE, f"epoch {announcement.epoch}")
        self.key_id = announcement.key_id
        self.scope = announcement.scope
        self._cipher = announcement.cipher
        self._owner = owner
        self._window = window
        self._previous: _OpeningEpoch | None = None
        self._current = self._epoch(announcement.epoch, announcement.chain, announcement.counter)

    @classmethod
    def from_announcement(
        cls, announcement: KeyAnnouncement, owner: bytes, *, window: int = WINDOW
    ) -> OpeningKey:
        """The key as its owner announced it (a node id); ``window`` is the replay window's size in frames.

        Raises ``RemoteProtocolError(BAD_MESSAGE)`` for a cipher or epoch that there isn't.
        """
        return cls(announcement, owner, window)

    def _epoch(self, number: int, chain: bytes, counter: int) -> _OpeningEpoch:
        return _OpeningEpoch(
            number,
            chain,
            self._cipher,
            ReplayWindow.starting_at(counter, size=self._window),
            self._owner,
        )

    @property
    def epoch(self) -> int:
        """The latest epoch of which a frame opened, or that was announced."""
        return self._current.number

    def open(self, tag: bytes, header: Header, frame: bytes) -> bytes:
        """The plaintext of a frame whose header names this key.

        Raises ``RemoteProtocolError`` (OLD_EPOCH, FUTURE_EPOCH, DUPLICATE, TOO_OLD, BAD_TAG),
        having changed nothing.
        """
        return self.open_at(tag, header.epoch, header.counter, frame)

    def open_at(self, tag: bytes, epoch: int, counter: int, frame: bytes) -> bytes:
        """``open`` for one who has read the header already."""
        current = self._current
        if epoch == current.number:
            return current.open(tag, counter, frame)
        if epoch > current.number:
            return self._open_ahead(tag, epoch, counter, frame)
        previous = self._previous
        if previous is None or epoch != previous.number:
            raise RemoteProtocolError(Reason.OLD_EPOCH, f"epoch {epoch}, now {current.number}")
        return previous.open(tag, counter, frame)

    def _open_ahead(self, tag: bytes, epoch: int, counter: int, frame: bytes) -> bytes:
        current = self._current
        if epoch - current.number > MAX_EPOCHS_AHEAD:
            raise RemoteProtocolError(Reason.FUTURE_EPOCH, f"epoch {epoch}, now {current.number}")
        before, chain = b"", current.chain
        for _ in range(epoch - current.number):
            before, chain = chain, _next_chain(chain)
        latest = self._epoch(epoch, chain, 0)
        plaintext = latest.open(tag, counter, frame)
        # It is genuine: from here on this is the epoch.
        if epoch - 1 != current.number:
            current = self._epoch(epoch - 1, before, 0)
        self._replace(current, latest)
        return plaintext

    def renew(self, again: OpeningKey) -> None:
        """The owner announced the same key again: go on to that epoch if it is ahead.

        Otherwise nothing changes, so that a repeated announcement forgets no counter.
        """
        if again._current.number > self._current.number:
            self._replace(self._current, again._current)

    def resize(self, window: int) -> None:
        """Use replay windows of this size. Before the first frame."""
        if window != self._window:
            self._window = window
            self._current.window = ReplayWindow.starting_at(self._current.window.next, size=window)

    def _replace(self, previous: _OpeningEpoch, current: _OpeningEpoch) -> None:
        previous.chain = b""  # what is over leads nowhere
        self._previous, self._current = previous, current
