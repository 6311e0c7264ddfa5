"""Which message ids were seen lately: how a receiver drops the duplicates that at-least-once delivery makes."""

from __future__ import annotations

from typing import Final

__all__ = ["SeenWindow"]

SIZE: Final = 65_536
"""Ids remembered by default: a resent batch has 512, and a busy route takes seconds to send this many."""


class SeenWindow:
    """The last ``size`` ids. For programs too: ``if window.first_time(message.headers["message-id"]): …``"""

    __slots__ = ("_ids", "_size")

    def __init__(self, size: int = SIZE) -> None:
        self._ids: dict[str, None] = {}
        self._size = size

    def __contains__(self, message_id: str) -> bool:
        return message_id in self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def first_time(self, message_id: str) -> bool:
        """Remember the id; whether it was not among the last ones. An empty id is never remembered."""
        if not message_id:
            return True
        if message_id in self._ids:
            return False
        self._ids[message_id] = None
        if len(self._ids) > self._size:
            del self._ids[next(iter(self._ids))]
        return True

    def forget(self, message_id: str) -> None:
        """It was not received after all."""
        self._ids.pop(message_id, None)
