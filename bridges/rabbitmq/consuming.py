"""An import route's queue: found or declared, bound, consumed. All but ``RouteReceiver`` runs on the loop.

    subscribe → exchange, queue, dead-letter queue, binding, prefetch → consume
    a delivery → ``Inbox`` → ``RouteReceiver.receive`` → the mesh has it → ``acknowledge`` up to the last one
                                                       → it can't cross → ``reject``: to the dead letters

A queue that is there is taken as it is (its owner may have his reasons); one that is not is made:

    reliable        durable; the broker keeps what comes while no bridge reads
    not reliable    there while a bridge reads it, and bounded
    requests        likewise; all bridges of a mesh share the work

Where order counts (not for requests) the queue has a single active consumer: a bridge that takes over from
another gets nothing while that one still has messages.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from hashlib import blake2b
from typing import Any, Final, Protocol, TypeVar, TypeVarTuple

import trio
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import ChannelNotFoundEntity
from aiormq.abc import DeliveredMessage

from bridges.base import BATCH, BrokerUnavailable, Delivery, Receiver
from bridges.loop import Inbox, Loop
from bridges.rabbitmq.channels import Channels, Underlay
from bridges.rabbitmq.faults import CLIENT_ERRORS, refusal, unavailable
from bridges.rabbitmq.properties import delivered
from bridges.settings import ImportRoute

__all__ = ["Consumer", "RouteReceiver", "queue_name"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

PREFETCH: Final = 2 * BATCH
"""Messages here, not yet acknowledged, at most: one batch in the mesh's hands, and the next one waiting."""

DEAD_BYTES: Final = 64 << 20
"""The queue of dead letters keeps that much, and the newest: whoever looks after it has time, no disk is filled."""

LIVE_MESSAGES: Final = 65536
"""Waiting on a route that is not reliable, at most; the oldest go. A subscription of the mesh holds as many."""

FORGOTTEN_AFTER: Final = 600_000
"""Milliseconds without a reader after which the broker deletes a queue that nobody promised to keep."""


def queue_name(identity: str, route: ImportRoute) -> str:
    """The queue that a route reads: named by the configuration, or for the bridge and what the route reads."""
    options = route.options
    if "queue" in options:
        return str(options["queue"])
    exchange = options.get("exchange", "amq.topic")
    source = route.source
    if not exchange or (route.request and source.exact):
        # The default exchange routes to the queue of that name; so clients of a service may do too.
        return source.text
    what = (exchange, source.text, sorted(options.get("headers", {}).items()), route.reliable, route.request)
    return f"zeromesh.{identity}.{blake2b(repr(what).encode(), digest_size=8).hexdigest()}"


class Consumer:
    """One route's queue on one connection, on the loop."""

    def __init__(
        self,
        channels: Channels,
        route: ImportRoute,
        identity: str,
        inbox: Inbox[DeliveredMessage],
    ) -> None:
        self._channels = channels
        self._route = route
        self._inbox = inbox
        self._channel: AbstractChannel | None = None
        self._underlay: Underlay | None = None
        self.queue = queue_name(identity, route)
        self.prefetch = PREFETCH

    async def subscribe(self, prefetch: int) -> None:
        """Return once every message that is sent from now on will come. Raises ``BrokerError``."""
        self.prefetch = prefetch
        try:
            await self._declare()
            self._channel, self._underlay = await self._channels.open()
            self._channel.close_callbacks.add(self._lost)
            self._underlay.on_consumer_cancel_callbacks.add(self._cancelled)
            await self._underlay.basic_qos(prefetch_count=prefetch)
            await self._underlay.basic_consume(self.queue, self._deliver)
        except CLIENT_ERRORS as error:
            raise refusal(error) or unavailable(error) from error

    async def _deliver(self, message: DeliveredMessage) -> None:
        self._inbox.put(message)

    def _lost(self, _: object, error: BaseException | None) -> None:
        self._inbox.fail(unavailable(error))

    def _cancelled(self, _: object) -> None:
        self._inbox.fail(BrokerUnavailable(f"the queue {self.queue} was deleted"))

    # -- declarations ------------------------------------------------------------------------

    async def _declare(self) -> None:
        route, options = self._route, self._route.options
        exchange: str = options.get("exchange", "amq.topic")
        channel, underlay = await self._channels.open()
        try:
            if "exchange_type" in options:
                await underlay.exchange_declare(
                    exchange, exchange_type=options["exchange_type"], durable=True
                )
            if options.get("dead_letter"):
                await underlay.exchange_declare(options["dead_letter"], passive=True)
            if not await self._exists(self.queue):
                await self._make(underlay)
            if exchange:
                await underlay.queue_bind(
                    self.queue, exchange, route.source.text, arguments=options.get("headers")
                )
        finally:
            await channel.close()

    async def _exists(self, queue: str) -> bool:
        channel, underlay = await self._channels.open()
        try:
            await underlay.queue_declare(queue, passive=True)
        except ChannelNotFoundEntity:
            return False
        finally:
            await channel.close()
        return True

    async def _make(self, underlay: Underlay) -> None:
        route, options = self._route, self._route.options
        arguments: dict[str, Any] = {}
        if options.get("dead_letter"):
            arguments["x-dead-letter-exchange"] = options["dead_letter"]
        elif route.reliable:
            dead = f"{self.queue}.dead"
            await underlay.queue_declare(
                dead, durable=True, arguments={"x-max-length-bytes": DEAD_BYTES, "x-overflow": "drop-head"}
            )
            arguments["x-dead-letter-exchange"] = ""
            arguments["x-dead-letter-routing-key"] = dead
        if route.reliable:
            if not route.request:
                arguments["x-single-active-consumer"] = True
        else:
            arguments["x-expires"] = FORGOTTEN_AFTER
            arguments["x-max-length"] = LIVE_MESSAGES
            if not route.request:
                arguments["x-single-active-consumer"] = True
        await underlay.queue_declare(
            self.queue, durable=True, auto_delete=not route.reliable, arguments=arguments
        )

    # -- afterwards --------------------------------------------------------------------------

    async def acknowledge(self, tags: Sequence[int]) -> None:
        """Those deliveries; of messages the last one stands for all before it, requests end in any order.

        AMQP answers no acknowledgement, so nobody waits for this. That the channel is gone is told by the inbox.
        """
        assert self._underlay is not None
        multiple = not self._route.request
        try:
            for tag in tags[-1:] if multiple else tags:
                await self._underlay.basic_ack(tag, multiple=multiple, wait=False)
        except CLIENT_ERRORS as error:
            self._inbox.fail(unavailable(error))

    async def reject(self, tag: int) -> None:
        assert self._underlay is not None
        try:
            await self._underlay.basic_reject(tag, requeue=False)
        except CLIENT_ERRORS as error:
            raise unavailable(error) from error

    async def waiting(self) -> int | None:
        """Messages in the queue that no reader has."""
        try:
            channel, underlay = await self._channels.open()
            try:
                return (await underlay.queue_declare(self.queue, passive=True)).message_count
            finally:
                await channel.close()
        except CLIENT_ERRORS as error:
            raise unavailable(error) from error

    async def close(self) -> None:
        """What was not acknowledged goes back to the queue."""
        if self._channel is not None:
            try:
                await self._channel.close()
            except CLIENT_ERRORS:
                pass  # it is gone, which is as good


class Run(Protocol):
    """Runs a function on the loop. Raises ``BrokerError``."""

    async def __call__(self, function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T: ...


class RouteReceiver(Receiver):
    """The Trio side of a ``Consumer``."""

    def __init__(self, loop: Loop, run: Run, consumer: Consumer, inbox: Inbox[DeliveredMessage]) -> None:
        self._loop = loop
        self._run = run
        self._consumer = consumer
        self._inbox = inbox
        self._held = 0

    async def receive(self) -> Sequence[Delivery]:
        messages = await self._inbox.fetch(BATCH)
        self._held += len(messages)
        return [Delivery(delivered(message), message.delivery_tag) for message in messages]

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        await trio.lowlevel.checkpoint()
        if deliveries:
            self._loop.post(self._consumer.acknowledge, [each.token for each in deliveries])
            self._held -= len(deliveries)

    async def reject(self, delivery: Delivery, reason: str) -> None:
        await self._run(self._consumer.reject, delivery.token)
        self._held -= 1

    async def lag(self) -> int | None:
        waiting = await self._run(self._consumer.waiting)
        return None if waiting is None else waiting + len(self._inbox) + self._held
