"""The adapter of Kafka, Kafka → mesh, against a real broker, fed by another client."""

from __future__ import annotations

import threading
from functools import partial

import trio

from bridges.base import CLOSE_WITHIN, Receiver
from bridges.messages import BrokerMessage
from tests.bridges.kafka_broker import Broker
from tests.bridges.kafka_clients import (
    committed,
    connected,
    create,
    fresh,
    produce,
    receive,
    records,
    settings,
    until,
    values,
)


def numbers(first: int, last: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, last)]


async def test_a_record_arrives_with_all_it_has(kafka: Broker) -> None:
    topic = fresh()
    await create(kafka.address, topic)
    bridge = settings(kafka.address, import_=[{"from": topic, "topic": "in/{topic}"}])
    async with connected(bridge) as session, session.receive(bridge.imports[0]) as receiver:
        headers = [("unit", "°C".encode()), ("content-type", b"text/plain"), ("odd", b"\xff")]
        await produce(
            kafka.address,
            topic,
            [(b"k\xc3\xa9y", b"\x00\xff")],
            headers=headers,
            timestamp_ms=1_700_000_000_250,
        )
        await produce(kafka.address, topic, [(b"key", None), b"second"])
        first, tombstone, second = await receive(receiver, 3)
    assert (first.message.destination, first.message.data, first.message.key) == (topic, b"\x00\xff", "kéy")
    assert first.message.headers == {"unit": "°C", "odd": "�"}
    assert first.message.content_type == "text/plain"
    assert first.message.timestamp == 1_700_000_000.25
    assert tombstone.message.data == b""
    # An id of its own, the same whoever reads it: cluster, topic, partition, offset.
    assert second.message.message_id.endswith(f"/{topic}/0/2")
    assert first.message.message_id != second.message.message_id


async def test_live_from_entering_and_what_was_there_before_is_past(kafka: Broker) -> None:
    topic = fresh()
    await produce(kafka.address, topic, numbers(0, 5))
    past = {"from": topic, "topic": "x", "start": "earliest"}
    bridge = settings(kafka.address, import_=[{"from": topic, "topic": "x"}, past])
    async with connected(bridge) as session:
        async with session.receive(bridge.imports[0]) as receiver:
            await produce(kafka.address, topic, numbers(5, 10))
            assert values(await receive(receiver, 5)) == numbers(5, 10)
        async with session.receive(bridge.imports[1]) as receiver:
            assert values(await receive(receiver, 10)) == numbers(0, 10)


async def test_topics_that_come_later_match_the_pattern_and_are_read_from_their_beginning(
    kafka: Broker,
) -> None:
    word = fresh("sensor")
    await create(kafka.address, f"{word}.cellar")
    bridge = settings(kafka.address, import_=[{"from": f"{word}.*", "topic": "in/{1}"}])
    async with connected(bridge) as session, session.receive(bridge.imports[0]) as receiver:
        await produce(kafka.address, f"{word}.attic", [b"new topic"])
        await produce(kafka.address, f"{word}.cellar", [b"old topic"])
        await produce(kafka.address, f"{word}x.other", [b"not asked for"])
        found = {d.message.destination: d.message.data for d in await receive(receiver, 2)}
    assert found == {f"{word}.attic": b"new topic", f"{word}.cellar": b"old topic"}


async def test_a_topic_that_does_not_exist_yet_is_awaited(kafka: Broker) -> None:
    topic = fresh()
    bridge = settings(kafka.address, import_=[{"from": topic, "topic": "x"}])
    async with connected(bridge) as session, session.receive(bridge.imports[0]) as receiver:
        await produce(kafka.address, topic, [b"first ever"])
        assert values(await receive(receiver, 1)) == [b"first ever"]


async def test_what_was_not_acknowledged_comes_again_and_nothing_else(kafka: Broker) -> None:
    topic, group = fresh(), fresh("group")
    await create(kafka.address, topic)
    bridge = settings(
        kafka.address, import_=[{"from": topic, "topic": "x", "reliable": True, "group": group}]
    )
    async with connected(bridge) as session, session.receive(bridge.imports[0]) as receiver:
        await produce(kafka.address, topic, numbers(0, 10))
        found = await receive(receiver, 10, acknowledge=False)
        await receiver.acknowledge(found[:3])
        # Settled out of order: kept, but nothing behind a gap is committed.
        await receiver.acknowledge(found[5:7])
        await until(partial(committed, kafka.address, group, topic), lambda offset: offset == 3)
    assert await committed(kafka.address, group, topic) == 3
    async with connected(bridge) as session, session.receive(bridge.imports[0]) as receiver:
        assert values(await receive(receiver, 7)) == numbers(3, 10)
    assert await committed(kafka.address, group, topic) == 10


async def test_on_a_route_that_is_not_reliable_what_was_handed_over_is_done(kafka: Broker) -> None:
    topic, group = fresh(), fresh("group")
    await create(kafka.address, topic)
    bridge = settings(kafka.address, import_=[{"from": topic, "topic": "x", "group": group}])
    async with connected(bridge) as session, session.receive(bridge.imports[0]) as receiver:
        await produce(kafka.address, topic, numbers(0, 10))
        await receive(receiver, 10, acknowledge=False)
        await until(partial(committed, kafka.address, group, topic), lambda offset: offset == 10)


async def test_a_bridge_that_died_before_its_first_message_goes_on_where_it_began(kafka: Broker) -> None:
    topic = fresh()
    await produce(kafka.address, topic, numbers(0, 5))
    bridge = settings(kafka.address, import_=[{"from": topic, "topic": "x", "reliable": True}])
    async with connected(bridge) as session, session.receive(bridge.imports[0]):
        pass
    await produce(kafka.address, topic, numbers(5, 10))  # nobody listens
    async with connected(bridge) as session, session.receive(bridge.imports[0]) as receiver:
        assert values(await receive(receiver, 5)) == numbers(5, 10)


async def test_two_bridges_share_a_route_and_hand_over_without_loss_or_double(kafka: Broker) -> None:
    topic = fresh()
    await create(kafka.address, topic, partitions=4)
    bridge = settings(kafka.address, import_=[{"from": topic, "topic": "x", "reliable": True}])
    found: dict[str, list[int]] = {"first": [], "second": []}

    async def read(name: str, receiver: Receiver) -> None:
        while True:
            deliveries = await receiver.receive()
            await trio.sleep(0.01)  # the mesh takes its time: some are in flight whatever happens
            found[name] += map(int, values(deliveries))
            await receiver.acknowledge(deliveries)

    async def feed(first: int, last: int) -> None:
        """Over many keys, and so over all partitions."""
        await produce(kafka.address, topic, [(b"key-%d" % (n % 31), b"%d" % n) for n in range(first, last)])

    async def everything(last: int) -> None:
        async def heard() -> set[int]:
            return set(found["first"] + found["second"])

        await until(heard, set(range(last)).issubset)

    async with (
        connected(bridge) as one,
        one.receive(bridge.imports[0]) as first,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(read, "first", first)
        await feed(0, 500)
        nursery.start_soon(feed, 500, 1000)  # while the second comes
        last = 1000
        async with (
            connected(bridge) as two,
            two.receive(bridge.imports[0]) as second,
            trio.open_nursery() as inner,
        ):
            inner.start_soon(read, "second", second)
            with trio.fail_after(60):
                while not found["second"]:
                    await feed(last, last + 31)
                    last += 31
            await feed(last, last + 500)
            last += 500
            await everything(last)
            inner.cancel_scope.cancel()
        # The second is gone: its share comes back, from where it had committed.
        await feed(last, last + 500)
        await everything(last + 500)
        nursery.cancel_scope.cancel()
    assert sorted(found["first"] + found["second"]) == list(range(last + 500))


async def test_a_slow_mesh_holds_the_broker_back_and_stays_a_member(kafka: Broker) -> None:
    topic = fresh()
    await create(kafka.address, topic)
    bridge = settings(kafka.address, import_=[{"from": topic, "topic": "x", "reliable": True}])
    total = 6000  # more than the window
    async with connected(bridge) as session, session.receive(bridge.imports[0]) as receiver:
        await produce(kafka.address, topic, numbers(0, total))
        first = await receiver.receive()
        await until(receiver.lag, lambda lag: lag == total)
        await trio.sleep(2)  # longer than a full window is waited for: the partitions are paused
        await receiver.acknowledge(first)
        rest = await receive(receiver, total - len(first))
        assert values(first) + values(rest) == numbers(0, total)
        assert await until(receiver.lag, lambda lag: lag == 0) == 0


async def test_a_dead_letter_goes_where_the_route_says_and_is_settled(kafka: Broker) -> None:
    topic, graves, group = fresh(), fresh("graves"), fresh("group")
    await create(kafka.address, topic, graves)
    bridge = settings(
        kafka.address,
        import_=[{"from": topic, "topic": "x", "reliable": True, "group": group, "dead_letter": graves}],
    )
    async with connected(bridge) as session, session.receive(bridge.imports[0]) as receiver:
        await produce(kafka.address, topic, [(b"k", b"not json"), (b"k", b"{}")], headers=[("a", b"b")])
        poison, good = await receive(receiver, 2, acknowledge=False)
        await receiver.reject(poison, "no JSON")
        await receiver.acknowledge([good])
    assert await committed(kafka.address, group, topic) == 2
    [letter] = await records(kafka.address, graves)
    assert (letter.key, letter.value) == (b"k", b"not json")
    assert letter.headers["mesh-rejected"] == b"no JSON"
    assert letter.headers["mesh-origin"] == topic.encode()
    assert letter.headers["a"] == b"b"


async def test_leaving_ends_the_thread_even_when_cancelled(kafka: Broker) -> None:
    topic = fresh()
    await create(kafka.address, topic)
    bridge = settings(kafka.address, import_=[{"from": topic, "topic": "x"}])
    with trio.move_on_after(5) as scope:
        async with connected(bridge) as session, session.receive(bridge.imports[0]) as receiver:
            assert any(thread.name.startswith("kafka-consumer") for thread in threading.enumerate())
            scope.cancel()
            await receiver.receive()
    assert scope.cancelled_caught
    assert not await kafka_threads()


async def test_leaving_takes_no_longer_when_the_broker_hangs(kafka: Broker) -> None:
    topic = fresh()
    await create(kafka.address, topic)
    bridge = settings(
        kafka.address,
        export=[{"pattern": "**", "to": topic}],
        import_=[{"from": topic, "topic": "x", "reliable": True}],
    )
    try:
        async with connected(bridge) as session:
            async with session.receive(bridge.imports[0]) as receiver, trio.open_nursery() as nursery:
                await produce(kafka.address, topic, [b"taken"])
                taken = await receive(receiver, 1, acknowledge=False)
                kafka.freeze()
                await receiver.acknowledge(taken)  # can't be committed any more
                nursery.start_soon(session.send, bridge.exports[0], [BrokerMessage(topic, b"x")] * 100)
                await trio.sleep(0.5)
                nursery.cancel_scope.cancel()
                began = trio.current_time()
            assert trio.current_time() - began < 2 * CLOSE_WITHIN
            began = trio.current_time()
        assert trio.current_time() - began < 2 * CLOSE_WITHIN
    finally:
        kafka.thaw()
    # A thread that hung inside librdkafka ends by itself, now that it is answered.
    await until(kafka_threads, lambda names: not names)


async def kafka_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("kafka-")]
