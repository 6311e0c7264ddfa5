"""Whether what is to be published should wait: for the broadcast socket, or behind what is large.

What is small, on a topic on which nothing large is under way, waits for the airlock alone.
"""

from __future__ import annotations

from typing import Any

import trio

from mesh.core.codec import Encoded, encode_value
from mesh.core.outgoing import Line
from mesh.node.airlock import Airlock
from mesh.node.lanes import Lanes

__all__ = ["Queues"]


class Queues:
    """Both bounded queues in front of the broadcast socket. To be asked if either is ``full``."""

    def __init__(self, airlock: Airlock, lanes: Lanes) -> None:
        self._airlock = airlock
        self._lanes = lanes

    def held_up(self, line: Line | None, size: int) -> bool:
        """Whether a value of so many bytes should wait."""
        if self._airlock.full or not self._lanes.full:
            return self._airlock.full
        return size > self._lanes.whole or (line is not None and line.busy)

    async def wait(self, line: Line | None, size: int) -> None:
        """Return when it need not wait any more."""
        while self.held_up(line, size):
            await (self._airlock if self._airlock.full else self._lanes).wait_room()

    async def room(self, line: Line, value: Any) -> Any:
        """Wait while there is no room for a value; its encoding, which says how large it is."""
        value = value if type(value) is bytes else Encoded(*encode_value(value))
        await self.wait(line, _size_of(value))
        return value

    def try_room(self, line: Line, value: Any) -> Any:
        """The same without waiting. Raises ``trio.WouldBlock``."""
        value = value if type(value) is bytes else Encoded(*encode_value(value))
        if self.held_up(line, _size_of(value)):
            raise trio.WouldBlock
        return value


def _size_of(value: bytes | Encoded) -> int:
    return len(value) if isinstance(value, bytes) else len(value.data)
