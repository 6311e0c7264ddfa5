"""RabbitMQ's adapter against a real node, watched by another client: what AMQP has and other brokers have not."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pika
import pytest
import trio

from bridges.base import Broker, BrokerRejected, BrokerUnavailable, Delivery, Receiver, Session
from bridges.config import read_bridge
from bridges.messages import BrokerMessage
from bridges.rabbitmq import KIND
from bridges.rabbitmq.consuming import queue_name
from bridges.settings import BridgeSettings
from tests.bridges import rabbitmq_broker
from tests.bridges.rabbitmq_client import Outsider, outsider

IDENTITY = "0123456789abcdef"

PATIENCE = 60.0
"""Seconds for what happens at once on an idle machine."""


@pytest.fixture
def client(rabbitmq: rabbitmq_broker.Broker) -> Iterator[Outsider]:
    with outsider(rabbitmq.url) as each:
        yield each


@pytest.fixture
def word() -> str:
    """A first level that no other test uses."""
    return f"t{uuid4().hex[:8]}"


def settings(url: str, **document: Any) -> BridgeSettings:
    return read_bridge({"kind": "rabbitmq", "url": url, **document})


def export(to: str = "{topic}", **route: Any) -> dict[str, Any]:
    return {"export": [{"pattern": "**", "to": to, **route}]}


def imports(source: str, **route: Any) -> dict[str, Any]:
    return {"import": [{"from": source, "topic": "{topic}", **route}]}


@asynccontextmanager
async def connected(chosen: BridgeSettings | Broker) -> AsyncIterator[Session]:
    broker = chosen if isinstance(chosen, Broker) else KIND.make(chosen, IDENTITY)
    async with trio.open_nursery() as nursery:
        with trio.fail_after(PATIENCE):
            session = await nursery.start(_serve, broker)
        yield session
        nursery.cancel_scope.cancel()


@contextmanager
def suppress_lost() -> Iterator[None]:
    try:
        yield
    except* BrokerUnavailable:
        pass


async def _serve(broker: Broker, *, task_status: trio.TaskStatus[Session]) -> None:
    await broker.run(task_status=task_status)


async def receive(receiver: Receiver, count: int) -> list[Delivery]:
    got: list[Delivery] = []
    with trio.fail_after(PATIENCE):
        while len(got) < count:
            got += await receiver.receive()
    return got


# -- export ----------------------------------------------------------------------------------


async def test_a_message_goes_to_amq_topic_with_its_properties(
    rabbitmq: rabbitmq_broker.Broker, client: Outsider, word: str
) -> None:
    queue = await client.queue(f"{word}.#")
    chosen = settings(rabbitmq.url, **export())
    message = BrokerMessage(
        f"{word}.kitchen",
        b'{"t": 21.5}',
        headers={"unit": "°C", "traceparent": "00-1-2-01", "content-encoding": "identity"},
        content_type="application/json",
        message_id="m1",
        timestamp=1700000000.25,
    )
    async with connected(chosen) as session:
        assert not await session.send(chosen.exports[0], [message])
        [got] = await client.take(queue)
    assert (got.key, got.body) == (f"{word}.kitchen", b'{"t": 21.5}')
    assert got.properties.content_type == "application/json"
    assert got.properties.content_encoding == "identity"
    assert got.properties.message_id == "m1"
    assert got.properties.timestamp == 1700000000
    assert got.properties.delivery_mode == 1
    assert dict(got.headers) == {
        "unit": "°C",
        "traceparent": "00-1-2-01",
        "timestamp_in_ms": 1700000000250,
    }


async def test_a_reliable_route_is_persistent_ordered_and_tells_what_nobody_takes(
    rabbitmq: rabbitmq_broker.Broker, client: Outsider, word: str
) -> None:
    queue = await client.queue(f"{word}.kept", name=f"{word}-kept")
    chosen = settings(rabbitmq.url, **export(reliable=True))
    messages = [
        BrokerMessage(
            f"{word}.{'lost' if number % 10 == 3 else 'kept'}", b"%d" % number, message_id=f"{number}"
        )
        for number in range(300)
    ]
    async with connected(chosen) as session:
        refused = await session.send(chosen.exports[0], messages)
        got = await client.take(queue, 270)
    assert sorted(refused) == [number for number in range(300) if number % 10 == 3]
    assert {fault.reason for fault in refused.values()} == {"unroutable"}
    assert [int(each.body) for each in got] == [number for number in range(300) if number % 10 != 3]
    assert {each.properties.delivery_mode for each in got} == {2}


async def test_twins_are_told_apart(rabbitmq: rabbitmq_broker.Broker, client: Outsider, word: str) -> None:
    """A returned message is known by its message id alone, and a mesh program may have set that itself."""
    await client.queue(f"{word}.kept")
    chosen = settings(rabbitmq.url, **export(reliable=True))
    messages = [BrokerMessage(f"{word}.{name}", b"", message_id="same") for name in ("lost", "kept", "lost")]
    async with connected(chosen) as session:
        assert sorted(await session.send(chosen.exports[0], messages)) == [0, 2]


async def test_what_is_not_mandatory_may_go_to_nobody(rabbitmq: rabbitmq_broker.Broker, word: str) -> None:
    chosen = settings(rabbitmq.url, **export(reliable=True, mandatory=False))
    async with connected(chosen) as session:
        assert not await session.send(chosen.exports[0], [BrokerMessage(f"{word}.x", b"")])


@pytest.mark.parametrize("kind", ["direct", "fanout", "headers"])
async def test_other_exchanges_are_declared_and_used_both_ways(
    rabbitmq: rabbitmq_broker.Broker, client: Outsider, word: str, kind: str
) -> None:
    exchange = f"{word}-{kind}"
    where = {"exchange": exchange, "exchange_type": kind}
    extra = {"headers": {"region": "eu", "x-match": "all"}} if kind == "headers" else {}
    chosen = settings(rabbitmq.url, **export("orders", **where), **imports("orders", **where, **extra))
    async with connected(chosen) as session, session.receive(chosen.imports[0]) as receiver:
        sent = [
            BrokerMessage("orders", b"here", headers={"region": "eu"}),
            BrokerMessage("elsewhere", b"there", headers={"region": "us"}),
            BrokerMessage("orders", b"end", headers={"region": "eu"}),
        ]
        assert not await session.send(chosen.exports[0], sent)
        wanted = [b"here", b"there", b"end"] if kind == "fanout" else [b"here", b"end"]
        got = await receive(receiver, len(wanted))
    assert [each.message.data for each in got] == wanted


async def test_a_work_queue_is_declared_for_an_export(
    rabbitmq: rabbitmq_broker.Broker, client: Outsider, word: str
) -> None:
    chosen = settings(rabbitmq.url, **export(word, reliable=True, queue=f"{word}-work"))
    async with connected(chosen) as session:
        assert not await session.send(chosen.exports[0], [BrokerMessage(word, b"job")])
    [got] = await client.take(f"{word}-work")
    assert got.body == b"job"


async def test_the_default_exchange_is_an_empty_name(
    rabbitmq: rabbitmq_broker.Broker, client: Outsider, word: str
) -> None:
    queue = await client.queue("", exchange="", name=word)
    chosen = settings(rabbitmq.url, **export(exchange="", reliable=True))
    async with connected(chosen) as session:
        assert not await session.send(chosen.exports[0], [BrokerMessage(word, b"job")])
    [got] = await client.take(queue)
    assert got.body == b"job"


@pytest.mark.parametrize("reliable", [False, True])
async def test_what_the_broker_refuses_is_refused_alone(
    rabbitmq: rabbitmq_broker.Broker, client: Outsider, word: str, reliable: bool
) -> None:
    """A header beyond a frame would cost the connection; an exchange that is not there costs the channel."""
    queue = await client.queue(f"{word}.#")
    document = {
        "export": [
            {"pattern": "**", "to": "{topic}", "reliable": reliable},
            {"pattern": "**", "to": "{topic}", "reliable": reliable, "exchange": f"{word}-missing"},
        ]
    }
    chosen = settings(rabbitmq.url, **document)
    good, missing = chosen.exports
    async with connected(chosen) as session:
        messages = [
            BrokerMessage(f"{word}.1", b"", headers={"big": "x" * 200_000}),
            BrokerMessage(f"{word}.2", b"", headers={"n" * 300: "x"}),
            BrokerMessage(f"{word}.3", b"", message_id="i" * 256),
            BrokerMessage(f"{word}.4", b"good"),
        ]
        refused = await session.send(good, messages)
        assert {place: fault.reason for place, fault in refused.items()} == {
            0: "header too large",
            1: "header too large",
            2: "property too large",
        }
        refused = await session.send(missing, [BrokerMessage("a", b""), BrokerMessage("b", b"")])
        assert {place: fault.reason for place, fault in refused.items()} == {0: "not found", 1: "not found"}
        assert not await session.send(good, [BrokerMessage(f"{word}.5", b"still here")])
        assert [each.body for each in await client.take(queue, 2)] == [b"good", b"still here"]


@pytest.mark.parametrize("reliable", [False, True])
async def test_the_one_that_costs_the_channel_is_found(
    rabbitmq: rabbitmq_broker.Broker, client: Outsider, word: str, reliable: bool
) -> None:
    """RabbitMQ checks a user's rights to a routing key when it is used, and closes the channel."""
    queue = await client.queue(f"{word}.#")
    account = f"{rabbitmq_broker.NARROW_USER}:{rabbitmq_broker.PASSWORD}"
    chosen = settings(f"amqp://{account}@127.0.0.1:{rabbitmq.port}", **export(reliable=reliable))
    [route] = chosen.exports
    broker = KIND.make(chosen, IDENTITY)
    keys = ["good.1", "evil", "good.2", "good.3"]
    messages = [BrokerMessage(f"{word}.{key}", key.encode(), message_id=key) for key in keys]
    refused: Mapping[int, BrokerRejected] = {}
    with trio.fail_after(PATIENCE):
        while not refused:
            # What was under way on the channel may cost the connection as well. So it is tried again.
            with suppress_lost():
                async with connected(broker) as session:
                    # Without confirms the broker's no comes after the fact: with a later batch.
                    while not refused:
                        refused = await session.send(route, messages)
                    assert not await session.send(route, [BrokerMessage(f"{word}.good.end", b"end")])
    assert {place: fault.reason for place, fault in refused.items()} == {1: "access refused"}
    seen = []
    while not seen or seen[-1] != b"end":
        seen += [each.body for each in await client.take(queue)]
    # In order; where the batch was sent again a message stands there twice.
    assert list(dict.fromkeys(seen)) == [b"good.1", b"good.2", b"good.3", b"end"]


# -- import ----------------------------------------------------------------------------------


async def test_what_was_not_acknowledged_comes_again(
    rabbitmq: rabbitmq_broker.Broker, client: Outsider, word: str
) -> None:
    chosen = settings(rabbitmq.url, **imports(f"{word}.*", reliable=True))
    route = chosen.imports[0]
    async with connected(chosen) as session:
        async with session.receive(route) as receiver:
            for number in range(10):
                await client.publish(
                    f"{word}.{number}",
                    b"%d" % number,
                    message_id=f"m{number}",
                    headers={"a": 1},
                    timestamp=77,
                )
            got = await receive(receiver, 10)
            assert await receiver.lag() == 10
            await receiver.acknowledge(got[:4])
            assert await receiver.lag() == 6
        message = got[0].message
        assert (message.destination, message.data, message.message_id) == (f"{word}.0", b"0", "m0")
        assert (message.timestamp, dict(message.headers)) == (77.0, {"a": "1"})
        # While nobody reads, the queue keeps what comes.
        await client.publish(f"{word}.10", b"10")
        async with session.receive(route) as receiver:
            again = await receive(receiver, 7)
            await receiver.acknowledge(again)
    assert sorted(int(each.message.data) for each in again) == list(range(4, 11))
    assert await client.depth(queue_name(IDENTITY, route)) == 0


async def test_no_more_than_the_prefetch_waits_here(
    rabbitmq: rabbitmq_broker.Broker, client: Outsider, word: str
) -> None:
    chosen = settings(rabbitmq.url, options={"prefetch": 5}, **imports(word))
    async with connected(chosen) as session, session.receive(chosen.imports[0]) as receiver:
        for number in range(20):
            await client.publish(word, b"%d" % number)
        first = await receive(receiver, 5)
        assert await client.depth(queue_name(IDENTITY, chosen.imports[0])) == 15
        await receiver.acknowledge(first)
        assert len(await receive(receiver, 5)) == 5


async def test_what_cannot_cross_goes_to_the_dead_letters(
    rabbitmq: rabbitmq_broker.Broker, client: Outsider, word: str
) -> None:
    chosen = settings(rabbitmq.url, **imports(f"{word}.#", reliable=True))
    async with connected(chosen) as session, session.receive(chosen.imports[0]) as receiver:
        for number in range(3):
            await client.publish(f"{word}.{number}", b"%d" % number)
        first, second, third = await receive(receiver, 3)
        await receiver.acknowledge([first])
        await receiver.reject(second, "not JSON")
        await receiver.acknowledge([third])
        [dead] = await client.take(f"{queue_name(IDENTITY, chosen.imports[0])}.dead")
        assert await receiver.lag() == 0
    assert dead.body == b"1"
    assert dead.headers["x-death"][0]["reason"] == "rejected"


async def test_dead_letters_go_to_the_exchange_that_was_named(
    rabbitmq: rabbitmq_broker.Broker, client: Outsider, word: str
) -> None:
    await client.do(client.channel.exchange_declare, f"{word}-dlx", "fanout")
    dead = await client.queue("", exchange=f"{word}-dlx")
    chosen = settings(rabbitmq.url, **imports(word, dead_letter=f"{word}-dlx"))
    async with connected(chosen) as session, session.receive(chosen.imports[0]) as receiver:
        await client.publish(word, b"bad")
        [only] = await receive(receiver, 1)
        await receiver.reject(only, "unmappable")
        assert [each.body for each in await client.take(dead)] == [b"bad"]
    missing = settings(rabbitmq.url, **imports(word, dead_letter=f"{word}-nowhere"))
    async with connected(missing) as session:
        with pytest.raises(BrokerRejected, match="not found"):
            async with session.receive(missing.imports[0]):
                pass


async def test_a_queue_that_is_there_is_taken_as_it_is(
    rabbitmq: rabbitmq_broker.Broker, client: Outsider, word: str
) -> None:
    await client.do(client.channel.queue_declare, word, durable=True, arguments={"x-max-priority": 5})
    await client.publish(word, b"before", exchange="")
    chosen = settings(rabbitmq.url, **imports("anything", queue=word, exchange="", reliable=True))
    async with connected(chosen) as session, session.receive(chosen.imports[0]) as receiver:
        [got] = await receive(receiver, 1)
        await receiver.acknowledge([got])
    assert got.message.data == b"before"


async def test_of_two_bridges_one_reads_and_the_other_takes_over(
    rabbitmq: rabbitmq_broker.Broker, client: Outsider, word: str
) -> None:
    chosen = settings(rabbitmq.url, **imports(word, reliable=True))
    route = chosen.imports[0]
    async with connected(chosen) as first, connected(chosen) as second, second.receive(route) as standby:
        # The one that was there first is the active one; then the other takes over, and keeps the order.
        async with first.receive(route) as later:
            for number in range(20):
                await client.publish(word, b"%d" % number)
            active = await receive(standby, 20)
            with trio.move_on_after(0.2) as waited:
                await later.receive()
            assert waited.cancelled_caught
            await standby.acknowledge(active[:15])
        assert [int(each.message.data) for each in active] == list(range(20))
    async with connected(chosen) as third, third.receive(route) as receiver:
        rest = await receive(receiver, 5)
    assert [int(each.message.data) for each in rest] == list(range(15, 20))


async def test_a_deleted_queue_ends_the_receiver(
    rabbitmq: rabbitmq_broker.Broker, client: Outsider, word: str
) -> None:
    chosen = settings(rabbitmq.url, **imports(word))
    async with connected(chosen) as session, session.receive(chosen.imports[0]) as receiver:
        await client.do(client.channel.queue_delete, queue_name(IDENTITY, chosen.imports[0]))
        with pytest.raises(BrokerUnavailable), trio.fail_after(PATIENCE):
            await receiver.receive()


# -- requests --------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [False, True], ids=["by its queue's name", "at amq.topic"])
async def test_a_worker_answers_requests(
    rabbitmq: rabbitmq_broker.Broker, client: Outsider, word: str, bound: bool
) -> None:
    queue = await client.queue(f"{word}.*" if bound else "", exchange="amq.topic" if bound else "", name=word)
    key = f"{word}.double" if bound else word
    chosen = settings(rabbitmq.url, **export(request=True))
    route = chosen.exports[0]

    async def work() -> None:
        for got in await client.take(queue, 3):
            assert 0 < int(got.properties.expiration) <= PATIENCE * 1000
            await client.publish(
                got.properties.reply_to,
                b"%d" % (int(got.body) * 2),
                exchange="",
                mandatory=False,
                correlation_id=got.properties.correlation_id,
                headers={"by": "pika"},
            )

    answers: dict[int, BrokerMessage] = {}
    async with connected(chosen) as session, trio.open_nursery() as nursery:

        async def ask(number: int) -> None:
            answers[number] = await session.request(route, BrokerMessage(key, b"%d" % number), PATIENCE)

        nursery.start_soon(work)
        for number in range(3):
            nursery.start_soon(ask, number)
    assert {number: each.data for number, each in answers.items()} == {0: b"0", 1: b"2", 2: b"4"}
    assert answers[0].headers == {"by": "pika"}


async def test_a_request_that_nobody_takes_is_told_at_once(
    rabbitmq: rabbitmq_broker.Broker, client: Outsider, word: str
) -> None:
    chosen = settings(rabbitmq.url, **export(request=True))
    async with connected(chosen) as session:
        with pytest.raises(BrokerRejected) as told:
            await session.request(chosen.exports[0], BrokerMessage(word, b"?"), PATIENCE)
        assert told.value.reason == "unroutable"
        # A worker that does not answer: its caller gives up, and so does the broker with the request.
        queue = await client.queue(word)
        with pytest.raises(trio.TooSlowError):
            await session.request(chosen.exports[0], BrokerMessage(word, b"?"), 0.05)
        await client.empty(queue)


async def test_requests_of_amqp_clients_are_answered(
    rabbitmq: rabbitmq_broker.Broker, client: Outsider, word: str
) -> None:
    """By direct reply-to and by a queue of the client's own; sent to the queue's name, and to amq.topic."""
    chosen = settings(rabbitmq.url, **imports(word, request=True))
    mine = await client.queue("", exchange="")
    async with connected(chosen) as session, session.receive(chosen.imports[0]) as receiver:
        for number, exchange in enumerate(("", "amq.topic")):
            await client.publish(
                word, b"%d" % number, exchange=exchange, reply_to=mine, correlation_id=f"c{number}"
            )
        requests = await receive(receiver, 2)
        for request in reversed(requests):  # the answer that is ready first goes first
            assert request.message.reply_to == mine
            answer = BrokerMessage("", b"re:" + request.message.data, content_type="text/plain")
            await session.reply(request.message, answer)
            await receiver.acknowledge([request])
        assert await receiver.lag() == 0
        got = await client.take(mine, 2)
        # Nobody waits for this one, which hurts nobody.
        await session.reply(
            BrokerMessage("", b"", reply_to="gone", correlation_id="x"), BrokerMessage("", b"")
        )
        await session.reply(BrokerMessage("", b"", reply_to=mine), BrokerMessage("", b"last"))
        assert [each.body for each in await client.take(mine)] == [b"last"]
    assert [(each.body, each.properties.correlation_id) for each in got] == [(b"re:1", "c1"), (b"re:0", "c0")]
    # The service's queue goes with the last bridge: a client's mandatory request is returned at once.
    with pytest.raises(pika.exceptions.UnroutableError):
        await client.publish(word, b"", exchange="")


# -- connections ------------------------------------------------------------------------------


async def test_who_is_not_let_in_is_told_why_and_no_secret(
    rabbitmq: rabbitmq_broker.Broker, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("", "aiormq", "aio_pika", "asyncio"):
        caplog.set_level(logging.DEBUG, name)
    port, user, password = rabbitmq.port, rabbitmq_broker.USER, rabbitmq_broker.PASSWORD
    for url, reason in (
        (f"amqp://{user}:canary-wrong@127.0.0.1:{port}", "credentials"),
        (f"amqp://{user}:{password}@127.0.0.1:{port}/nowhere", "virtual host"),
    ):
        with pytest.RaisesGroup(BrokerRejected, flatten_subgroups=True) as told:
            async with connected(settings(url, **export())):
                pass
        [fault] = told.value.exceptions
        assert isinstance(fault, BrokerRejected)
        assert fault.reason == reason
        assert "canary" not in str(fault)
    async with connected(settings(rabbitmq.url, **export())):
        pass
    assert "canary" not in caplog.text
    assert password not in repr(settings(rabbitmq.url, **export()))


async def test_tls_is_verified(rabbitmq: rabbitmq_broker.Broker, word: str, tmp_path: Path) -> None:
    verified = settings(rabbitmq.tls_url, tls={"ca": str(rabbitmq.authority)}, **export())
    async with connected(verified) as session:
        assert not await session.send(verified.exports[0], [BrokerMessage(word, b"")])
    # On loopback, and only there, nobody needs an authority; one that is named is asked.
    async with connected(settings(rabbitmq.tls_url, **export())):
        pass
    other = tmp_path / "other"
    other.mkdir()
    rabbitmq_broker.certificate(other)
    with pytest.RaisesGroup(BrokerRejected, flatten_subgroups=True) as told:
        async with connected(settings(rabbitmq.tls_url, tls={"ca": str(other / "server.pem")}, **export())):
            pass
    assert "certificate" in str(told.value.exceptions[0])


async def test_nobody_there_is_unavailable(rabbitmq: rabbitmq_broker.Broker) -> None:
    with pytest.RaisesGroup(BrokerUnavailable, flatten_subgroups=True):
        async with connected(settings("amqp://127.0.0.1:1", **export())):
            pass
    # The first host that answers will do.
    where = f"{rabbitmq_broker.USER}:{rabbitmq_broker.PASSWORD}@127.0.0.1:1,127.0.0.1:{rabbitmq.port}"
    async with connected(settings(f"amqp://{where}", **export())):
        pass


async def test_a_broker_that_hangs_holds_nobody(
    rabbitmq: rabbitmq_broker.Broker, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridges.rabbitmq.broker.CONNECT_WITHIN", 0.5)
    monkeypatch.setattr("bridges.rabbitmq.broker.CLOSE_WITHIN", 0.5)
    chosen = settings(rabbitmq.url, **export(reliable=True), **imports(word))
    threads = threading.active_count()
    begun = time.monotonic()
    try:
        async with connected(chosen) as session, session.receive(chosen.imports[0]):
            rabbitmq.pause()
            with trio.move_on_after(0.5):
                await session.send(chosen.exports[0], [BrokerMessage(word, b"")])
        with suppress_lost():
            async with connected(chosen):
                raise AssertionError("it does not answer")
    finally:
        rabbitmq.resume()
    assert time.monotonic() - begun < PATIENCE / 2
    assert threading.active_count() <= threads + 1  # Trio keeps one of its own for later
