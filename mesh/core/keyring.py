"""The keys that peers have announced to us, and the one place where a frame is opened.

frame → key id → its owner's ``OpeningKey`` → authenticated plaintext, or a
``RemoteProtocolError`` that has changed nothing.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from mesh.core.envelope import MAGIC, OVERHEAD, VERSION, OpeningKey, parse_header
from mesh.core.replay import WINDOW
from mesh.core.types import NodeId, Reason, RemoteProtocolError

__all__ = ["KEYS_PER_OWNER", "Keyring", "Opened"]

KEYS_PER_OWNER: Final = 16
"""A node seals with one key a scope; a handful of scopes have reader rules of their own."""

_KEYS_PER_SCOPE: Final = 2  # the one in use, and the one before it for frames still in flight
_START: Final = MAGIC + bytes([VERSION])
_unpack: Final = Struct(">3sBH8sIQ").unpack_from  # the same header, in one piece less


class Opened(NamedTuple):
    """A frame that authenticated: whose key sealed it, its type, and what was in it."""

    owner: NodeId
    type: int
    plaintext: bytes


class Keyring:
    """The keys that peers have announced to us, by key id. ``window`` is the replay window in frames.

    Key ids are their owners' choice: if two owners choose the same, each frame is tried with both keys, so that
    nobody can shut out a peer by announcing its key id first.
    """

    def __init__(self, window: int = WINDOW, keys_per_owner: int = KEYS_PER_OWNER) -> None:
        self._window = window
        self._keys_per_owner = keys_per_owner
        self._keys: dict[bytes, tuple[tuple[NodeId, OpeningKey], ...]] = {}
        self._owned: dict[NodeId, list[OpeningKey]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._owned.values()))

    def add(self, owner: NodeId, key: OpeningKey) -> None:
        """``owner`` announced this key over its own link. Beyond the bounds its oldest keys make room."""
        key.resize(self._window)
        owned = self._owned.setdefault(owner, [])
        for known in owned:
            if known.key_id == key.key_id:
                known.renew(key)
                return
        owned.append(key)
        self._keys[key.key_id] = (*self._keys.get(key.key_id, ()), (owner, key))
        same_scope = [each for each in owned if each.scope == key.scope]
        if len(same_scope) > _KEYS_PER_SCOPE:
            self._drop(owner, same_scope[0])
        elif len(owned) > self._keys_per_owner:
            self._drop(owner, owned[0])

    def scoped(self) -> list[tuple[bytes, str]]:
        """(key id, scope) of every key whose scope is not the whole mesh."""
        return [(key.key_id, key.scope) for owned in self._owned.values() for key in owned if key.scope]

    def remove(self, owner: NodeId) -> None:
        """Forget every key of this owner. Idempotent."""
        for key in list(self._owned.get(owner, ())):
            self._drop(owner, key)

    def _drop(self, owner: NodeId, key: OpeningKey) -> None:
        owned = self._owned[owner]
        owned.remove(key)
        if not owned:
            del self._owned[owner]
        left = tuple(entry for entry in self._keys[key.key_id] if entry[1] is not key)
        if left:
            self._keys[key.key_id] = left
        else:
            del self._keys[key.key_id]

    def owner(self, key_id: bytes) -> NodeId | None:
        """Who announced this key id; None if nobody did, or if it is disputed."""
        entries = self._keys.get(key_id, ())
        return entries[0][0] if len(entries) == 1 else None

    def open(self, tag: bytes, frame: bytes) -> Opened:
        """Authenticate and open a frame that came with ``tag``.

        Raises ``RemoteProtocolError`` (BAD_LENGTH, BAD_MAGIC, BAD_VERSION, UNKNOWN_KEY and the
        reasons of ``OpeningKey.open``), having changed nothing.
        """
        # ``parse_header`` and a loop in longhand: every frame that arrives passes here.
        if len(frame) < OVERHEAD:
            raise RemoteProtocolError(Reason.BAD_LENGTH, f"{len(frame)} bytes")
        start, kind, flags, key_id, epoch, counter = _unpack(frame)
        entries = self._keys.get(key_id)
        if start != _START or flags or entries is None:
            parse_header(frame)  # which says what is wrong with it, unless it is the key
            raise RemoteProtocolError(Reason.UNKNOWN_KEY, key_id.hex())
        if len(entries) > 1:
            return _open_disputed(entries, kind, tag, epoch, counter, frame)
        owner, key = entries[0]
        return Opened(owner, kind, key.open_at(tag, epoch, counter, frame))


def _open_disputed(
    entries: tuple[tuple[NodeId, OpeningKey], ...],
    kind: int,
    tag: bytes,
    epoch: int,
    counter: int,
    frame: bytes,
) -> Opened:
    for owner, key in entries[:-1]:
        try:
            return Opened(owner, kind, key.open_at(tag, epoch, counter, frame))
        except RemoteProtocolError:
            continue  # another owner's key may fit
    owner, key = entries[-1]
    return Opened(owner, kind, key.open_at(tag, epoch, counter, frame))
