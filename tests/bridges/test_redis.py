"""Redis: the contract against a real server, and what Redis has and other brokers have not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import redis
import trio

from bridges.base import BrokerRejected
from bridges.bridge import check_bridge
from bridges.config import read_bridge
from bridges.messages import BrokerMessage, flatten
from bridges.redis import KIND
from bridges.redis.notes import Notes, encode_notes
from mesh.errors import ConfigError
from tests.bridges.contract import (
    CANARY,
    PATIENCE,
    BridgeContract,
    Harness,
    Observer,
    Seen,
    Setting,
    received,
    route,
    settled,
)
from tests.bridges.contract import setting as setting
from tests.bridges.redis_broker import PASSWORD, Broker

DOWN = (redis.ConnectionError, redis.TimeoutError)


def entry_as_seen(stream: bytes, fields: Mapping[bytes, bytes]) -> Seen:
    plain = {name.decode(): value for name, value in fields.items()}
    data = plain.pop("data")
    return Seen(stream.decode(), data, {name: value.decode() for name, value in plain.items()})


class Streams(Observer):
    """Reads all streams of a prefix from their first entries; they survive the server."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        super().__init__()
        self._client = client
        self._prefix = prefix
        self._last: dict[bytes, bytes] = {}

    async def more(self) -> None:
        try:
            found = await trio.to_thread.run_sync(self._look)
        except DOWN:
            found = []
        self.seen.extend(found)
        if not found:
            await trio.sleep(0.05)

    def _look(self) -> list[Seen]:
        seen = []
        for stream in self._client.scan_iter(match=f"{self._prefix}.*", _type="stream"):
            for place, fields in self._client.xrange(stream, f"({self._last.get(stream, b'0').decode()}"):
                self._last[stream] = place
                seen.append(entry_as_seen(stream, fields))
        return seen


class Channels(Observer):
    def __init__(self, pubsub: Any) -> None:
        super().__init__()
        self._pubsub = pubsub

    async def more(self) -> None:
        message = await trio.to_thread.run_sync(lambda: self._pubsub.get_message(timeout=0.2))
        if message is not None and message["type"] == "pmessage":
            self.seen.append(Seen(message["channel"].decode(), message["data"]))


class RedisHarness(Harness):
    kind = KIND
    headers = False

    def __init__(self, server: Broker, client: redis.Redis) -> None:
        self._server = server
        self._client = client

    def table(self) -> dict[str, Any]:
        return {"kind": "redis", "url": f"redis://:{PASSWORD}@127.0.0.1:{self._server.port}/0"}

    def wrong_credentials(self) -> dict[str, Any]:
        return {"kind": "redis", "url": f"redis://:{CANARY}@127.0.0.1:{self._server.port}"}

    def secure(self) -> dict[str, Any]:
        return {
            "kind": "redis",
            "url": f"rediss://localhost:{self._server.tls_port}",
            "password": PASSWORD,
            "tls": {"ca": str(self._server.ca)},
        }

    def everything(self, prefix: str) -> str:
        return f"{prefix}.*"

    @asynccontextmanager
    async def _observing(self, prefix: str, reliable: bool) -> AsyncIterator[Observer]:
        if reliable:
            yield Streams(self._client, prefix)
            return
        with self._client.pubsub() as pubsub:
            pubsub.psubscribe(f"{prefix}.*")
            observer = Channels(pubsub)
            await observer.more()  # the confirmation: from now on
            yield observer

    def observe(self, prefix: str, *, reliable: bool) -> AbstractAsyncContextManager[Observer]:
        return self._observing(prefix, reliable)

    async def put(
        self, destination: str, data: bytes, headers: Mapping[str, str] | None = None, *, reliable: bool
    ) -> None:
        try:
            if reliable:
                fields: dict[Any, Any] = {"data": data, **(headers or {})}
                await trio.to_thread.run_sync(self._client.xadd, destination, fields)
            else:
                await trio.to_thread.run_sync(self._client.publish, destination, data)
        except DOWN as error:
            raise OSError(str(error)) from None

    async def kill(self) -> None:
        await trio.to_thread.run_sync(self._server.kill)

    async def restart(self) -> None:
        await trio.to_thread.run_sync(self._server.start)

    async def dead_letters(self, destination: str) -> list[Seen]:
        entries: Any = await trio.to_thread.run_sync(self._client.xrange, f"{destination}:dead")
        return [entry_as_seen(b"", fields) for _, fields in entries]


@pytest.fixture
def broker(redis_server: Broker) -> Iterator[RedisHarness]:
    redis_server.start_if_dead()  # a test that failed may have left it so
    with redis.Redis(port=redis_server.port, password=PASSWORD) as client:
        client.flushall()
        yield RedisHarness(redis_server, client)


@pytest.fixture
def client(redis_server: Broker) -> Iterator[redis.Redis]:
    with redis.Redis(port=redis_server.port, password=PASSWORD) as client:
        yield client


class TestRedis(BridgeContract):
    async def test_streams_are_trimmed(self, setting: Setting, client: redis.Redis) -> None:
        export = setting.export(reliable=True, max_length=100)
        async with setting.nodes(1) as (here,), setting.leading(here, export=export) as bridge:
            for number in range(1000):
                await here.publish(f"{setting.prefix}/a", number)
            await settled(bridge, lambda it: route(it).moved == 1000)
            # About: Redis drops whole nodes of its tree, of 100 entries each.
            assert client.xlen(f"{setting.prefix}.a") <= 300

    async def test_the_latest_value_is_kept(self, setting: Setting, client: redis.Redis) -> None:
        export = setting.export(format="json", retain="state:{topic}", separator=":")
        async with setting.nodes(1) as (here,), setting.leading(here, export=export) as bridge:
            for number in range(3):
                await here.publish(f"{setting.prefix}/a/b", number)
            await settled(bridge, lambda it: route(it).moved == 3)
            assert client.get(f"state:{setting.prefix}:a:b") == b"2"

    async def test_entries_that_another_consumer_abandoned(
        self, setting: Setting, client: redis.Redis
    ) -> None:
        stream = f"{setting.prefix}in.a"
        client.xgroup_create(stream, "shared", id="0", mkstream=True)
        client.xadd(stream, {"data": b"left"})
        assert client.xreadgroup("shared", "dead", {stream: ">"})
        imported = setting.imported(reliable=True, group="shared", claim_after=0.2)
        async with (
            setting.nodes(1) as (here,),
            here.subscribe(f"{setting.prefix}-in/**") as messages,
            setting.leading(here, imported=imported),
        ):
            assert [message.data for message in await received(messages, 1)] == [b"left"]
            with trio.fail_after(PATIENCE):
                while client.xpending(stream, "shared")["pending"]:  # noqa: ASYNC110 - the server's own view
                    await trio.sleep(0.05)

    async def test_entries_of_others_are_their_fields(self, setting: Setting, client: redis.Redis) -> None:
        imported = setting.imported(reliable=True, format="json")
        async with (
            setting.nodes(1) as (here,),
            here.subscribe(f"{setting.prefix}-in/**") as messages,
            setting.leading(here, imported=imported) as bridge,
        ):
            client.xadd(f"{setting.prefix}in.a", {"temperature": "21.5", "unit": "C"})
            (message,) = await received(messages, 1)
            assert message.value == {"temperature": "21.5", "unit": "C"}
            assert message.headers["message-id"].startswith(f"{setting.prefix}in.a/")
            await settled(bridge, lambda it: route(it).lag == 0)

    async def test_a_key_of_another_type(self, setting: Setting, client: redis.Redis) -> None:
        client.set(f"{setting.prefix}.bad", "x")
        export = setting.export(reliable=True)
        async with setting.nodes(1) as (here,), setting.leading(here, export=export) as bridge:
            await here.publish(f"{setting.prefix}/bad", 1)
            await here.publish(f"{setting.prefix}/good", 1)
            statistics = await settled(bridge, lambda it: route(it).moved == 1)
            assert dict(route(statistics).rejected) == {"wrong type": 1}
            assert statistics.state == "connected"

    async def test_others_hear_plain_channels(self, setting: Setting, client: redis.Redis) -> None:
        """What ``redis-cli PUBLISH`` says arrives, without headers but for the way it came."""
        async with (
            setting.nodes(1) as (here,),
            here.subscribe(f"{setting.prefix}-in/**") as messages,
            setting.leading(here, imported=setting.imported()) as bridge,
        ):
            client.publish(f"{setting.prefix}in.a", b"\x00on")
            (message,) = await received(messages, 1)
            assert (message.value, dict(message.headers)) == (b"\x00on", {"mesh-path": bridge.identity})


def test_notes_find_their_message() -> None:
    first, second = (BrokerMessage("a", b"x", message_id=each) for each in ("1", "2"))
    notes = Notes()
    notes.add(encode_notes([first, BrokerMessage("b", b"x"), second]))
    assert notes.take("a", b"y") == {}
    assert [notes.take("a", b"x") for _ in range(3)] == [flatten(first), flatten(second), {}]


@pytest.mark.parametrize("bad", [b"", b"\xff", b'[[1, 2, 3], "x", ["a", "", {"a": 1}]]'])
def test_what_is_no_note(bad: bytes) -> None:
    notes = Notes()
    notes.add(bad)
    assert notes.take("a", b"") == {}


def test_notes_do_not_grow() -> None:
    notes = Notes()
    for number in range(30):
        notes.add(encode_notes(BrokerMessage(f"{number}-{each}", b"") for each in range(500)))
    assert notes.take("0-0", b"") == {}
    assert notes.take("29-499", b"") == {}
    assert len(notes._waiting) <= 8192


EXPORT = {"pattern": "a", "to": "b"}


@pytest.mark.parametrize(
    ("more", "key", "expected"),
    [
        ({"url": "redis://a,b"}, "url", "one server"),
        ({"url": "redis://a/first"}, "url", "number of a database"),
        ({"url": "redis://a", "options": {"x": 1}}, "options.x", "not known"),
        ({"export": [{**EXPORT, "max_length": 5}]}, "export[1].max_length", "reliable = true"),
        ({"export": [{**EXPORT, "reliable": True, "headers": False}]}, "export[1].headers", "not reliable"),
        ({"export": [{**EXPORT, "request": True}]}, "export[1].request", "carries no requests"),
        ({"import": [{"from": "a", "topic": "b", "group": "x"}]}, "import[1].group", "reliable = true"),
    ],
)
def test_mistakes_in_the_table(more: dict[str, Any], key: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_bridge({"kind": "redis", "url": "redis://localhost", "export": [EXPORT], **more})
    assert caught.value.key == key
    assert expected in caught.value.reason


async def test_an_authority_that_does_not_vouch(redis_server: Broker, tmp_path: Any) -> None:
    stranger = Broker(tmp_path)  # its certificate only
    table = {
        "kind": "redis",
        "url": f"rediss://localhost:{redis_server.tls_port}",
        "password": PASSWORD,
        "tls": {"ca": str(stranger.ca)},
        "export": [EXPORT],
    }
    with pytest.raises(Exception, match=r"(?i)certificate|connection") as caught:
        await check_bridge(table)
    assert not isinstance(caught.value, BrokerRejected)
    assert PASSWORD not in f"{caught.value!r}"
