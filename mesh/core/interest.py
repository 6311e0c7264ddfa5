"""What each node wants, told to its peers: a versioned set that heals itself.

Ours: ``InterestSet`` → each change moves its version on → ``changes_since`` or ``snapshot`` → pages for the
peers.  Theirs: pages → ``RemoteInterests.apply`` → entries added and removed, for the router, once
the last page of a change is there; nothing of it shows before.

Pings carry version and digest of the set.  Where they differ from what the receiver holds, or a change
builds on a version that it does not have, it asks for all (``InterestsWantedMessage``), so that
lost, repeated and overtaken pages do no lasting harm.

The digest is the sum modulo 2¹²⁸ of BLAKE2b-128 (person ``zeromesh entry``) of each entry as deterministic
CBOR: it does not depend on any order, and one entry more or less costs one hash.  It finds
accidents; a peer who lies lies about its own wishes.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from mesh.core.codec import encode_canonical
from mesh.core.messages import InterestEntry, InterestsMessage
from mesh.core.topic import check_pattern, is_valid_pattern
from mesh.core.types import Reason, RemoteProtocolError
from mesh.errors import ConfigError, TopicError

__all__ = ["ENTRIES", "PAGE_BYTES", "REMOVALS", "InterestChange", "InterestSet", "RemoteInterests"]

ENTRIES: Final = 4096
"""Subscriptions and responders of one node: about 1 MiB of patterns a peer."""

PAGE_BYTES: Final = 48 << 10
"""Bytes of an encoded page at most, well below the 64 KiB of a control message."""

REMOVALS: Final = 1024
"""Removals that a node remembers, to tell what changed since a version. Who is further behind is sent all."""

_HEAD_BYTES: Final = 40  # of a page without entries: array heads, code, two versions, flag
_NUMBER_BYTES: Final = 9  # of an integer at most
_MODULUS: Final = 1 << 128
_UINT: Final = 1 << 64


def _entry_hash(encoded: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=16, person=b"zeromesh entry").digest(), "big")


def _hash_of(entry: InterestEntry) -> int:
    return _entry_hash(encode_canonical(list(entry)))


class _Held(NamedTuple):
    entry: InterestEntry
    since: int  # the version with which it was added
    size: int  # encoded, in bytes
    hash: int


class _Removal(NamedTuple):
    version: int
    number: int
    since: int  # the version with which the entry had been added


class InterestSet:
    """Our own interests. Numbers and versions are never used twice."""

    def __init__(self, limit: int = ENTRIES, page_bytes: int = PAGE_BYTES) -> None:
        self.limit = limit
        self._page_bytes = page_bytes
        self._entries: dict[int, _Held] = {}  # in the order of ``since``
        self._removals: deque[_Removal] = deque()
        self._told_from = 0  # changes since a version before this one are no longer known
        self._sum = 0
        self._last_number = 0
        self.version = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[InterestEntry]:
        return (held.entry for held in self._entries.values())

    def digest(self) -> bytes:
        """16 bytes that tell this set from any other."""
        return self._sum.to_bytes(16, "big")

    def add(self, kind: str, pattern: str, group: str = "", history: int = 0, mode: int = 0) -> InterestEntry:
        """One more interest; ``kind`` is one character, the other fields are ``InterestEntry``'s.

        Raises ``TopicError`` for a bad pattern or one too many, ``ConfigError`` for another field that
        peers would refuse.
        """
        check_pattern(pattern)
        _check_fields(kind, group, history, mode)
        if len(self._entries) >= self.limit:
            raise TopicError(pattern, f"{self.limit} subscriptions and handlers are the most a node may have")
        self._last_number += 1
        self.version += 1
        entry = InterestEntry(self._last_number, kind, pattern, group, history, mode)
        encoded = encode_canonical(list(entry))
        held = _Held(entry, self.version, len(encoded), _entry_hash(encoded))
        self._entries[entry.number] = held
        self._sum = (self._sum + held.hash) % _MODULUS
        return entry

    def remove(self, number: int) -> InterestEntry:
        """The interest with this number ended. Raises ``KeyError`` if there is none."""
        held = self._entries.pop(number)
        self.version += 1
        self._sum = (self._sum - held.hash) % _MODULUS
        self._removals.append(_Removal(self.version, number, held.since))
        if len(self._removals) > REMOVALS:
            self._told_from = self._removals.popleft().version
        return held.entry

    def changes_since(self, version: int) -> list[InterestsMessage]:
        """Pages that lead from ``version`` to now; a snapshot if that is too long ago, none if it is now."""
        if version == self.version:
            return []
        if not self._told_from <= version < self.version or version == 0:
            return self.snapshot()
        added: list[_Held] = []
        for held in reversed(self._entries.values()):
            if held.since <= version:
                break
            added.append(held)
        removed: list[int] = []
        for removal in reversed(self._removals):
            if removal.version <= version:
                break
            if removal.since <= version:  # else it came and went meanwhile
                removed.append(removal.number)
        return self._pages(version, reversed(added), reversed(removed))

    def snapshot(self) -> list[InterestsMessage]:
        """Pages that say all, whatever the receiver knew."""
        return self._pages(0, self._entries.values(), ())

    def _pages(self, base: int, added: Iterable[_Held], removed: Iterable[int]) -> list[InterestsMessage]:
        pages: list[InterestsMessage] = []
        page = InterestsMessage(base, self.version, [], [], False)
        room = self._page_bytes - _HEAD_BYTES
        items: list[_Held | int] = [*removed, *added]
        for item in items:
            size = item.size if isinstance(item, _Held) else _NUMBER_BYTES
            if size > room and (page.added or page.removed):
                pages.append(page)
                page = InterestsMessage(base, self.version, [], [], False)
                room = self._page_bytes - _HEAD_BYTES
            room -= size
            if isinstance(item, _Held):
                page.added.append(list(item.entry))
            else:
                page.removed.append(item)
        return [*pages, page._replace(last=True)]


def _check_fields(kind: str, group: str, history: int, mode: int) -> None:
    if len(kind) != 1:
        raise ConfigError(f"{kind!r} is not one character", key="kind")
    try:
        group.encode()
    except UnicodeEncodeError:
        raise ConfigError("it has a lone surrogate, which UTF-8 cannot carry", key="group") from None
    if len(group) > 64:
        raise ConfigError(f"it has {len(group)} characters, and 64 are the most", key="group")
    for key, value in (("history", history), ("mode", mode)):
        if not 0 <= value < _UINT:
            raise ConfigError(f"{value} is out of range", key=key)


class InterestChange(NamedTuple):
    """What a change means for the router: take ``removed`` out, then put ``added`` in.

    ``resync``: nothing changed, since the change builds on a version that we do not hold; ask for all.
    """

    added: list[InterestEntry]
    removed: list[InterestEntry]
    resync: bool = False


class _Pending:
    """The pages of one change that have come so far."""

    __slots__ = ("added", "base", "consistent", "removed", "version")

    def __init__(self, base: int, version: int) -> None:
        self.base = base
        self.version = version
        self.added: dict[int, InterestEntry] = {}
        self.removed: set[int] = set()
        self.consistent = True  # it takes away only what we have


class RemoteInterests:
    """One peer's interests, as far as it has told us. ``limit`` is the most entries it may have."""

    def __init__(self, limit: int = ENTRIES) -> None:
        self.limit = limit
        self.version = 0
        self._entries: dict[int, InterestEntry] = {}
        self._since: dict[int, int] = {}
        self._sum = 0
        self._pending: _Pending | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[InterestEntry]:
        return iter(self._entries.values())

    def digest(self) -> bytes:
        """To be compared with the digest in the peer's pings."""
        return self._sum.to_bytes(16, "big")

    def get(self, number: int) -> InterestEntry | None:
        return self._entries.get(number)

    def since(self, number: int) -> int | None:
        """The peer's version with which we learnt of this entry: a barrier of that version or a later
        one proves it live. None if there is no such entry."""
        return self._since.get(number)

    def apply(self, message: InterestsMessage) -> InterestChange | None:
        """A page. None if there is nothing to do yet: more pages are to come, or it is out of date.

        Raises ``RemoteProtocolError``: BAD_MESSAGE for an entry that cannot be, TOO_MANY over ``limit``;
        what was known before stands.
        """
        base, version = message.base, message.version
        if base > version:
            raise RemoteProtocolError(Reason.BAD_MESSAGE, "interests change backwards")
        # A snapshot of the version that we hold is wanted: it heals a digest that differs.
        if version < self.version or (base and version == self.version):
            return None
        if base not in (0, self.version):
            return InterestChange([], [], resync=True) if message.last else None
        pending = self._pending
        if pending is None or (pending.base, pending.version) != (base, version):
            if pending is not None and version < pending.version:
                return None  # overtaken by a later change
            pending = self._pending = _Pending(base, version)
        try:
            self._collect(pending, message)
        except RemoteProtocolError:
            self._pending = None
            raise
        if not message.last:
            return None
        self._pending = None
        return self._commit(pending) if pending.consistent else InterestChange([], [], resync=True)

    def _collect(self, pending: _Pending, message: InterestsMessage) -> None:
        """Take up what a page says, which changes nothing else yet."""
        for fields in message.added:
            entry = InterestEntry._make(fields[:6])  # a later version may append
            if not is_valid_pattern(entry.pattern):
                raise RemoteProtocolError(Reason.BAD_MESSAGE, f"interest in {entry.pattern!r}")
            pending.added[entry.number] = entry
        kept = 0
        if pending.base:
            known = [number for number in message.removed if number in self._entries]
            pending.removed.update(known)
            pending.consistent &= len(known) == len(message.removed)
            if not pending.removed.isdisjoint(pending.added):
                raise RemoteProtocolError(Reason.BAD_MESSAGE, "an interest both begins and ends")
            kept = len(self._entries.keys() - pending.removed - pending.added.keys()) if message.last else 0
        if kept + len(pending.added) > self.limit:
            raise RemoteProtocolError(Reason.TOO_MANY, f"more than {self.limit} interests")

    def _commit(self, pending: _Pending) -> InterestChange:
        known = self._entries
        gone = pending.removed if pending.base else known.keys() - pending.added.keys()
        added = [entry for number, entry in pending.added.items() if known.get(number) != entry]
        replaced = [known[entry.number] for entry in added if entry.number in known]
        removed = [known[number] for number in sorted(gone)] + replaced
        for entry in removed:
            del known[entry.number]
            del self._since[entry.number]
            self._sum -= _hash_of(entry)
        for entry in added:
            known[entry.number] = entry
            self._since[entry.number] = pending.version
            self._sum += _hash_of(entry)
        self._sum %= _MODULUS
        self.version = pending.version
        return InterestChange(added, removed)
