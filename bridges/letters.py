"""What an export could not bring to the broker, put on a topic of the mesh: ``dead_letter`` of a route.

    a mesh message that cannot be mapped → its value ┐→ published there, with headers that say why and where from
    a message that the broker refused → its bytes    ┘

The last ``KEPT`` letters are there for who subscribes later and asks for them (``mesh sub --history``).  A letter has
passed this bridge, so that no route of it brings it back.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

import mesh
from bridges.messages import CONTENT_TYPE, MESSAGE_ID, ORIGIN, PATH, REJECTED, TOPIC, BrokerMessage
from mesh.errors import MeshError, ValueEncodingError

__all__ = ["KEPT", "DeadLetters"]

log = logging.getLogger("mesh.bridges")

KEPT: Final = 256
"""Letters that are kept, a route: enough to see what is wrong, and some ten KiB mostly."""

_WHY: Final = 256
"""Characters of the reason: headers have a bound of their own."""


class DeadLetters:
    """Of one route; ``topic`` is where they go."""

    def __init__(self, node: mesh.Node, topic: str, identity: str, where: str) -> None:
        self._node = node
        self._topic = topic
        self._identity = identity
        self._where = where
        self._publisher: mesh.Publisher | None = None
        self._failed = False

    async def unmappable(self, message: mesh.Message, why: str) -> bool:
        """Put a message of the mesh there. Whether that went well."""
        try:
            value = message.value
        except ValueEncodingError:
            value = message.data
        return await self._put(value, message.headers, message.topic, why)

    async def refused(self, message: BrokerMessage, why: str) -> bool:
        """Put there what the broker would not have, as it would have got it. Whether that went well."""
        headers = {**message.headers, CONTENT_TYPE: message.content_type, MESSAGE_ID: message.message_id}
        return await self._put(message.data, headers, message.headers.get(TOPIC, ""), why)

    async def _put(self, value: Any, headers: Mapping[str, str], topic: str, why: str) -> bool:
        path = headers.get(PATH, "")
        if not path.endswith(self._identity):
            path = f"{path},{self._identity}" if path else self._identity
        said = {PATH: path, REJECTED: " ".join(why.split())[:_WHY], ORIGIN: topic}
        try:
            if self._publisher is None:
                self._publisher = self._node.publisher(self._topic, reliable=True, history=KEPT)
            try:
                await self._publisher.publish(value, {**headers, **said})
            except (mesh.MessageTooLarge, ValueEncodingError):
                await self._publisher.publish(value, said)  # perhaps it was its headers
        except MeshError as error:
            # Rules that deny, a value over the mesh's limits: the bridge goes on, as with all bad input.
            if not self._failed:
                self._failed = True
                log.warning(
                    "%s: a dead letter cannot be put on %r: %s (further ones are only counted)",
                    self._where,
                    self._topic,
                    error,
                )
            return False
        return True
