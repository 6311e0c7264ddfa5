"""Messages to Kafka: handed to librdkafka, confirmed by delivery reports, in order for each key.

    send → produce each (full? wait for reports) → the thread polls → reports → the batch is done → send returns

``produce`` only queues, so it is called in Trio; the reports come in the thread, which counts them and wakes the
sender once a batch.  librdkafka sends again what was not confirmed and numbers what it sends (idempotence,
KIP-98), so that as long as this producer lives nothing is lost, doubled or overtaken, even if a broker restarts.

With ``transactional.id`` each batch is a transaction: who reads committed messages sees all of it or nothing.  A
message that the broker refuses takes its transaction along, so the others are sent once more without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import trio
from confluent_kafka import KafkaError, KafkaException, Producer

from bridges.base import BrokerRejected, BrokerUnavailable
from bridges.kafka.faults import fault
from bridges.kafka.settings import Client
from bridges.kafka.worker import POLL, Worker
from bridges.messages import BrokerMessage, flatten

__all__ = ["Producing"]

STEP: Final = 1.0
"""Seconds that a step of a transaction blocks its thread at most before it is asked again: bounds a cancel."""

PARTITION: Final = "partition"
"""The template of a route that names the partition."""

ANY: Final = -1
"""The partition that librdkafka chooses, by the key (``RD_KAFKA_PARTITION_UA``). A timestamp of 0 is now."""


class _Batch:
    """Messages under way together. ``reported`` is the thread's to write, ``expected`` Trio's; each only grows."""

    def __init__(self, wake: Callable[[_Batch], None]) -> None:
        self._wake = wake
        self.reported = 0
        self.expected = -1  # not all handed over yet
        self.errors: dict[int, KafkaError] = {}
        self.done = trio.Event()

    def report(self, index: int, error: KafkaError | None, _: object) -> None:
        """In the thread: the fate of one message."""
        if error is not None:
            self.errors[index] = error
        self.reported += 1
        if self.reported == self.expected:
            self._wake(self)

    def close(self, handed_over: int) -> None:
        """In Trio: no more will come. The reports may all be there already."""
        self.expected = handed_over
        if self.reported == handed_over:
            self.done.set()


class Producing(Worker):
    """The bridge's producer, for all its routes."""

    def __init__(self, client: Client, on_error: Callable[[KafkaError], None]) -> None:
        super().__init__("kafka-producer")
        self._on_error = on_error
        self._transactional = client.transactional
        self._one_transaction = trio.Lock()
        self._open = False  # a transaction was begun and has not ended
        self._reports = trio.Event()  # reports came since somebody found the queue full
        self._waiting = False  # somebody wants to hear of room
        self.producer = Producer({**client.producer(), "error_cb": self._error})

    def loop(self) -> None:
        while not self._stop:
            served = self.producer.poll(POLL)
            if served and self._waiting:
                self.tell(self._have_room)
        # What is still queued was not confirmed, and will be sent by whoever comes after us.
        self.producer.purge()
        self.producer.flush(POLL)

    def _error(self, error: KafkaError) -> None:
        self.tell(self._on_error, error)

    def _have_room(self) -> None:
        self._waiting = False
        self._reports.set()

    async def send(self, messages: Sequence[BrokerMessage]) -> Mapping[int, BrokerRejected]:
        """Return when the broker has them all; those it refuses, by place. Raises ``BrokerUnavailable``."""
        if not self._transactional:
            return await self._attempt(messages, {})
        async with self._one_transaction:
            refused: dict[int, BrokerRejected] = {}
            while len(refused) < len(messages):
                before = len(refused)
                await self._begin()
                refused.update(await self._attempt(messages, refused))
                if len(refused) == before:
                    await self._step(self.producer.commit_transaction)
                    self._open = False
                    break
            if self._open:
                await self._abort()
            return refused

    async def _attempt(
        self, messages: Sequence[BrokerMessage], without: Mapping[int, BrokerRejected]
    ) -> Mapping[int, BrokerRejected]:
        refused: dict[int, BrokerRejected] = {}
        batch = _Batch(self._finished)
        handed_over = 0
        for index, message in enumerate(messages):
            if index in without:
                continue
            report = partial(batch.report, index)
            try:
                while not self._produced(message, report):
                    await self._room()
            except BrokerRejected as error:
                refused[index] = error
            else:
                handed_over += 1
        batch.close(handed_over)
        await batch.done.wait()
        for index, reason in batch.errors.items():
            found = fault(reason)
            if not isinstance(found, BrokerRejected) or found.reason == "credentials":
                raise BrokerUnavailable(reason.str())
            refused[index] = found
        return refused

    def _finished(self, batch: _Batch) -> None:
        self.tell(batch.done.set)

    def _produced(self, message: BrokerMessage, report: Callable[..., None]) -> bool:
        """Whether librdkafka took it; it has no room if not. Raises what it will never take."""
        filled = message.filled
        partition = _partition(filled[PARTITION]) if PARTITION in filled else ANY
        headers: Any = flatten(message)
        try:
            self.producer.produce(
                message.destination,
                message.data,
                message.key or None,
                on_delivery=report,
                headers=headers,
                partition=partition,
                timestamp=0 if message.timestamp is None else round(message.timestamp * 1000),
            )
        except BufferError:
            return False
        except KafkaException as error:
            raise fault(error.args[0]) from None
        return True

    async def _room(self) -> None:
        """Backpressure: what is under way has to be confirmed first."""
        if self._reports.is_set():
            self._reports = trio.Event()
        self._waiting = True
        # The last report may have come just before we said so: hence not without a limit.
        with trio.move_on_after(POLL):
            await self._reports.wait()

    # -- transactions --------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Fence whoever had our ``transactional.id``, and end what they left. Raises ``BrokerUnavailable``."""
        if self._transactional:
            await self._step(self.producer.init_transactions)

    async def _begin(self) -> None:
        if self._open:  # whoever began it was cancelled, or one of its messages was refused
            await self._abort()
        try:
            self.producer.begin_transaction()
        except KafkaException as error:
            raise BrokerUnavailable(error.args[0].str()) from None
        self._open = True

    async def _abort(self) -> None:
        await self._step(self.producer.abort_transaction)
        self._open = False

    async def _step(self, call: Callable[[float], None]) -> None:
        """A call that may be made again as long as it says so."""
        while True:
            try:
                await trio.to_thread.run_sync(call, STEP)
            except KafkaException as error:
                reason: KafkaError = error.args[0]
                if not reason.retriable():
                    raise BrokerUnavailable(reason.str()) from None
            else:
                return


def _partition(text: str) -> int:
    if text.isdecimal() and len(text) < 10:
        return int(text)
    raise BrokerRejected("no such partition", "what the template of partition came to is no number")
