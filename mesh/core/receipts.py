"""Receipts: what a subscription that publishers wait for tells each of them, and when.

The program takes a message → ``took`` → nothing, mostly; a ``WindowMessage`` when a quarter of the publisher's window has
been taken since the last one, or at once when the publisher has asked (``wanted``), since it waits.  The room that the
subscription has is shared among the publishers that it hears.
"""

from __future__ import annotations

from typing import Final

from mesh.core.messages import WindowMessage
from mesh.core.types import NodeId

__all__ = ["Receipts"]

_LEAST_BYTES: Final = 64 << 10
"""Bytes of the narrowest window: one full batch."""

_SHARES: Final = 8
"""Publishers among which the bytes are shared before each share shrinks; half of a share is left for what is under way
while a further one joins."""

_TOPICS: Final = 1024
"""Topics of which positions are gathered before they are told: a message of some 100 KB at the very most."""


class _Taken:
    """What was taken of one publisher since it was last told."""

    __slots__ = ("messages", "positions", "size", "wanted")

    def __init__(self) -> None:
        self.positions: dict[str, int] = {}
        self.messages = self.size = 0
        self.wanted = False


class Receipts:
    """Of one subscription, number ``number``, that holds ``messages`` of ``size`` bytes."""

    def __init__(self, number: int, messages: int, size: int, own: NodeId) -> None:
        self._number = number
        self._messages = messages
        self._size = size
        self._own = own
        self._publishers: dict[NodeId, _Taken] = {}

    def _window(self) -> tuple[int, int]:
        """Messages and bytes by which each publisher may be ahead."""
        several = max(1, len(self._publishers))
        return max(1, self._messages // several), max(_LEAST_BYTES, self._size // max(_SHARES, 2 * several))

    def took(self, node: NodeId, topic: str, end: int, messages: int, size: int) -> WindowMessage | None:
        """Everything below ``end`` on a topic of ``node`` is taken (or will never come), ``messages`` more of ``size``
        bytes. What to tell it, if it is time."""
        taken = self._publishers.get(node)
        if taken is None:
            taken = self._publishers[node] = _Taken()
        taken.positions[topic] = end
        taken.messages += messages
        taken.size += size
        if not taken.wanted and node != self._own:
            most, most_bytes = self._window()
            if 4 * taken.messages < most and 4 * taken.size < most_bytes and len(taken.positions) < _TOPICS:
                return None
        return self._tell(node, taken)

    def wanted(self, node: NodeId) -> WindowMessage | None:
        """The publisher waits for us."""
        taken = self._publishers.get(node)
        if taken is None:
            taken = self._publishers[node] = _Taken()
        if taken.positions:
            return self._tell(node, taken)
        taken.wanted = True  # it hears of the next
        return None

    def _tell(self, node: NodeId, taken: _Taken) -> WindowMessage:
        self._publishers[node] = _Taken()
        return WindowMessage(self._number, *self._window(), [list(each) for each in taken.positions.items()])

    def begin(self, node: NodeId) -> WindowMessage:
        """We were cut off: the publisher may wait for us again, from now on."""
        self._publishers[node] = _Taken()
        return WindowMessage(self._number, *self._window(), [])

    def forget(self, node: NodeId) -> None:
        """The publisher left."""
        self._publishers.pop(node, None)
