"""An import route of channels: SUBSCRIBE one, or PSUBSCRIBE a pattern, and the notes beside them."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from coredis import Redis
from coredis.retry import NoRetryPolicy

from bridges.base import BATCH, BrokerUnavailable, Delivery, Receiver
from bridges.messages import header_text, unflatten
from bridges.redis.faults import faults
from bridges.redis.notes import CHANNEL, Notes
from bridges.settings import ImportRoute

__all__ = ["listening"]


_WAITING: Final = 65_536
"""Messages that wait for the mesh; with more the connection is given up, as Redis would a slow subscriber's."""


class Listening(Receiver):
    """What is published from now on; Redis keeps nothing of it."""

    def __init__(self) -> None:
        self.pubsub: Any = None
        self._come: deque[Any] = deque()
        self._notes = Notes()

    def came(self, message: Any) -> None:
        """The client's handler: called for each message, before the client's own queue has a place for it."""
        self._come.append(message)

    async def receive(self) -> Sequence[Delivery]:
        deliveries: list[Delivery] = []
        with faults():
            while not deliveries:
                await self.pubsub.get_message()
                # As many as have come have a place in the client's queue, too: taken without waiting.
                for _ in range(min(BATCH, len(self._come)) - 1):
                    await self.pubsub.get_message()
                for _ in range(min(BATCH, len(self._come))):
                    self._add(deliveries, self._come.popleft())
                if len(self._come) > _WAITING:
                    raise BrokerUnavailable(f"more than {_WAITING} messages wait for the mesh")
        return deliveries

    def _add(self, deliveries: list[Delivery], message: Any) -> None:
        channel, data = header_text(message["channel"]), message["data"]
        if channel == CHANNEL:
            if message["type"] == "message":  # a pattern of the route may take it, too
                self._notes.add(data)
            return
        deliveries.append(Delivery(unflatten(channel, data, self._notes.take(channel, data), key=channel)))

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Redis does not ask."""

    async def reject(self, delivery: Delivery, reason: str) -> None:
        """There is no place for what nobody can read: the engine has counted it."""


@asynccontextmanager
async def listening(client: Redis[bytes], route: ImportRoute) -> AsyncIterator[Receiver]:
    """``Session.receive`` of a route that is not reliable."""
    source = route.source
    receiver = Listening()
    channels = [CHANNEL, source.text] if source.exact else [CHANNEL]
    patterns = [] if source.exact else [source.text]
    with faults():
        async with client.pubsub(
            # A lost connection is the engine's to see: what was said meanwhile is lost.
            retry_policy=NoRetryPolicy(),
            channel_handlers=dict.fromkeys(channels, receiver.came),
            pattern_handlers=dict.fromkeys(patterns, receiver.came),
            subscription_timeout=10,
        ) as receiver.pubsub:
            yield receiver
