"""An export route's channel. Everything here runs on the loop.

    send → open (declare, look for the exchange) → publish all, one behind the other → wait for every confirm
         → the broker closed the channel over one of them? → a fresh channel, one by one: each finds its own fault

A route that is reliable or ``mandatory`` has publisher confirms; another hands its messages over and waits
until they are written.  AMQP's *returned* comes before the confirm of the same message, so a message is
known to have been routed, or not, when its confirm is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import DeliveryError, PublishError
from aiormq import spec

from bridges.base import BrokerRejected, BrokerUnavailable
from bridges.messages import BrokerMessage
from bridges.rabbitmq.channels import Blockade, Channels, Underlay
from bridges.rabbitmq.faults import CLIENT_ERRORS, refusal, unavailable, unroutable
from bridges.rabbitmq.properties import PERSISTENT, TRANSIENT, properties_of
from bridges.settings import ExportRoute

__all__ = ["Caution", "Publisher", "frame_room"]

CAREFUL_FOR: Final = 64
"""Batches that go one by one after the broker has closed a channel over one of a route's messages."""


class Caution:
    """Routes whose messages go one by one for a while, as one of them may cost the channel.

    The client answers a closed channel while it still has messages of it to write; the broker may then close
    the whole connection over those. Without this the next one would be closed over the same batch, for ever.
    """

    def __init__(self) -> None:
        self._left: dict[int, int] = {}

    def warn(self, route: int) -> None:
        self._left[route] = CAREFUL_FOR

    def asks(self, route: int) -> bool:
        """Whether the next batch of this route goes one by one. To be asked once for each."""
        left = self._left.get(route, 0)
        self._left[route] = max(0, left - 1)
        return left > 0


class Publisher:
    """Sends for one route on one connection; one ``send`` at a time."""

    def __init__(self, channels: Channels, blockade: Blockade, caution: Caution, route: ExportRoute) -> None:
        options = route.options
        self.exchange: str = options.get("exchange", "amq.topic")
        self._type: str | None = options.get("exchange_type")
        self._queue: str | None = options.get("queue")
        self._binding: str = options.get("binding", route.to.text)
        self._mandatory: bool = options.get("mandatory", route.reliable)
        self._mode = PERSISTENT if options.get("persistent", route.reliable) else TRANSIENT
        self._confirms = route.reliable or self._mandatory
        self._channels = channels
        self._blockade = blockade
        self._caution = caution
        self._number = route.number
        self._channel: AbstractChannel | None = None
        self._underlay: Underlay | None = None

    async def send(self, messages: Sequence[BrokerMessage]) -> Mapping[int, BrokerRejected]:
        """Raises ``BrokerUnavailable``."""
        try:
            return await self._blockade.wait(self._send(messages))
        except CLIENT_ERRORS as error:
            raise unavailable(error) from error

    async def _send(self, messages: Sequence[BrokerMessage]) -> Mapping[int, BrokerRejected]:
        refused: dict[int, BrokerRejected] = {}
        try:
            channel = await self._open()
        except CLIENT_ERRORS as error:
            fault = refusal(error)
            if fault is None:
                raise
            return dict.fromkeys(range(len(messages)), fault)
        ready: list[tuple[int, BrokerMessage, spec.Basic.Properties]] = []
        for place, message in enumerate(messages):
            try:
                properties = properties_of(message, mode=self._mode, room=frame_room(channel))
            except BrokerRejected as fault:
                refused[place] = fault
            else:
                ready.append((place, message, properties))
        send = self._one_by_one if self._caution.asks(self._number) else self._pipeline
        for run in _without_twins(ready):
            refused.update(await send(run))
        return refused

    async def _pipeline(
        self, run: Sequence[tuple[int, BrokerMessage, spec.Basic.Properties]]
    ) -> Mapping[int, BrokerRejected]:
        channel = await self._open()
        if self._confirms:
            outcomes: list[Any] = await asyncio.gather(
                *(self._publish(channel, message, properties) for _, message, properties in run),
                return_exceptions=True,
            )
        else:
            outcomes = [None] * len(run)
            last = len(run) - 1
            for index, (_, message, properties) in enumerate(run):
                try:
                    await self._publish(channel, message, properties, drain=index == last)
                except CLIENT_ERRORS as error:
                    outcomes = [error] * len(run)
                    break
        refused: dict[int, BrokerRejected] = {}
        for (place, _, _), result in zip(run, outcomes, strict=True):
            if isinstance(result, PublishError):
                refused[place] = unroutable(result)
            elif isinstance(result, DeliveryError):
                raise BrokerUnavailable("the broker could not take it now (nack)")
            elif isinstance(result, BaseException):
                self._caution.warn(self._number)
                if not self._channels.works:
                    raise unavailable(result) from result
                # The channel was closed over one of them, and took the others' confirms with it.
                return await self._one_by_one(run)
        return refused

    async def _one_by_one(
        self, run: Sequence[tuple[int, BrokerMessage, spec.Basic.Properties]]
    ) -> Mapping[int, BrokerRejected]:
        refused: dict[int, BrokerRejected] = {}
        if not self._confirms:
            await self._close()  # only now is there a wish to be told
        for place, message, properties in run:
            channel = await self._open(confirms=True)
            try:
                await self._publish(channel, message, properties)
            except CLIENT_ERRORS as error:
                fault = refusal(error)
                if fault is None:
                    raise
                if fault.reason != "unroutable":
                    self._caution.warn(self._number)
                refused[place] = fault
        if not self._confirms:
            await self._close()
        return refused

    async def _publish(
        self,
        channel: Underlay,
        message: BrokerMessage,
        properties: spec.Basic.Properties,
        *,
        drain: bool = False,
    ) -> Any:
        return await channel.basic_publish(
            message.data,
            exchange=self.exchange,
            routing_key=message.destination,
            properties=properties,
            mandatory=self._mandatory,
            wait=drain,
        )

    # -- the channel -----------------------------------------------------------------------

    async def _open(self, *, confirms: bool = False) -> Underlay:
        if self._underlay is not None and not self._underlay.is_closed:
            return self._underlay
        self._channel, channel = await self._channels.open(confirms=confirms or self._confirms)
        await self._declare(channel)
        self._underlay = channel
        return channel

    async def _declare(self, channel: Underlay) -> None:
        if self._type is not None:
            await channel.exchange_declare(self.exchange, exchange_type=self._type, durable=True)
        elif self.exchange:
            await channel.exchange_declare(self.exchange, passive=True)
        if self._queue is not None:
            await channel.queue_declare(self._queue, durable=True)
            if self.exchange:
                await channel.queue_bind(self._queue, self.exchange, self._binding)

    async def _close(self) -> None:
        channel, self._channel, self._underlay = self._channel, None, None
        if channel is not None:
            await channel.close()


def frame_room(channel: Underlay) -> int:
    """Bytes of one frame, which the properties of a message must fit in."""
    return channel.connection.connection_tune.frame_max - 8


def _without_twins(
    ready: Sequence[tuple[int, BrokerMessage, spec.Basic.Properties]],
) -> list[list[tuple[int, BrokerMessage, spec.Basic.Properties]]]:
    """Cut where a message id comes again: a returned message is known by its id alone."""
    runs: list[list[tuple[int, BrokerMessage, spec.Basic.Properties]]] = []
    seen: set[str] = set()
    for each in ready:
        identity = each[1].message_id
        if not runs or (identity and identity in seen):
            runs.append([])
            seen.clear()
        runs[-1].append(each)
        seen.add(identity)
    return runs
