"""Kafka as the bridge engine sees it: one producer, and a consumer for each import route.

    run: producer → the brokers answer → session → … → all brokers gone, or an error for good

librdkafka connects anew by itself, and keeps what is under way, in order and once.  So a broker that restarts is no
reason to begin anew: only when none has answered for ``GRACE`` seconds ``run`` says that Kafka is unavailable.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio
from confluent_kafka import KafkaError, KafkaException

from bridges.base import (
    CONNECT_WITHIN,
    Broker,
    BrokerError,
    BrokerRejected,
    BrokerUnavailable,
    Delivery,
    Outcome,
    Receiver,
    Session,
)
from bridges.kafka.consuming import Consuming
from bridges.kafka.faults import CREDENTIALS, fault
from bridges.kafka.producing import Producing
from bridges.kafka.settings import Client
from bridges.messages import ORIGIN, REJECTED, BrokerMessage
from bridges.settings import BridgeSettings, ExportRoute, ImportRoute

__all__ = ["KafkaBroker"]

GRACE: Final = 1.0
"""Seconds that all brokers may be away without anybody being told: a restart of one that is alone takes longer,
a connection that is cut and made again does not."""

ASK: Final = 1.0
"""Seconds that a question to the brokers blocks its thread at most."""

STOP_WITHIN: Final = 2.0
"""Seconds for a thread to end: below ``CLOSE_WITHIN``."""

_log = logging.getLogger(__name__)


class KafkaBroker(Broker):
    """The brokers of one cluster."""

    def __init__(self, settings: BridgeSettings, identity: str) -> None:
        self._settings = settings
        self._identity = identity

    async def run(self, *, task_status: trio.TaskStatus[Session]) -> None:
        client = Client.read(self._settings)
        try:
            session = _KafkaSession(client, self._settings, self._identity)
        except KafkaException as error:
            raise BrokerRejected("options", client.hide(error.args[0].str())) from None
        failure: BrokerError | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.producing.serve)
                try:
                    await session.connect()
                    task_status.started(session)
                    await session.stay()
                except BrokerError as error:
                    failure = error  # raised below, not wrapped in a group
                nursery.cancel_scope.cancel()
        finally:
            await session.producing.stop()
        if failure is not None:
            raise failure


class _KafkaSession(Session):
    def __init__(self, client: Client, settings: BridgeSettings, identity: str) -> None:
        self._client = client
        self._groups = _groups(settings, identity)
        self._failure: BrokerError | None = None
        self._last = "no broker answers"
        self._news = trio.Event()
        self._down = False  # all brokers were said to be out of reach, at least once
        self._said: set[int] = set()
        self.producing = Producing(client, self._hear)

    # -- the connection --------------------------------------------------------------------------

    def _hear(self, error: KafkaError) -> None:
        """What librdkafka says of the connection; in Trio, from any of the threads."""
        text = self._client.hide(error.str())
        if error.code() in CREDENTIALS:
            self._failure = BrokerRejected("credentials", text)
        elif error.fatal():
            self._failure = BrokerUnavailable(text)
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._down = True  # what was said before it tells more; ``stay`` looks for itself
        else:
            self._last = text
            if error.code() not in self._said:
                # One of several brokers may be out of reach for long: nothing is lost, but something waits.
                self._said.add(error.code())
                _log.warning("kafka: %s", text)
            return
        self._news.set()

    async def connect(self) -> None:
        """Return when a broker has answered. Raises what ``run`` raises."""
        with trio.move_on_after(CONNECT_WITHIN - ASK):
            while not await self._answers(ASK):
                if self._failure is not None:
                    raise self._failure
                if self._down:
                    raise BrokerUnavailable(self._last)
            await self.producing.prepare()
            return
        raise self._failure or BrokerUnavailable(self._last)

    async def stay(self) -> None:
        """Raise once the connection is lost for longer than ``GRACE``."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            answered = self._failure is None and await self._answers(GRACE)
            if self._failure is not None:
                raise self._failure
            if not answered:
                raise BrokerUnavailable(self._last)

    async def _answers(self, within: float) -> bool:
        try:
            await trio.to_thread.run_sync(
                self.producing.producer.list_topics, None, within, abandon_on_cancel=True
            )
        except KafkaException as error:
            if error.args[0].code() not in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT):
                self._last = self._client.hide(error.args[0].str())
            return False
        return True

    # -- messages --------------------------------------------------------------------------------

    async def send(
        self, route: ExportRoute, messages: Sequence[BrokerMessage]
    ) -> Mapping[int, BrokerRejected]:
        return await self.producing.send(messages)

    async def begin(self, route: ExportRoute, messages: Sequence[BrokerMessage]) -> Outcome:
        return await self.producing.begin(messages)

    @asynccontextmanager
    async def receive(self, route: ImportRoute) -> AsyncIterator[Receiver]:
        try:
            consuming = Consuming(
                self._client,
                self._groups[route.number],
                route.source,
                from_start=route.options.get("start") == "earliest",
                on_error=self._hear,
            )
        except KafkaException as error:
            raise BrokerRejected("options", self._client.hide(error.args[0].str())) from None
        consuming.start()
        try:
            await consuming.live.wait()
            if consuming.failure is not None:
                raise fault(consuming.failure)
            yield _KafkaReceiver(consuming, route, self.producing)
        finally:
            await consuming.stop(STOP_WITHIN)


class _KafkaReceiver(Receiver):
    def __init__(self, consuming: Consuming, route: ImportRoute, producing: Producing) -> None:
        self._consuming = consuming
        self._route = route
        self._producing = producing

    async def receive(self) -> Sequence[Delivery]:
        deliveries = await self._consuming.receive()
        if not self._route.reliable:
            self._consuming.settle(deliveries)
        return deliveries

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        if self._route.reliable:
            self._consuming.settle(deliveries)

    async def reject(self, delivery: Delivery, reason: str) -> None:
        topic = self._route.options.get("dead_letter")
        if topic is not None:
            headers = {**delivery.message.headers, REJECTED: reason, ORIGIN: delivery.message.destination}
            letter = delivery.message._replace(destination=topic, headers=headers)
            refused = await self._producing.send([letter])
            for refusal in refused.values():
                _log.warning("%s: a dead letter was refused by %s: %s", self._route.name, topic, refusal)
        if self._route.reliable:
            self._consuming.settle([delivery])

    async def lag(self) -> int | None:
        return self._consuming.lag


def _groups(settings: BridgeSettings, identity: str) -> dict[int, str]:
    """Route → consumer group: as it says, else one that bridges of this name share and nobody else has.

    It names what it reads, not the route's place in the file: routes may come and go around it.
    """
    found: dict[int, str] = {}
    for route in settings.imports:
        group = route.options.get("group", f"zeromesh.{settings.name}.{identity}.{route.source.text}")
        same = sum(other == group for other in found.values()) if "group" not in route.options else 0
        found[route.number] = f"{group}#{same + 1}" if same else group
    return found
