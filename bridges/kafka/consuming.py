"""Messages from Kafka: fetched ahead within bounds, committed once the mesh has them.

    assigned → where to begin is committed → poll → ``take`` → Trio's ``receive`` → ``acknowledge``
      → ``settle`` → commit, every 0.2 s, and before a partition is given away

Everything that touches the consumer happens in its thread: Trio hands it what is settled and is handed what was
fetched, both by lists that only one side appends to.  While the mesh is slower than the broker the thread waits
for it; if that takes long it pauses the partitions and goes on polling, so that the group does not take it for
dead.

**Where a group begins.**  A partition that was there when we came is read from its end, one that comes into being
later from its beginning; so what is sent once we are live is read, whatever creates its topic.  The place is
committed before anything is read, so that a bridge that dies at once does not begin at a later end.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, cast

import trio
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from bridges.base import BATCH, BrokerUnavailable, Delivery
from bridges.kafka.faults import fault
from bridges.kafka.names import subscription
from bridges.kafka.offsets import Offsets
from bridges.kafka.settings import Client
from bridges.kafka.worker import POLL, Worker
from bridges.mapping import SourcePattern
from bridges.messages import header_text, unflatten

__all__ = ["Consuming"]

WINDOW: Final = 8 * BATCH
"""Messages that are fetched and not settled at most: several batches, so that none waits for a round trip."""

WINDOW_BYTES: Final = 16 << 20
"""Their bytes at most; the last batch may pass it by what librdkafka had fetched (its own bound is as much)."""

HEADER: Final = 64
"""Bytes that a header is taken for."""

COMMIT_EVERY: Final = 0.2
"""Seconds: what a bridge that is killed has delivered and will deliver again."""

PATIENCE: Final = 1.0
"""Seconds that a full window is waited for before the partitions are paused (which drops what was fetched)."""

ASK_WITHIN: Final = 5.0
"""Seconds for the broker to say where partitions begin and end."""

REVOKE_WITHIN: Final = 3.0
"""Seconds that a partition which shall be given away waits for what the mesh was given of it."""

CLOSE_WITHIN: Final = 1.0
"""Seconds that the last commit may take."""

LAG_EVERY: Final = 1.0

_log = logging.getLogger(__name__)

_Place = tuple[str, int]
_Token = tuple[Offsets, int, int]  # its partition, its offset, its bytes


class Consuming(Worker):
    """One import route's member of its consumer group."""

    def __init__(
        self,
        client: Client,
        group: str,
        source: SourcePattern,
        *,
        from_start: bool,
        on_error: Callable[[KafkaError], None],
    ) -> None:
        super().__init__(f"kafka-consumer-{source.text}")
        self._source = source
        self._from_start = from_start
        self._on_error = on_error
        self._consumer = Consumer(
            {**client.consumer(group), "error_cb": self._error, "on_commit": self._commit_ended}
        )
        self._cluster = ""
        self._existing: dict[str, int] = {}  # topic → partitions, of those that match, as we came
        # The thread's own.
        self._assigned: dict[_Place, Offsets] = {}
        self._starts: dict[_Place, int] = {}
        self._in_flight = 0
        self._bytes = 0
        self._committing = False
        self._next_commit = self._next_lag = 0.0
        self._paused: list[TopicPartition] = []
        self._said: set[int] = set()
        # Appended to by Trio, taken from by the thread.
        self._settled: deque[_Token] = deque()
        self._nudge = threading.Event()
        # Trio's own.
        self.live = trio.Event()
        self._fetched: deque[Delivery] = deque()
        self._arrived = trio.Event()
        self.lag: int | None = None

    # -- in Trio -------------------------------------------------------------------------------

    async def receive(self) -> Sequence[Delivery]:
        """At least one message, at most ``BATCH``. Raises ``BrokerUnavailable``."""
        while not self._fetched:
            if self.ended.is_set():
                raise BrokerUnavailable(self.failure.str() if self.failure else "the consumer was closed")
            self._arrived = trio.Event()
            await self._arrived.wait()
        found: list[Delivery] = []
        given_away: list[Delivery] = []
        while self._fetched and len(found) < BATCH:
            delivery = self._fetched.popleft()
            (given_away if delivery.token[0].revoked else found).append(delivery)
        self.settle(given_away)
        return found or await self.receive()

    def settle(self, deliveries: Iterable[Delivery]) -> None:
        """The mesh has them, or they were set aside."""
        self._settled.extend(delivery.token for delivery in deliveries)
        self._nudge.set()

    def _hand_over(self, deliveries: Sequence[Delivery]) -> None:
        self._fetched.extend(deliveries)
        self._arrived.set()

    def _run(self) -> None:
        super()._run()
        self.tell(self._hand_over, ())  # whoever waits for messages sees that there will be none
        self.tell(self.live.set)

    # -- in the thread -------------------------------------------------------------------------

    def loop(self) -> None:
        try:
            self._look_around()
            self._consumer.subscribe(
                [subscription(self._source.text)],
                on_assign=self._assign,
                on_revoke=self._revoke,
                on_lost=self._lose,
            )
            if not self._existing:
                self.tell(self.live.set)  # what comes into being from now on is read from its beginning
            while not self._stop:
                self._take_settled()
                self._keep_books()
                if self._room():
                    self._fetch()
        finally:
            self._close()

    def _look_around(self) -> None:
        """What is there as we come."""
        found = self._consumer.list_topics(timeout=ASK_WITHIN)
        self._cluster = found.cluster_id or ""
        self._existing = {
            name: len(topic.partitions)
            for name, topic in found.topics.items()
            if self._source.captures(name) is not None
        }

    def _room(self) -> bool:
        """Whether to fetch more; waits a little if not."""
        if self._in_flight < WINDOW and self._bytes < WINDOW_BYTES:
            if self._paused:
                self._consumer.resume([place for place in self._paused if self._is_ours(place)])
                self._paused = []
            return True
        if self._paused:
            self._take(self._consumer.consume(1, POLL))  # nothing comes; rebalances and errors do
            return False
        end = time.monotonic() + PATIENCE
        while self._in_flight >= WINDOW or self._bytes >= WINDOW_BYTES:
            if self._stop:
                return False
            if time.monotonic() > end:
                self._paused = self._consumer.assignment()
                self._consumer.pause(self._paused)
                return False
            self._nudge.wait(POLL)
            self._nudge.clear()
            self._take_settled()
            self._keep_books()
        return True

    def _is_ours(self, place: TopicPartition) -> bool:
        return (place.topic, place.partition) in self._assigned

    def _fetch(self) -> None:
        # One is waited for, the others are taken if they are there: ``consume(512)`` would wait for all.
        first = self._consumer.poll(POLL)
        if first is not None:
            self._take([first])
            if (room := min(BATCH, WINDOW - self._in_flight)) > 0:
                self._take(self._consumer.consume(room, 0))

    def _take(self, messages: Sequence[Message]) -> None:
        deliveries = []
        for message in messages:
            error = message.error()
            if error is not None:
                self._hear(error)
                continue
            topic, partition = str(message.topic()), message.partition()
            offset = message.offset()
            assert partition is not None and offset is not None  # only errors lack them
            offsets = self._assigned.get((topic, partition))
            if offsets is None:
                continue  # given away meanwhile; whoever has it now begins where we committed
            delivery = self._delivery(message, topic, partition, offset, offsets)
            offsets.take(offset)
            self._in_flight += 1
            self._bytes += delivery.token[2]
            deliveries.append(delivery)
        if deliveries:
            self.tell(self._hand_over, deliveries)

    def _delivery(
        self, message: Message, topic: str, partition: int, offset: int, offsets: Offsets
    ) -> Delivery:
        data = message.value() or b""  # a tombstone is an empty message
        headers = cast("list[tuple[str, str | bytes | None]]", message.headers() or [])
        flat = {name: header_text(value) for name, value in headers}
        taken = unflatten(topic, data, flat, key=header_text(message.key()))
        if not taken.message_id:
            # The same whoever reads it and how often, so that what comes twice can be told.
            taken = taken._replace(message_id=f"{self._cluster}/{topic}/{partition}/{offset}")
        if taken.timestamp is None:
            kind, milliseconds = message.timestamp()
            if kind != TIMESTAMP_NOT_AVAILABLE:
                taken = taken._replace(timestamp=milliseconds / 1000)
        return Delivery(taken, (offsets, offset, len(data) + HEADER * len(flat)))

    def _hear(self, error: KafkaError) -> None:
        """What comes in place of a message: most of it passes, and is said once."""
        found = fault(error)
        if error.fatal() or getattr(found, "reason", "") in ("not allowed", "credentials"):
            raise KafkaException(error)
        if error.code() not in self._said:
            self._said.add(error.code())
            _log.info("%s: %s", self._name, error.str())

    def _error(self, error: KafkaError) -> None:
        self.tell(self._on_error, error)

    # -- what is settled ------------------------------------------------------------------------

    def _take_settled(self) -> None:
        settled = self._settled
        while settled:
            offsets, offset, size = settled.popleft()
            self._in_flight -= 1
            self._bytes -= size
            offsets.settle(offset)

    def _keep_books(self) -> None:
        now = time.monotonic()
        if now >= self._next_commit and not self._committing:
            self._next_commit = now + COMMIT_EVERY
            places = self._commitable(self._assigned)
            if places:
                self._committing = True
                self._consumer.commit(offsets=places, asynchronous=True)
        if now >= self._next_lag:
            self._next_lag = now + LAG_EVERY
            self.tell(self._set_lag, self._behind())

    def _commitable(self, places: Iterable[_Place]) -> list[TopicPartition]:
        found = []
        for place in places:
            offset = self._assigned[place].commitable()
            if offset is not None:
                found.append(TopicPartition(*place, offset))
        return found

    def _commit_ended(self, error: KafkaError | None, places: Sequence[TopicPartition]) -> None:
        self._committing = False
        for place in places:
            offsets = self._assigned.get((place.topic, place.partition))
            if error is None and place.error is None and offsets is not None:
                offsets.committed(place.offset)
        # What was not committed still is commitable, and will be in the next round.

    def _behind(self) -> int:
        behind = 0
        for (topic, partition), offsets in self._assigned.items():
            _, end = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
            at = offsets.position
            if at is None:
                at = self._starts.get((topic, partition), end)
            behind += max(0, end - at)
        return behind

    def _set_lag(self, lag: int) -> None:
        self.lag = lag

    # -- who reads what -------------------------------------------------------------------------

    def _assign(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        if places:
            known = consumer.committed(places, timeout=ASK_WITHIN)
            begun = self._begin([place for place in known if place.offset < 0])
            for place in [*known, *begun]:
                self._starts[place.topic, place.partition] = max(0, place.offset)
            if begun:
                # librdkafka goes on from what is committed, so this is also how it learns where to begin.
                consumer.commit(offsets=begun, asynchronous=False)
        for place in places:
            self._assigned[place.topic, place.partition] = Offsets()
        self.tell(self.live.set)

    def _begin(self, places: list[TopicPartition]) -> list[TopicPartition]:
        """Where partitions begin that the group never read."""
        if not places:
            return []
        asked = []
        for place in places:
            came_later = place.partition >= self._existing.get(place.topic, 0)
            wanted = OFFSET_BEGINNING if self._from_start or came_later else OFFSET_END
            asked.append(TopicPartition(place.topic, place.partition, wanted))
        # ListOffsets takes these two instead of a time.
        found: list[TopicPartition] = self._consumer.offsets_for_times(asked, timeout=ASK_WITHIN)
        for place in found:
            if place.error is not None:
                raise KafkaException(place.error)
        return found

    def _revoke(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        """Let the mesh finish what it was given of them, and commit that, before another begins."""
        mine = [(place.topic, place.partition) for place in places]
        mine = [place for place in mine if place in self._assigned]
        end = time.monotonic() + REVOKE_WITHIN
        while not self._stop and any(self._assigned[place].in_flight for place in mine):
            if time.monotonic() > end:
                break
            self._nudge.wait(POLL)
            self._nudge.clear()
            self._take_settled()
        settled = self._commitable(mine)
        if settled and not self._stop:  # when we close, that was done already
            try:
                consumer.commit(offsets=settled, asynchronous=False)
            except KafkaException as error:
                _log.info("%s: some messages will come twice: %s", self._name, error.args[0].str())
        self._forget(mine)

    def _lose(self, _: Consumer, places: list[TopicPartition]) -> None:
        """The group went on without us: nothing of them is ours to commit."""
        self._forget([(place.topic, place.partition) for place in places])

    def _forget(self, places: Iterable[_Place]) -> None:
        for place in places:
            offsets = self._assigned.pop(place, None)
            self._starts.pop(place, None)
            if offsets is not None:
                offsets.revoked = True

    def _close(self) -> None:
        self._stop = True
        self._take_settled()
        try:
            places = self._commitable(self._assigned)
            if places:
                # Not the blocking commit: it would wait for a broker that is gone.
                self._committing = True
                self._consumer.commit(offsets=places, asynchronous=True)
                end = time.monotonic() + CLOSE_WITHIN
                while self._committing and time.monotonic() < end:
                    self._consumer.consume(1, POLL)  # nothing that comes now is taken, so it will come again
        finally:
            self._consumer.close()
