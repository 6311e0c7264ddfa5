"""The WebSocket protocol, as clients meet it: real sockets, both sides held to the schema in docs/."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
import trio

import mesh
from bridges.web.bounds import Bounds
from tests.bridges.web.clients import PATIENCE, Book, Web, client, masked, raw, read_frame, web


@pytest.mark.parametrize("cbor", [False, True])
async def test_subscribe_publish_unsubscribe(open_web: Web, far: mesh.Node, cbor: bool) -> None:
    async with client(open_web, cbor=cbor) as it, far.subscribe("home/**") as there:
        await it.ask("subscribe", "subscribed", id=1, pattern="home/**")
        await far.publish("home/cellar/temperature", 7.5, headers={"unit": "°C"})
        message = await it.hear("message")
        assert (message["id"], message["topic"], message["value"]) == (1, "home/cellar/temperature", 7.5)
        assert (message["sender"], message["headers"]) == (far.name, {"unit": "°C"})
        assert message["sequence"] == 0
        assert message["timestamp"] > 1.7e9

        await it.ask(
            "publish", "published", id="p", topic="home/hall", value={"on": True}, headers={"a": "b"}
        )
        assert (await it.hear("message"))["value"] == {"on": True}
        with trio.fail_after(PATIENCE):
            async for received in there:
                if received.topic == "home/hall":
                    assert (received.value, received.headers) == ({"on": True}, {"a": "b"})
                    break

        await it.ask("unsubscribe", "unsubscribed", id=1)
        await it.say("publish", topic="home/hall", value=2)
        await it.ask("publish", "published", id=9, topic="home/hall", value=3)
        assert not [each for each in it.heard if each["op"] == "message"]
        assert open_web.gateway.counters.published == 3


VALUES = [
    b"\x00\xff",
    {"deep": [b"bytes", {"x": None}]},
    -1.5,
    2**53,
    "µ",
    [],
]


@pytest.mark.parametrize("cbor", [False, True])
async def test_values_come_out_as_they_went_in(open_web: Web, far: mesh.Node, cbor: bool) -> None:
    from bridges.web.encoding import jsonable

    async with client(open_web, cbor=cbor) as it, far.subscribe("v") as there:
        await it.ask("subscribe", "subscribed", id=1, pattern="v")
        for value in VALUES:
            shown = value if cbor else jsonable(value)
            await it.say("publish", topic="v", value=shown)
            assert (await it.hear("message"))["value"] == shown
            with trio.fail_after(PATIENCE):
                assert (await there.__anext__()).value == value


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (math.nan, None),
        ({"k": "one", b"k": 2}, {"k": "one", "aw==": 2}),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (10**5000, hex(10**5000)),
    ],
    ids=["nan", "keys", "time", "integer"],
)
async def test_what_json_lacks_is_readable(open_web: Web, far: mesh.Node, value: Any, shown: Any) -> None:
    async with client(open_web) as it:
        await it.ask("subscribe", "subscribed", id=1, pattern="v")
        await far.publish("v", value)
        assert (await it.hear("message"))["value"] == shown


async def test_requests(open_web: Web, far: mesh.Node) -> None:
    async def oven(request: mesh.Request) -> Any:
        if request.value == "fail":
            raise ValueError("too hot")
        return {"set": request.value, "for": request.headers.get("who")}

    async with client(open_web) as it:
        await open_web.nursery.start(far.serve, "home/oven", oven)
        reply = await it.ask("request", "reply", id=1, topic="home/oven", value=180, headers={"who": "me"})
        assert (reply["value"], reply["sender"]) == ({"set": 180, "for": "me"}, far.name)
        error = await it.ask("request", "error", id=2, topic="home/oven", value="fail")
        assert (error["error"], error["message"]) == ("RemoteError", "ValueError: too hot")
        error = await it.ask("request", "error", id=3, topic="home/nothing")
        assert error["error"] == "NoResponders"


async def test_a_request_that_takes_too_long(open_web: Web, far: mesh.Node) -> None:
    async def never(_: mesh.Request) -> None:
        await trio.sleep_forever()

    async with client(open_web) as it:
        await open_web.nursery.start(far.serve, "slow", never)
        await it.say("request", id=1, topic="slow", timeout=0.05)
        await it.say("request", id=2, topic="slow", timeout=None)
        assert (await it.hear("error"))["error"] == "RequestTimeout"
        error = await it.ask("request", "error", id=2, topic="slow")
        assert error["message"] == "id: it is in use"


async def test_presence(open_web: Web, near: mesh.Node, far: mesh.Node) -> None:
    async with client(open_web) as it:
        event = await it.ask("peers", "peer", id="who")
        assert (event["change"], event["peer"]["name"], event["peer"]["state"]) == (
            "joined",
            far.name,
            "alive",
        )
        await it.ask("unsubscribe", "unsubscribed", id="who")


async def test_one_subscription_serves_all_clients_of_a_pattern(
    open_web: Web, near: mesh.Node, far: mesh.Node
) -> None:
    def patterns() -> list[str]:
        return [each.pattern for each in near.statistics().subscriptions]

    async with client(open_web) as one, client(open_web, cbor=True) as two:
        await one.ask("subscribe", "subscribed", id=1, pattern="a/**")
        await two.ask("subscribe", "subscribed", id="x", pattern="a/**")
        await two.ask("subscribe", "subscribed", id="y", pattern="a/**")
        assert patterns() == ["a/**"]
        await far.publish("a/b", 1)
        assert (await one.hear("message"))["id"] == 1
        assert {(await two.hear("message"))["id"] for _ in range(2)} == {"x", "y"}
        await one.ask("unsubscribe", "unsubscribed", id=1)
        await far.publish("a/b", 2)
        assert (await two.hear("message", id="y"))["value"] == 2
    with trio.fail_after(PATIENCE):
        while patterns():  # noqa: ASYNC110 - nothing says when the last client's going was noticed
            await trio.sleep(0.01)


async def test_a_slow_client_is_told_what_it_missed(near: mesh.Node, far: mesh.Node) -> None:
    """It gets the newest, the count of what was dropped, and everybody else gets everything."""
    count, text = 400, "x" * 20_000
    async with (
        web(near, bounds=Bounds(queue_bytes=100_000)) as it,
        client(it, max_queue=1) as slow,
        client(it) as quick,
    ):
        await slow.ask("subscribe", "subscribed", id=1, pattern="t")
        await quick.ask("subscribe", "subscribed", id=1, pattern="t")
        seen: list[int] = []

        async def read() -> None:
            while not seen or seen[-1] < count - 1:
                seen.append((await quick.hear("message"))["value"]["n"])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            for number in range(count):
                await far.publish("t", {"n": number, "text": text})
                with trio.fail_after(PATIENCE):
                    while len(seen) < number - 3:  # noqa: ASYNC110 - the quick one sets the pace
                        await trio.sleep(0.001)
        assert seen == list(range(count))
        got, dropped = [], 0
        while not got or got[-1] < count - 1:
            message = await slow.hear()
            if message["op"] == "dropped":
                dropped += message["count"]
            else:
                got.append(message["value"]["n"])
        assert dropped > 0
        assert len(got) + dropped == count
        assert got == sorted(got)


async def test_patterns_and_topics_that_are_none(open_web: Web) -> None:
    async with client(open_web) as it:
        for op, fields in (
            ("subscribe", {"pattern": "a//b"}),
            ("publish", {"topic": "a/*"}),
            ("publish", {"topic": "@mesh/x"}),
            ("request", {"topic": "a/"}),
        ):
            assert (await it.ask(op, "error", id=1, **fields))["error"] == "TopicError"
        await it.ask("subscribe", "subscribed", id=1, pattern="a")


async def test_the_daemon_stops_and_says_so(open_web: Web) -> None:
    async with client(open_web) as one, client(open_web, cbor=True) as two:
        await one.ask("subscribe", "subscribed", id=1, pattern="a")
        open_web.stop()
        assert await one.closed() == 1001
        assert await two.closed() == 1001
        with trio.fail_after(PATIENCE):
            await open_web.stopped.wait()


async def test_clients_that_hang_do_not_hold_the_end_up(near: mesh.Node, far: mesh.Node) -> None:
    """One that never answers the closing, one that reads nothing, one in the middle of a request."""
    async with web(near, bounds=Bounds(close_within=0.3)) as it, raw(it) as stuck:
        await stuck.send_all(masked(1, b'{"op":"subscribe","id":1,"pattern":"t"}'))
        assert b"subscribed" in (await read_frame(stuck))[1]
        for number in range(300):
            await far.publish("t", [number, "x" * 50_000])
        silent = await trio.open_tcp_stream("127.0.0.1", it.port)
        await silent.send_all(b"GET /healthz HTTP/1.1\r\nHost: loc")
        it.stop()
        with trio.fail_after(PATIENCE):
            await it.stopped.wait()
        await silent.aclose()


async def test_tokens_in_the_header_and_in_the_first_message(near: mesh.Node) -> None:
    async with web(near, Book(reader=("subscribe:home/**",))) as it:
        async with client(it, token="reader") as one:
            await one.ask("subscribe", "subscribed", id=1, pattern="home/*/x")
        async with client(it, ready=False, origin=it.url) as two:
            await two.say("auth", token="reader")
            assert (await two.hear())["op"] == "ready"
            await two.ask("subscribe", "subscribed", id=1, pattern="home/**")


async def test_a_message_that_has_no_room_is_told(near: mesh.Node, far: mesh.Node) -> None:
    """A node's values may be larger than what waits for one client."""
    async with web(near, bounds=Bounds(queue_bytes=1 << 20)) as it, client(it) as one:
        await one.ask("subscribe", "subscribed", id=1, pattern="a")
        await far.publish("a", bytes(2 << 20))
        assert (await one.hear("dropped", id=1))["count"] == 1
        await far.publish("a", "small")
        assert (await one.hear("message"))["value"] == "small"
        assert it.gateway._sockets.dropped == 1
