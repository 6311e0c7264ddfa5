"""Messages to Kafka: handed to librdkafka, confirmed by delivery reports, in order for each key.

    begin → produce each (full? look for reports) → outcome …
    serve → poll, every ``TICK`` while something is under way → reports → a batch is done → its outcome is awaited no more

Everything happens in Trio: ``produce`` only queues, and ``poll(0)`` only fetches what is there.  (A thread that polls
would call back for each message, and each time the two would fight for the interpreter: half the throughput.)
librdkafka sends again what was not confirmed and numbers what it sends (idempotence, KIP-98), so that as long as
this producer lives nothing is lost, doubled or overtaken, even if a broker restarts.

With ``transactional.id`` each batch is a transaction: who reads committed messages sees all of it or nothing.  A
message that the broker refuses takes its transaction along, so the others are sent once more without it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import trio
from confluent_kafka import KafkaError, KafkaException, Producer

from bridges.base import BrokerRejected, BrokerUnavailable, Outcome
from bridges.kafka.faults import fault
from bridges.kafka.settings import Client
from bridges.messages import BrokerMessage, Flattening

__all__ = ["Producing"]

STEP: Final = 1.0
"""Seconds that a step of a transaction blocks its thread at most before it is asked again: bounds a cancel."""

TICK: Final = 0.002
"""Seconds between two looks for reports while something is under way: a fraction of what the broker takes."""

IDLE: Final = 0.1
"""Seconds between two looks while nothing is: what it takes to hear that all brokers are gone."""

END_WITHIN: Final = 2.0
"""Seconds to take back what is queued: below ``CLOSE_WITHIN``."""

PARTITION: Final = "partition"
"""The template of a route that names the partition."""

ANY: Final = -1
"""The partition that librdkafka chooses, by the key (``RD_KAFKA_PARTITION_UA``). A timestamp of 0 is now."""

_log = logging.getLogger(__name__)


class _Batch:
    """Messages under way together. librdkafka calls ``report`` from within ``poll``."""

    def __init__(self) -> None:
        self.reported = 0
        self.expected = -1  # not all handed over yet
        self.errors: dict[int, KafkaError] = {}
        self.refused: dict[int, BrokerRejected] = {}
        self.lost = False  # nobody will report any more
        self.done = trio.Event()

    def report(self, index: int, error: KafkaError | None, _: object) -> None:
        """The fate of one message."""
        if error is not None:
            self.errors[index] = error
        self.reported += 1

    async def outcome(self) -> Mapping[int, BrokerRejected]:
        await self.done.wait()
        if self.lost:
            raise BrokerUnavailable("the connection was closed")
        for index, reason in self.errors.items():
            found = fault(reason)
            if not isinstance(found, BrokerRejected) or found.reason == "credentials":
                raise BrokerUnavailable(reason.str())
            self.refused[index] = found
        return self.refused


class Producing:
    """The bridge's producer, for all its routes."""

    def __init__(self, client: Client, on_error: Callable[[KafkaError], None]) -> None:
        self._transactional = client.transactional
        self._one_transaction = trio.Lock()
        self._open = False  # a transaction was begun and has not ended
        self._under_way: list[_Batch] = []
        self._begun = trio.Event()
        token = trio.lowlevel.current_trio_token()
        # It may come from the thread of a transaction's step.
        self.producer = Producer(
            {**client.producer(), "error_cb": lambda error: token.run_sync_soon(on_error, error)}
        )

    # -- reports -------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Look for reports until cancelled."""
        while True:
            self._poll()
            if self._under_way:
                await trio.sleep(TICK)
            else:
                self._begun = trio.Event()
                with trio.move_on_after(IDLE):
                    await self._begun.wait()

    def _poll(self) -> None:
        self.producer.poll(0)
        if any(batch.reported == batch.expected for batch in self._under_way):
            waiting = []
            for batch in self._under_way:
                if batch.reported == batch.expected:
                    batch.done.set()
                else:
                    waiting.append(batch)
            self._under_way = waiting

    async def stop(self) -> None:
        """Take back what is queued: it was not confirmed, and will be sent by whoever comes after us."""
        for batch in self._under_way:
            batch.lost = True
            batch.done.set()
        self._under_way = []
        with trio.move_on_after(END_WITHIN, shield=True):
            await trio.to_thread.run_sync(self._take_back, abandon_on_cancel=True)
            return
        _log.warning("kafka-producer did not end within %s s; left to itself", END_WITHIN)

    def _take_back(self) -> None:
        self.producer.purge()
        self.producer.flush(IDLE)

    # -- messages ------------------------------------------------------------------------------

    async def begin(self, messages: Sequence[BrokerMessage]) -> Outcome:
        """``Session.begin``: return when librdkafka has them all."""
        if self._transactional:
            refused = await self._transactions(messages)

            async def outcome() -> Mapping[int, BrokerRejected]:
                return refused

            return outcome
        return (await self._hand_over(messages)).outcome

    async def send(self, messages: Sequence[BrokerMessage]) -> Mapping[int, BrokerRejected]:
        """Return when the broker has them all; those it refuses, by place. Raises ``BrokerUnavailable``."""
        return await (await self.begin(messages))()

    async def _hand_over(
        self, messages: Sequence[BrokerMessage], without: Mapping[int, BrokerRejected] | None = None
    ) -> _Batch:
        batch = _Batch()
        self._under_way.append(batch)
        self._begun.set()
        try:
            batch.expected = await self._produce(batch, messages, without or {})
        except BaseException:  # cancelled, or the connection is of no use: nobody waits for the rest of it
            self._under_way.remove(batch)
            raise
        self._poll()
        await trio.lowlevel.checkpoint()
        return batch

    async def _produce(
        self, batch: _Batch, messages: Sequence[BrokerMessage], without: Mapping[int, BrokerRejected]
    ) -> int:
        """How many librdkafka took. Waits where it has no room."""
        produce, flat, report = self.producer.produce, Flattening().flat, batch.report
        handed_over = 0
        last: float | None = None
        milliseconds = 0
        for index, message in enumerate(messages):
            if index in without:
                continue
            try:
                partition = _partition(message.filled[PARTITION]) if PARTITION in message.filled else ANY
            except BrokerRejected as error:
                batch.refused[index] = error
                continue
            headers: Any = flat(message)
            timestamp = message.timestamp
            if timestamp != last:
                last, milliseconds = timestamp, 0 if timestamp is None else round(timestamp * 1000)
            while True:
                try:
                    produce(
                        message.destination,
                        message.data,
                        message.key or None,
                        partition,
                        partial(report, index),
                        None,
                        milliseconds,
                        headers,
                    )
                except BufferError:  # backpressure: what is under way has to be confirmed first
                    await trio.sleep(TICK)
                    self._poll()
                except KafkaException as error:
                    found = fault(error.args[0])
                    if not isinstance(found, BrokerRejected):
                        raise found from None
                    batch.refused[index] = found
                    break
                else:
                    handed_over += 1
                    break
        return handed_over

    # -- transactions --------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Fence whoever had our ``transactional.id``, and end what they left. Raises ``BrokerUnavailable``."""
        if self._transactional:
            await self._step(self.producer.init_transactions)

    async def _transactions(self, messages: Sequence[BrokerMessage]) -> Mapping[int, BrokerRejected]:
        async with self._one_transaction:
            refused: dict[int, BrokerRejected] = {}
            while len(refused) < len(messages):
                before = len(refused)
                await self._begin()
                refused.update(await (await self._hand_over(messages, refused)).outcome())
                if len(refused) == before:
                    await self._step(self.producer.commit_transaction)
                    self._open = False
                    break
            if self._open:
                await self._abort()
            return refused

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
