"""Requests over direct reply-to, and replies. Everything here runs on the loop.

    request → publish, mandatory, with ``reply_to`` and a correlation id → a reply of that id
            → returned at once where nobody is bound: there is no worker
    reply   → the default exchange, with the caller's ``reply_to`` as routing key

*Direct reply-to* (RabbitMQ's guide of that name): the replies come to the channel that sent the request, and
no queue is made.  A request expires at the broker when its caller has given up.
"""

from __future__ import annotations

import asyncio
from typing import Final
from uuid import uuid4

from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import DeliveryError, PublishError
from aiormq.abc import DeliveredMessage

from bridges.base import BrokerUnavailable
from bridges.messages import BrokerMessage
from bridges.rabbitmq.channels import Blockade, Channels, Underlay
from bridges.rabbitmq.faults import CLIENT_ERRORS, refusal, unavailable
from bridges.rabbitmq.properties import TRANSIENT, delivered, properties_of
from bridges.rabbitmq.publishing import frame_room
from bridges.settings import ExportRoute

__all__ = ["Calls"]

REPLY_TO: Final = "amq.rabbitmq.reply-to"
"""The pseudo-queue of direct reply-to."""


class Calls:
    """The requests and replies of one connection."""

    def __init__(self, channels: Channels, blockade: Blockade) -> None:
        self._channels = channels
        self._blockade = blockade
        self._opening = asyncio.Lock()
        self._asking: tuple[AbstractChannel, Underlay] | None = None
        self._answering: tuple[AbstractChannel, Underlay] | None = None
        self._waiting: dict[str, asyncio.Future[BrokerMessage]] = {}

    async def request(self, route: ExportRoute, message: BrokerMessage, timeout: float) -> BrokerMessage:
        """Its reply. Lasts until it is cancelled. Raises ``BrokerError``."""
        identity = uuid4().hex
        reply: asyncio.Future[BrokerMessage] = asyncio.get_running_loop().create_future()
        self._waiting[identity] = reply
        try:
            channel = await self._ask()
            properties = properties_of(
                message,
                mode=TRANSIENT,
                room=frame_room(channel),
                reply_to=REPLY_TO,
                correlation_id=identity,
                expiration=timeout,
            )
            # A message id of the client's own: a returned request is known by it alone.
            properties.message_id = identity
            # Where the configuration names no exchange, a worker may be bound at amq.topic or,
            # as is usual for work queues, read the queue of that name.
            exchanges = [route.options["exchange"]] if "exchange" in route.options else ["amq.topic", ""]
            for exchange in exchanges:
                try:
                    await self._blockade.wait(
                        channel.basic_publish(
                            message.data,
                            exchange=exchange,
                            routing_key=message.destination,
                            properties=properties,
                            mandatory=True,
                        )
                    )
                    break
                except PublishError:
                    if exchange == exchanges[-1]:
                        raise
            return await reply
        except DeliveryError as error:
            raise refusal(error) or BrokerUnavailable("the broker could not take it now (nack)") from error
        except CLIENT_ERRORS as error:
            raise refusal(error) or unavailable(error) from error
        finally:
            del self._waiting[identity]
            reply.cancel()

    async def _ask(self) -> Underlay:
        async with self._opening:
            if self._asking is None or self._asking[1].is_closed:
                channel, underlay = await self._channels.open(confirms=True)
                channel.close_callbacks.add(self._lost)
                await underlay.basic_consume(REPLY_TO, self._replied, no_ack=True)
                self._asking = channel, underlay
            return self._asking[1]

    async def _replied(self, message: DeliveredMessage) -> None:
        # None: its caller has given up. A reply that is nobody's costs nothing and means nothing.
        waiting = self._waiting.get(message.header.properties.correlation_id or "")
        if waiting is not None and not waiting.done():
            waiting.set_result(delivered(message))

    def _lost(self, _: object, error: BaseException | None) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(refusal(error) or unavailable(error))

    async def reply(self, request: BrokerMessage, reply: BrokerMessage) -> None:
        """Raises ``BrokerError``."""
        try:
            async with self._opening:
                if self._answering is None or self._answering[1].is_closed:
                    self._answering = await self._channels.open()
                channel = self._answering[1]
            properties = properties_of(
                reply, mode=TRANSIENT, room=frame_room(channel), correlation_id=request.correlation_id
            )
            await self._blockade.wait(
                channel.basic_publish(reply.data, routing_key=request.reply_to, properties=properties)
            )
        except CLIENT_ERRORS as error:
            raise refusal(error) or unavailable(error) from error
