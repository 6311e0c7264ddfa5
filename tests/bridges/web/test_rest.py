"""REST, server-sent events and metrics, over real sockets."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
import trio

import mesh
from bridges.counters import BridgeStatistics, RouteStatistics
from bridges.web import round_trips
from bridges.web.bounds import Bounds
from tests.bridges.web.clients import PATIENCE, Book, Web, client, web
from tests.node.meshes import MemoryMeshes


async def test_publish_and_request(open_web: Web, far: mesh.Node) -> None:
    async def oven(request: mesh.Request) -> Any:
        if request.value == b"fail":
            raise RuntimeError("broken")
        return [request.value, request.headers]

    await open_web.nursery.start(far.serve, "home/oven", oven)
    async with far.subscribe("home/**") as there:
        body = {"topic": "home/lamp", "value": {"base64": "/w=="}, "headers": {"a": "b"}}
        assert (await open_web.ask("POST", "/api/v1/publish", body)).json == {"published": True}
        with trio.fail_after(PATIENCE):
            message = await there.__anext__()
        assert (message.value, message.headers) == (b"\xff", {"a": "b"})
    body = {"topic": "home/oven", "value": 180, "headers": {"who": "me"}, "timeout": 20}
    assert (await open_web.ask("POST", "/api/v1/request", body)).json == {
        "value": [180, {"who": "me"}],
        "sender": far.name,
    }
    for topic, value, status, error in (
        ("home/nothing", 1, 404, "NoResponders"),
        ("home/oven", {"base64": "ZmFpbA=="}, 502, "RemoteError"),
        ("home//oven", 1, 422, "TopicError"),
        ("@mesh/x", 1, 403, "NotAuthorized"),
    ):
        answer = await open_web.ask("POST", "/api/v1/request", {"topic": topic, "value": value})
        assert (answer.status, answer.problem) == (status, error)


INVALID: list[tuple[Any, str]] = [
    (b"{", "body"),
    (b"U\xff\xfe", "body"),
    (b"[]", "body"),
    ({}, "body/topic"),
    ({"topic": 1}, "body/topic"),
    ({"topic": ""}, "body/topic"),
    ({"topic": "a", "headers": {"a": 1}}, "body/headers/a"),
    ({"topic": "a", "extra": 1}, "body/extra"),
]


async def test_bodies_that_are_not_valid(open_web: Web) -> None:
    for body, where in INVALID:
        answer = await open_web.ask("POST", "/api/v1/publish", body)
        assert (answer.status, answer.problem) == (422, "Invalid"), body
        assert answer.json["errors"][0]["where"].startswith(where), body


async def test_what_is_nested_deeply(open_web: Web) -> None:
    """At every depth an error of the client's: none is the gateway's, wherever Python's stack would end."""
    for depth in (20, 65, 500, 600, 900, 2000, 100_000):
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            value = opening * depth + "1" + closing * depth
            for path in ("publish", "request"):
                body = f'{{"topic":"nobody","value":{value}}}'.encode()
                answer = await open_web.ask("POST", f"/api/v1/{path}", body)
                assert answer.status in (404, 422), (depth, path, answer.body[:200])
            async with client(open_web) as it:
                await it.raw(f'{{"op":"publish","id":1,"topic":"a","value":{value}}}')
                assert (await it.hear("error"))["error"] in ("ProtocolError", "ValueEncodingError")
    assert open_web.rejected["failed"] == 0


async def test_a_mistake_of_ours_is_a_problem_too(open_web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret words")

    monkeypatch.setattr(open_web.node, "publish", fail)
    answer = await open_web.ask("POST", "/api/v1/publish", {"topic": "a", "value": 1})
    assert (answer.status, answer.problem) == (500, "Failed")
    assert b"secret" not in answer.body
    assert open_web.rejected["failed"] == 1
    monkeypatch.undo()
    assert (await open_web.ask("POST", "/api/v1/publish", {"topic": "a", "value": 1})).status == 200


async def test_paths_and_methods_that_are_not_there(open_web: Web) -> None:
    assert (await open_web.ask("GET", "/nothing")).problem == "NotFound"
    assert (await open_web.ask("GET", "/api/v1/publish")).problem == "MethodNotAllowed"
    assert (await open_web.ask("POST", "/api/v1/publish", {"topic": "@mesh/x"})).problem == "TopicError"
    for size, status in ((1 << 20, 200), (2 << 20, 413)):
        body = {"topic": "a", "value": "x" * size}
        assert (await open_web.ask("POST", "/api/v1/publish", body)).status == status


async def test_what_there_is_to_see(open_web: Web, near: mesh.Node, far: mesh.Node) -> None:
    (peer,) = (await open_web.ask("GET", "/api/v1/peers")).json
    assert (peer["id"], peer["name"], peer["state"]) == (far.id, far.name, "alive")
    await near.publish("a", 1)
    statistics = (await open_web.ask("GET", "/api/v1/statistics")).json
    assert statistics["published"] == 1
    assert statistics["node"]["name"] == near.name
    assert statistics["peers"][0]["name"] == far.name
    assert {"lost", "dropped", "rejected_by_reason", "web", "bridges", "subscriptions"} <= statistics.keys()
    assert (await open_web.ask("GET", "/healthz")).json == {"status": "ok", "node": near.name, "peers": 1}


async def test_traffic_by_topic(open_web: Web, near: mesh.Node, far: mesh.Node) -> None:
    assert (await open_web.ask("GET", "/api/v1/traffic")).json["topics"] == []
    with trio.fail_after(PATIENCE):
        while not near.statistics().subscriptions:  # noqa: ASYNC110 - the meter says nothing when it is live
            await trio.sleep(0.01)
        rows: list[Any] = []
        while not rows:
            await far.publish("home/x", b"12345")
            rows = (await open_web.ask("GET", "/api/v1/traffic")).json["topics"]
    assert rows[0]["topic"] == "home/x"
    assert rows[0]["bytes"] == 5 * rows[0]["messages"]
    assert rows[0]["senders"] == [far.name]
    assert rows[0]["rate"] > 0


async def test_round_trips_between_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What others say is checked; who says nothing, or nonsense, has no row; all in bounds."""
    monkeypatch.setattr(round_trips, "EVERY", 0.05)

    async def known(it: Web, wanted: set[tuple[str, str]]) -> dict[str, Any]:
        with trio.fail_after(PATIENCE):
            while True:
                answer = await it.ask("GET", "/api/v1/round-trips")
                found: dict[str, Any] = answer.json
                if {(pair["from"], pair["to"]) for pair in found["pairs"]} >= wanted:
                    return found
                await trio.sleep(0.01)

    async with MemoryMeshes().of(4) as (near, honest, liar, silent):
        rows = {
            honest.id: {near.id: 0.001, silent.id: 0.25, "nobody": 1.0},
            liar.id: {near.id: -1, honest.id: math.nan, silent.id: "1", b"x": True, near.name: 1e9},
        }

        async with web(near, bounds=Bounds(pairs=5)) as it:
            for node in (honest, liar):

                async def tell(_: mesh.Request, node: mesh.Node = node) -> Any:
                    return rows[node.id]

                await it.nursery.start(node.serve, round_trips.TOPIC, tell)
            for node in (honest, liar, silent):
                await near.ping(node.id)
            own = {(near.id, node.id) for node in (honest, liar, silent)}
            found = await known(it, own | {(honest.id, near.id), (honest.id, silent.id)})
            assert {each["name"] for each in found["nodes"]} == {
                near.name,
                honest.name,
                liar.name,
                silent.name,
            }
            assert (len(found["pairs"]), found["others"]) == (5, 0)
            rows[liar.id] = {honest.id: 0.5}
            with trio.fail_after(PATIENCE):
                while not found["others"]:
                    found = await known(it, set())
                    await trio.sleep(0.01)
            assert (len(found["pairs"]), found["others"]) == (5, 1)


async def test_server_sent_events(open_web: Web, far: mesh.Node) -> None:
    """The event stream format (WHATWG HTML §9.2), as far as it is used."""
    async with await trio.open_tcp_stream("127.0.0.1", open_web.port) as stream:
        await stream.send_all(
            b"GET /api/v1/subscribe?pattern=home/%2A%2A HTTP/1.1\r\nHost: localhost\r\n"
            b"Accept: text/event-stream\r\n\r\n"
        )
        text = b""

        async def until(wanted: bytes) -> None:
            nonlocal text
            with trio.fail_after(PATIENCE):
                while wanted not in text:
                    more = await stream.receive_some()
                    assert more
                    text += more

        await until(b": live\n\n")
        assert b"content-type: text/event-stream" in text
        await far.publish("home/x", {"line": "one\ntwo"})
        await until(b"one\\ntwo")
        found = re.search(rb"event: message\ndata: (.*)\n\n", text)
        assert found is not None
        message = json.loads(found[1])
        assert (message["topic"], message["value"], message["sender"]) == (
            "home/x",
            {"line": "one\ntwo"},
            far.name,
        )
    answer = await open_web.ask("GET", "/api/v1/subscribe?pattern=a//b")
    assert (answer.status, answer.problem) == (422, "TopicError")
    assert (await open_web.ask("GET", "/api/v1/subscribe")).problem == "Invalid"


async def read_events(stream: trio.SocketStream, pattern: str, wanted: bytes, token: str = "") -> bytes:
    """Ask for events, and read until ``wanted`` has come."""
    bearer = f"Authorization: Bearer {token}\r\n" if token else ""
    head = f"GET /api/v1/subscribe?pattern={pattern} HTTP/1.1\r\nHost: localhost\r\n{bearer}\r\n"
    await stream.send_all(head.encode())
    data = b""
    while wanted not in data:
        more = await stream.receive_some()
        assert more, data
        data += more
    return data


async def test_who_leaves_leaves_nothing_behind(open_web: Web, near: mesh.Node, far: mesh.Node) -> None:
    """A subscription ends with its reader, and a request with who asked it: at its responder, too."""
    asked, cancelled = trio.Event(), trio.Event()

    async def never(_: mesh.Request) -> None:
        asked.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    await open_web.nursery.start(far.serve, "never", never)
    body = b'{"topic":"never","timeout":60}'
    with trio.fail_after(PATIENCE):
        async with (
            await trio.open_tcp_stream("127.0.0.1", open_web.port) as one,
            await trio.open_tcp_stream("127.0.0.1", open_web.port) as other,
        ):
            await read_events(one, "a", b": live\n\n")
            assert [each.pattern for each in near.statistics().subscriptions] == ["a"]
            await other.send_all(
                b"POST /api/v1/request HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            await asked.wait()
        await cancelled.wait()
        while near.statistics().subscriptions or open_web.gateway.counters.connections:  # noqa: ASYNC110
            await trio.sleep(0.01)
    assert open_web.rejected["failed"] == 0


async def test_events_end_with_the_token(near: mesh.Node) -> None:
    book = Book(reader=("subscribe:a",))
    async with web(near, book) as it, await trio.open_tcp_stream("127.0.0.1", it.port) as stream:
        with trio.fail_after(PATIENCE):
            await read_events(stream, "a", b": live\n\n", "reader")
            del book.tokens["reader"]
            assert (await stream.receive_some()).startswith(b"0\r\n")  # the last chunk


async def test_a_slow_reader_of_events_is_told_what_it_missed(near: mesh.Node, far: mesh.Node) -> None:
    async with (
        web(near, bounds=Bounds(queue_bytes=100_000)) as it,
        await trio.open_tcp_stream("127.0.0.1", it.port) as stream,
    ):
        with trio.fail_after(PATIENCE):
            data = await read_events(stream, "a", b": live\n\n")
            count = 0
            while not it.gateway._hub._channels["a"].readers or not _dropped(it):
                await far.publish("a", [count, "x" * 50_000])
                count += 1
                await trio.lowlevel.checkpoint()
            await far.publish("a", "end")
            while b'"end"' not in data:
                data += await stream.receive_some()
    missed = sum(map(int, re.findall(rb'event: dropped\ndata: {"count":(\d+)}', data)))
    assert missed > 0
    assert data.count(b"event: message") + missed == count + 1


def _dropped(it: Web) -> int:
    return sum(reader.outbox.dropped for reader in it.gateway._hub._channels["a"].readers.values())


METRIC = re.compile(r"(zeromesh_[a-z_]+)(\{[a-z]+=\"[^\"]*\"(,[a-z]+=\"[^\"]*\")*\})? (\S+)")


async def test_metrics(open_web: Web, near: mesh.Node, far: mesh.Node) -> None:
    """Prometheus' text format 0.0.4, named by its conventions."""
    async with client(open_web) as it:
        await it.ask("subscribe", "subscribed", id=1, pattern="a")
        await far.publish("a", 1)
        await it.hear("message")
        answer = await open_web.ask("GET", "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    kinds, values = {}, {}
    for line in answer.body.decode().splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            kinds[name] = kind
        elif not line.startswith("# HELP "):
            found = METRIC.fullmatch(line)
            assert found, line
            values[found[1] + (found[2] or "")] = float(found[4])
    for name, kind in kinds.items():
        assert (kind == "counter") == name.endswith("_total"), name
    assert kinds["zeromesh_peer_round_trip_seconds"] == "histogram"
    assert values["zeromesh_received_messages_total"] == 1
    assert values['zeromesh_peers{state="alive"}'] == 1
    assert values["zeromesh_web_clients"] == 1
    assert values["zeromesh_web_sent_messages_total"] == 1
    buckets = [
        value for name, value in values.items() if name.startswith("zeromesh_peer_round_trip_seconds_bucket")
    ]
    assert buckets == sorted(buckets)
    assert buckets[-1] == values["zeromesh_peer_round_trip_seconds_count"]


async def test_bridges_and_escaped_labels(near: mesh.Node, open_web: Web) -> None:
    route = RouteStatistics("export 1", 5, 0, 0, 0, {}, {}, 7)
    bridge = BridgeStatistics("b", "redis", "", "", "connected", "", True, 0, 1, None, (route,))
    with near.report_bridge('a"b\\c\nd', lambda: bridge):
        text = (await open_web.ask("GET", "/metrics")).body.decode()
        assert 'zeromesh_bridge_lag_messages{bridge="a\\"b\\\\c\\nd",route="export 1"} 7' in text
        found = (await open_web.ask("GET", "/api/v1/statistics")).json["bridges"]
    assert found['a"b\\c\nd']["routes"][0]["moved"] == 5


async def test_the_description(open_web: Web) -> None:
    """OpenAPI with examples, bearer tokens where they are needed, problems as problems."""
    document = (await open_web.ask("GET", "/openapi.json")).json
    assert document["openapi"].startswith("3.1")
    assert document["components"]["securitySchemes"]["token"] == {
        "type": "http",
        "scheme": "bearer",
        "description": "What `mesh token create` printed.",
    }
    paths = document["paths"]
    assert {
        "/api/v1/publish",
        "/api/v1/request",
        "/api/v1/peers",
        "/api/v1/statistics",
        "/api/v1/subscribe",
        "/healthz",
        "/metrics",
    } <= paths.keys()
    assert "security" not in paths["/healthz"]["get"]
    for path, item in paths.items():
        for operation in item.values():
            assert ("security" in operation) == (path != "/healthz"), path
            assert operation["description"]
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert list(response["content"]) == ["application/problem+json"], (path, status)
    assert document["components"]["schemas"]["PublishBody"]["examples"]
