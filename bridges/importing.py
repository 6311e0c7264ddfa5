"""Broker → mesh, one route: receiver → loop? duplicate? → mapped → published → acknowledged.

A message is acknowledged when the mesh has it: all of a batch are published, and flushed to the sockets, before the
first of them is.  What was published and not acknowledged when the connection broke comes again, and is known by
its id.  What can never cross is rejected, which puts it where the broker has a place for dead letters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import trio

import mesh
from bridges.base import Delivery, Receiver, Session
from bridges.counters import RouteCounters
from bridges.crossing import Inward, Looped
from bridges.settings import ImportRoute
from bridges.siblings import Siblings
from bridges.values import Unmappable
from bridges.window import SeenWindow
from mesh.errors import MessageTooLarge, TopicError, ValueEncodingError

__all__ = ["Import"]

_LAG_EVERY: Final = 5.0
"""Seconds between two questions to the broker how much is left."""


class Import:
    """One import route."""

    def __init__(
        self, node: mesh.Node, route: ImportRoute, inward: Inward, siblings: Siblings, counters: RouteCounters
    ) -> None:
        self.route = route
        self.counters = counters
        self._node = node
        self._inward = inward
        self._siblings = siblings
        self.live = trio.Event()  # the broker gives us what comes now
        self._seen = SeenWindow()  # of this process: a restarted one may publish a batch twice

    async def run(self, session: Session) -> None:
        """Move messages whenever this bridge leads, for as long as the connection lasts.

        Raises ``BrokerUnavailable``, ``BrokerRejected``.
        """
        while True:
            await self._siblings.wait_leading()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._until_relieved, nursery.cancel_scope)
                await self._move(session)

    async def _until_relieved(self, scope: trio.CancelScope) -> None:
        await self._siblings.wait_leading(False)
        scope.cancel()

    async def _move(self, session: Session) -> None:
        async with session.receive(self.route) as receiver, trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_lag, receiver)
            self.live.set()
            try:
                while True:
                    await self._batch(receiver, await receiver.receive())
            finally:
                self.live = trio.Event()

    async def _watch_lag(self, receiver: Receiver) -> None:
        while True:
            self.counters.lag = await receiver.lag()
            await trio.sleep(_LAG_EVERY)

    async def _batch(self, receiver: Receiver, deliveries: Sequence[Delivery]) -> None:
        settled: list[Delivery] = []
        refused: list[tuple[Delivery, str]] = []
        published: dict[str, mesh.Publisher] = {}
        for delivery in deliveries:
            message = delivery.message
            try:
                taken = self._inward.take(message)
                if message.message_id and message.message_id in self._seen:
                    self.counters.duplicates += 1
                    settled.append(delivery)
                    continue
                publisher = published.get(taken.topic)
                if publisher is None:
                    publisher = published[taken.topic] = self._node.publisher(
                        taken.topic, reliable=self.route.reliable
                    )
                await publisher.publish(taken.value, taken.headers)
            except Looped:
                self.counters.looped += 1
                settled.append(delivery)
            except (Unmappable, MessageTooLarge, ValueEncodingError, TopicError) as error:
                reason, detail = _why(error)
                self.counters.rejected(reason, f"{message.destination!r}: {detail}")
                refused.append((delivery, f"{reason}: {detail}" if detail else reason))
            else:
                self._seen.first_time(message.message_id)
                self.counters.moved += 1
                settled.append(delivery)
        for publisher in published.values():
            await publisher.flush()
        for delivery, why in refused:
            await receiver.reject(delivery, why)
        if settled:
            await receiver.acknowledge(settled)


def _why(error: Exception) -> tuple[str, str]:
    if isinstance(error, Unmappable):
        return error.reason, error.detail
    if isinstance(error, MessageTooLarge):
        return "too large", str(error)
    if isinstance(error, TopicError):
        return "topic", str(error)
    return "headers", str(error)
