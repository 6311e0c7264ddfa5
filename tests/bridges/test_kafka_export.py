"""The adapter of Kafka, mesh → Kafka, against a real broker and looked at by another client."""

from __future__ import annotations

import time

import pytest
import trio

from bridges.base import BrokerRejected, BrokerUnavailable
from bridges.kafka.broker import _KafkaSession
from bridges.messages import BrokerMessage
from bridges.settings import BridgeSettings
from tests.bridges.kafka_broker import PASSWORD, USER, Broker
from tests.bridges.kafka_clients import WITHIN, connected, create, fresh, records, settings


def message(topic: str, data: bytes, **fields: object) -> BrokerMessage:
    return BrokerMessage(topic, data, **fields)  # type: ignore[arg-type]


async def test_a_record_has_value_key_headers_and_time(kafka: Broker) -> None:
    topic = fresh()
    bridge = settings(kafka.address)
    sent = message(
        topic, b"\x00\xff", key="home/kitchen", headers={"unit": "°C"}, content_type="application/json",
        message_id="m-1", timestamp=1_700_000_000.25,
    )  # fmt: skip
    async with connected(bridge) as session:
        assert await session.send(bridge.exports[0], [sent]) == {}
    [record] = await records(kafka.address, topic)
    assert (record.value, record.key, record.timestamp) == (b"\x00\xff", b"home/kitchen", 1_700_000_000.25)
    assert record.headers == {
        "unit": "°C".encode(),
        "content-type": b"application/json",
        "message-id": b"m-1",
        "timestamp": b"1700000000.25",
    }


async def test_messages_of_one_key_stay_in_order_in_one_partition(kafka: Broker) -> None:
    topic = fresh()
    await create(kafka.address, topic, partitions=4)
    bridge = settings(kafka.address)
    numbered = [message(topic, b"%d" % n, key=f"room-{n % 7}") for n in range(1000)]
    async with connected(bridge) as session:
        for at in range(0, 1000, 100):
            await session.send(bridge.exports[0], numbered[at : at + 100])
    found = await records(kafka.address, topic)
    assert len(found) == 1000
    for room in range(7):
        mine = [record for record in found if record.key == b"room-%d" % room]
        assert [int(record.value) for record in mine] == list(range(room, 1000, 7))
        assert len({record.partition for record in mine}) == 1
    assert len({record.partition for record in found}) > 1


async def test_a_route_may_name_the_partition(kafka: Broker) -> None:
    topic = fresh()
    await create(kafka.address, topic, partitions=3)
    bridge = settings(
        kafka.address, export=[{"pattern": "zone/*/**", "to": topic, "partition": "{1}", "key": "{topic}"}]
    )
    async with connected(bridge) as session:
        refused = await session.send(
            bridge.exports[0],
            [
                message(topic, b"2", filled={"partition": "2"}),
                message(topic, b"nowhere", filled={"partition": "north"}),
                message(topic, b"beyond", filled={"partition": "9"}),
                message(topic, b"1", filled={"partition": "1"}),
            ],
        )
    assert {index: error.reason for index, error in refused.items()} == {
        1: "no such partition",
        2: "no such partition",
    }
    assert {(record.partition, record.value) for record in await records(kafka.address, topic)} == {
        (1, b"1"),
        (2, b"2"),
    }


async def test_what_the_broker_refuses_is_said_and_the_rest_arrives(kafka: Broker) -> None:
    topic, small = fresh(), fresh("small")
    await create(kafka.address, small, **{"max.message.bytes": "1000"})
    bridge = settings(kafka.address)
    async with connected(bridge) as session:
        refused = await session.send(
            bridge.exports[0],
            [
                message(topic, b"first"),
                message(topic, bytes(2_000_000)),  # over what librdkafka sends
                message(small, bytes(5_000)),  # over what the topic takes
                message("no/such name", b""),
                message(topic, b"last"),
            ],
        )
    assert [(index, refused[index].reason) for index in sorted(refused)] == [
        (1, "too large"),
        (2, "too large"),
        (3, "invalid topic"),
    ]
    assert [record.value for record in await records(kafka.address, topic)] == [b"first", b"last"]


async def test_a_full_queue_makes_the_sender_wait(kafka: Broker) -> None:
    topic = fresh()
    bridge = settings(kafka.address, options={"queue.buffering.max.messages": 10})
    async with connected(bridge) as session:
        assert await session.send(bridge.exports[0], [message(topic, b"%d" % n) for n in range(500)]) == {}
    assert [int(record.value) for record in await records(kafka.address, topic)] == list(range(500))


async def test_tls_and_a_password_are_passed_through(kafka: Broker) -> None:
    topic = fresh()
    table = {
        "url": f"kafkas://{USER}:{PASSWORD}@{kafka.secure}",
        "tls": {"ca": str(kafka.authority)},
    }
    bridge = settings(kafka.address, **table)
    async with connected(bridge) as session:
        assert await session.send(bridge.exports[0], [message(topic, b"sealed")]) == {}
    assert [record.value for record in await records(kafka.address, topic)] == [b"sealed"]

    by_options = settings(
        kafka.address,
        url=f"kafka://{kafka.secure}",
        options={
            "security.protocol": "SASL_SSL", "sasl.mechanisms": "PLAIN", "sasl.username": USER,
            "sasl.password": PASSWORD, "ssl.ca.location": str(kafka.authority),
        },
    )  # fmt: skip
    async with connected(by_options) as session:
        assert await session.send(by_options.exports[0], [message(topic, b"too")]) == {}


async def test_a_wrong_password_is_said_at_once_and_never_shown(
    kafka: Broker, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(0)
    wrong = "canary-wrong-password"
    bridge = settings(
        kafka.address, url=f"kafkas://{USER}:{wrong}@{kafka.secure}", tls={"ca": str(kafka.authority)}
    )
    with pytest.raises(BrokerRejected) as caught:
        async with connected(bridge):
            raise AssertionError("it connected")
    assert caught.value.reason == "credentials"
    out, err = capfd.readouterr()
    for text in (str(caught.value), repr(bridge), caplog.text, out, err):
        assert wrong not in text


async def test_a_broker_that_cannot_prove_itself_is_not_believed(kafka: Broker, tmp_path) -> None:  # type: ignore[no-untyped-def]
    other = Broker(tmp_path)  # its authority signed nothing that is running
    bridge = settings(
        kafka.address, url=f"kafkas://{USER}:{PASSWORD}@{kafka.secure}", tls={"ca": str(other.authority)}
    )
    with pytest.raises(BrokerUnavailable, match=r"certificate"):
        async with connected(bridge):
            raise AssertionError("it connected")


async def test_nobody_there_is_said_within_the_time() -> None:
    bridge = settings("127.0.0.1:1")
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable, match="refused"):
        async with connected(bridge):
            raise AssertionError("it connected")
    assert time.monotonic() - began < 30


async def test_a_cancelled_send_leaves_nothing_under_way(kafka: Broker) -> None:
    bridge = settings(kafka.address)
    async with connected(bridge) as session:
        with trio.move_on_after(0.5) as scope:
            while True:
                await session.send(bridge.exports[0], [message(fresh(), bytes(1000)) for _ in range(500)])
        assert scope.cancelled_caught
        assert isinstance(session, _KafkaSession)
    assert len(session.producing.producer) == 0


async def test_batches_follow_each_other_in_order(kafka: Broker) -> None:
    """Handed over while those before are on their way, and each hears its own outcome."""
    topic = fresh()
    await create(kafka.address, topic)
    bridge = settings(kafka.address)
    async with connected(bridge) as session:
        outcomes = [
            await session.begin(
                bridge.exports[0],
                [*(message(topic, b"%d" % n) for n in range(at, at + 50)), message(topic, bytes(2_000_000))],
            )
            for at in range(0, 1000, 50)
        ]
        for outcome in outcomes:
            assert {index: error.reason for index, error in (await outcome()).items()} == {50: "too large"}
    assert [int(record.value) for record in await records(kafka.address, topic)] == list(range(1000))


async def test_what_was_under_way_when_the_connection_ended_is_in_doubt(kafka: Broker) -> None:
    bridge = settings(kafka.address, options={"linger.ms": 60_000})  # so that nothing leaves by itself
    async with connected(bridge) as session:
        outcome = await session.begin(bridge.exports[0], [message(fresh(), b"x")])
    with pytest.raises(BrokerUnavailable):
        await outcome()


# -- transactions ----------------------------------------------------------------------------


async def transactional(address: str, name: str) -> BridgeSettings:
    """Settings of a bridge whose first connection has been: a broker's first transaction takes it a while."""
    bridge = settings(address, options={"transactional.id": name})
    with trio.fail_after(WITHIN):
        while True:
            try:
                async with connected(bridge):
                    return bridge
            except BrokerUnavailable:
                pass  # as the engine has it: again


async def test_a_transaction_is_seen_whole_or_not_at_all(kafka: Broker) -> None:
    topic = fresh()
    await create(kafka.address, topic, partitions=2)
    bridge = await transactional(kafka.address, fresh("tx"))
    async with connected(bridge) as session:
        assert await session.send(bridge.exports[0], [message(topic, b"%d" % n) for n in range(50)]) == {}
        # One that is refused takes its transaction along; the others come in another.
        refused = await session.send(
            bridge.exports[0],
            [message(topic, b"50"), message(topic, bytes(2_000_000)), message(topic, b"51")],
        )
        assert list(refused) == [1]
        assert refused[1].reason == "too large"
    found = await records(kafka.address, topic, committed_only=True)
    assert sorted(int(record.value) for record in found) == list(range(52))


async def test_a_message_that_the_broker_refuses_aborts_and_the_others_are_sent_again(kafka: Broker) -> None:
    topic, small = fresh(), fresh("small")
    await create(kafka.address, topic)
    await create(kafka.address, small, **{"max.message.bytes": "1000"})
    bridge = await transactional(kafka.address, fresh("tx"))
    async with connected(bridge) as session:
        refused = await session.send(
            bridge.exports[0],
            [message(topic, b"a"), message(small, bytes(5_000)), message(topic, b"b")],
        )
        assert [error.reason for error in refused.values()] == ["too large"]
    found = await records(kafka.address, topic, committed_only=True)
    assert [record.value for record in found] == [b"a", b"b"]


async def test_a_transaction_that_was_cut_off_shows_nothing(kafka: Broker) -> None:
    topic = fresh()
    await create(kafka.address, topic)
    bridge = await transactional(kafka.address, fresh("tx"))
    async with connected(bridge) as session:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    session.send, bridge.exports[0], [message(topic, b"lost%d" % n) for n in range(500)]
                )
                await trio.lowlevel.checkpoint()
                scope.cancel()
    # Who comes after it with the same name ends what it left, and goes on.
    async with connected(bridge) as session:
        assert await session.send(bridge.exports[0], [message(topic, b"kept")]) == {}
    found = await records(kafka.address, topic, committed_only=True)
    assert [record.value for record in found] in ([b"kept"], [b"lost%d" % n for n in range(500)] + [b"kept"])
