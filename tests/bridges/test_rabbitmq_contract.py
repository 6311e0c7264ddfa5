"""The bridge keeps its contract with a real RabbitMQ node, as pika sees it.

A boot of the node takes some seven seconds of a core.  So the tests that kill the broker in the middle of traffic
kill it indeed; for those that only need it to be away, a relay stands between, which is cut and let be again.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any

import pika
import pytest
import trio

import mesh
from bridges.rabbitmq import KIND
from tests.bridges import rabbitmq_broker
from tests.bridges.contract import (
    CANARY,
    PATIENCE,
    BridgeContract,
    Harness,
    Observer,
    Seen,
    Setting,
    numbers,
    settled,
)
from tests.bridges.contract import setting as setting
from tests.bridges.rabbitmq_client import outsider

AGAIN_AFTER = 0.1
"""Seconds between two tries of the observer to reach a broker that is away."""


class Relay:
    """A port of this machine that leads to the broker, as long as it is not cut."""

    def __init__(self, nursery: trio.Nursery, port: int) -> None:
        self._nursery = nursery
        self._to = port
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self.port = 0

    async def open(self) -> None:
        self._scope, self._ended = trio.CancelScope(), trio.Event()
        self.port = await self._nursery.start(self._serve)

    async def cut(self) -> None:
        """End what stands, and refuse what comes."""
        self._scope.cancel()
        await self._ended.wait()

    async def _serve(self, *, task_status: trio.TaskStatus[int]) -> None:
        with self._scope:
            [listener] = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
            task_status.started(listener.socket.getsockname()[1])
            await trio.serve_listeners(self._relay, [listener])
        self._ended.set()

    async def _relay(self, near: trio.SocketStream) -> None:
        try:
            far = await trio.open_tcp_stream("127.0.0.1", self._to)
        except OSError:
            await near.aclose()
            return
        async with near, far, trio.open_nursery() as nursery:

            async def copy(source: trio.SocketStream, target: trio.SocketStream) -> None:
                with suppress(trio.BrokenResourceError):
                    async for data in source:
                        await target.send_all(data)
                nursery.cancel_scope.cancel()

            nursery.start_soon(copy, near, far)
            nursery.start_soon(copy, far, near)


class RabbitObserver(Observer):
    """Reads a queue of its own; acknowledges what it has, so that nothing is lost with a connection."""

    def __init__(self, url: str, key: str, *, durable: bool) -> None:
        super().__init__()
        self._url = url
        self._durable = durable
        self._key = key
        self._connection: pika.BlockingConnection | None = None
        self._channel: Any = None
        self._queue = ""

    def connect(self) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(self._url))
        self._channel = self._connection.channel()
        name = f"observer.{self._key}" if self._durable else ""
        declared = self._channel.queue_declare(name, durable=self._durable, exclusive=not self._durable)
        self._queue = declared.method.queue
        self._channel.queue_bind(self._queue, "amq.topic", self._key)

    async def more(self) -> None:
        if not await trio.to_thread.run_sync(self._fetch):
            await trio.sleep(AGAIN_AFTER)

    def _fetch(self) -> bool:
        try:
            if self._connection is None:
                self.connect()
            found = False
            while True:
                method, properties, body = self._channel.basic_get(self._queue)
                if method is None:
                    return found
                found = True
                self.seen.append(Seen(method.routing_key, body, flat(properties)))
                self._channel.basic_ack(method.delivery_tag)
        except (pika.exceptions.AMQPError, OSError):
            self._connection = None
            return False

    def close(self) -> None:
        if self._connection is not None and self._connection.is_open:
            if self._durable:
                self._channel.queue_delete(self._queue)
            self._connection.close()


def flat(properties: Any) -> dict[str, str]:
    named = {"content-type": properties.content_type, "message-id": properties.message_id}
    return {
        **{name: str(value) for name, value in (properties.headers or {}).items()},
        **{name: value for name, value in named.items() if value is not None},
    }


class RabbitHarness(Harness):
    kind = KIND

    def __init__(self, broker: rabbitmq_broker.Broker, relay: Relay, *, really: bool, made: bool) -> None:
        self._broker = broker
        self._relay = relay
        self._really = really
        self._name = f"contract-{relay.port}"
        self._made = self._name if made else ""
        self._dead: list[Seen] = []
        self._account = f"{rabbitmq_broker.USER}:{rabbitmq_broker.PASSWORD}"

    def _do(self, work: Any) -> Any:
        connection = pika.BlockingConnection(pika.URLParameters(self._broker.url))
        try:
            channel = connection.channel()
            channel.confirm_delivery()
            return work(channel)
        finally:
            if connection.is_open:
                connection.close()

    def prepare(self) -> None:
        """A place for dead letters, such as users have; a queue of theirs, where a test asks for it."""

        def make(channel: Any) -> None:
            channel.exchange_declare(f"{self._name}.dlx", "fanout", durable=True)
            channel.queue_declare(f"{self._name}.dead", durable=True)
            channel.queue_bind(f"{self._name}.dead", f"{self._name}.dlx", "")
            if self._made:
                channel.queue_declare(self._made, durable=True)

        self._do(make)

    def table(self) -> dict[str, Any]:
        return {"kind": "rabbitmq", "url": f"amqp://{self._account}@127.0.0.1:{self._relay.port}"}

    def wrong_credentials(self) -> dict[str, Any]:
        return {
            "kind": "rabbitmq",
            "url": f"amqp://{rabbitmq_broker.USER}:{CANARY}@127.0.0.1:{self._broker.port}",
        }

    def secure(self) -> dict[str, Any]:
        return {"kind": "rabbitmq", "url": self._broker.tls_url, "tls": {"ca": str(self._broker.authority)}}

    def reliable_import(self) -> dict[str, Any]:
        return {"dead_letter": f"{self._name}.dlx", **({"queue": self._made} if self._made else {})}

    def everything(self, prefix: str) -> str:
        return f"{prefix}.#"

    def observe(self, prefix: str, *, reliable: bool) -> AbstractAsyncContextManager[Observer]:
        return self._observing(RabbitObserver(self._broker.url, f"{prefix}.#", durable=reliable))

    @asynccontextmanager
    async def _observing(self, observer: RabbitObserver) -> AsyncIterator[Observer]:
        await trio.to_thread.run_sync(observer.connect)
        try:
            yield observer
        finally:
            observer.close()

    async def put(
        self, destination: str, data: bytes, headers: Mapping[str, str] | None = None, *, reliable: bool
    ) -> None:
        rest = dict(headers or {})
        properties = pika.BasicProperties(
            headers=rest, message_id=rest.pop("message-id", None), delivery_mode=2 if reliable else 1
        )

        def publish(channel: Any) -> None:
            if self._made:
                channel.queue_bind(self._made, "amq.topic", f"{destination.partition('.')[0]}.#")
            channel.basic_publish("amq.topic", destination, data, properties, mandatory=True)

        try:
            await trio.to_thread.run_sync(self._do, publish)
        except pika.exceptions.AMQPConnectionError as error:
            raise OSError(str(error)) from error

    async def kill(self) -> None:
        if self._really:
            await trio.to_thread.run_sync(self._broker.kill)
        else:
            await self._relay.cut()

    async def restart(self) -> None:
        if self._really:
            await trio.to_thread.run_sync(self._broker.start)
        else:
            await self._relay.open()

    async def dead_letters(self, destination: str) -> list[Seen]:
        def fetch(channel: Any) -> None:
            while True:
                method, properties, body = channel.basic_get(f"{self._name}.dead", auto_ack=True)
                if method is None:
                    return
                self._dead.append(Seen(method.routing_key, body, flat(properties)))

        await trio.to_thread.run_sync(self._do, fetch)
        return self._dead


@pytest.fixture
async def broker(
    rabbitmq: rabbitmq_broker.Broker, request: pytest.FixtureRequest, nursery: trio.Nursery
) -> AsyncIterator[RabbitHarness]:
    relay = Relay(nursery, rabbitmq.port)
    await relay.open()
    test = request.node.name
    harness = RabbitHarness(rabbitmq, relay, really="is_killed" in test, made="check_moves_nothing" in test)
    await trio.to_thread.run_sync(harness.prepare)
    yield harness
    if not rabbitmq.running:  # a test has failed between the two
        await trio.to_thread.run_sync(rabbitmq.start)
    nursery.cancel_scope.cancel()


class TestRabbitMQ(BridgeContract):
    async def test_requests_both_ways(self, setting: Setting, rabbitmq: rabbitmq_broker.Broker) -> None:
        """A mesh request is answered by an AMQP worker, an AMQP client's by a mesh responder."""
        word = setting.prefix
        outward = {"pattern": f"{word}/rpc/*", "to": f"{word}.{{1}}", "request": True, "format": "json"}
        inward = {"from": f"{word}.ask", "topic": f"{word}/answer", "request": True, "format": "json"}

        async def answer(request: mesh.Request) -> Any:
            if request.value == "fail":
                raise ValueError("not that")
            return {"you said": request.value}

        with outsider(rabbitmq.url) as client:
            queue = await client.queue("", exchange="", name=f"{word}.double")

            async def work() -> None:
                [got] = await client.take(queue)
                await client.publish(
                    got.properties.reply_to,
                    b"%d" % (2 * int(got.body)),
                    exchange="",
                    mandatory=False,
                    correlation_id=got.properties.correlation_id,
                )

            async with (
                setting.nodes(2) as (here, there),
                setting.leading(here, export={**outward, "timeout": 30.0}, imported=inward) as bridge,
                trio.open_nursery() as inner,
            ):
                inner.start_soon(work)
                assert await there.request(f"{word}/rpc/double", 21, timeout=PATIENCE) == 42
                with pytest.raises(mesh.RemoteError) as told:
                    await there.request(f"{word}/rpc/nobody", 1, timeout=PATIENCE)
                assert told.value.type_name == "NoResponders"

                await inner.start(partial(there.serve, f"{word}/answer", answer))
                replies = await client.queue("", exchange="")
                for exchange, body in (
                    ("amq.topic", b'"hello"'),
                    ("", b'"again"'),
                    ("", b'"fail"'),
                    ("", b"{"),
                ):
                    await client.publish(
                        f"{word}.ask", body, exchange=exchange, reply_to=replies, correlation_id=body.decode()
                    )
                got = {each.properties.correlation_id: each for each in await client.take(replies, 4)}
                assert json.loads(got['"hello"'].body) == {"you said": "hello"}
                assert json.loads(got['"again"'].body) == {"you said": "again"}
                assert got['"hello"'].headers.get("mesh-error") is None
                assert got['"fail"'].headers["mesh-error"] == "ValueError"
                assert json.loads(got['"fail"'].body) == "not that"
                assert got["{"].headers["mesh-error"]
                await settled(bridge, lambda it: [each.moved for each in it.routes] == [1, 4])
                inner.cancel_scope.cancel()

    async def test_a_broker_short_of_memory_is_seen_to_block(
        self, setting: Setting, rabbitmq: rabbitmq_broker.Broker
    ) -> None:
        def watermark(*value: str) -> None:
            rabbitmq.control("set_vm_memory_high_watermark", *value)

        async with (
            setting.nodes(1) as (here,),
            setting.observe(reliable=True) as observer,
            setting.leading(here, export=setting.export(reliable=True, format="json")) as bridge,
        ):
            await trio.to_thread.run_sync(watermark, "0")
            try:
                await here.publish(f"{setting.prefix}/a", "patient")
                statistics = await settled(bridge, lambda it: it.state == "blocked")
                assert "memory" in statistics.why
            finally:
                await trio.to_thread.run_sync(watermark, "absolute", "512MB")
            assert numbers(await observer.take(1)) == ["patient"]
            await settled(bridge, lambda it: it.state == "connected" and not it.why)
