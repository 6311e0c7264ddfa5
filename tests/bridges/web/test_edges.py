"""Bad input at the gateway: the documented error or close code, counted, and the gateway goes on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from websockets.exceptions import InvalidStatus

import mesh
from bridges.web.bounds import Bounds
from tests.bridges.web.clients import PATIENCE, Book, Web, client, masked, raw, read_frame, web


@pytest.fixture
async def locked(near: mesh.Node) -> AsyncIterator[Web]:
    """A gateway with tokens."""
    book = Book(
        all=("publish:**", "subscribe:**", "request:**"), home=("publish:home/*", "subscribe:home/**")
    )
    bounds = Bounds(subscriptions=20, mistakes=4)
    async with web(
        near, book, bounds=bounds, origins=["https://panel.example"], hosts=["gate.example"]
    ) as running:
        yield running
        # Whatever was tried: it goes on.
        assert (await running.ask("GET", "/healthz")).json["status"] == "ok"


# -- what is not the protocol --------------------------------------------------------------------


async def test_what_is_no_object_ends_the_connection(locked: Web) -> None:
    texts = [
        "{",
        "[]",
        "7",
        '"publish"',
        '{"op": NaN}',
        "[" * 100_000,
        '{"op":"publish","topic":"a","value":' * 500,
    ]
    for text in texts:
        async with client(locked, token="all") as it:
            await it.raw(text)
            assert (await it.hear("error"))["error"] == "ProtocolError", text
            assert await it.closed() == 1008
    for data in (b"", b"\xff", b"\x01\x02", b"\xd8\x23\x61a", b"\x9b" + b"\xff" * 8):
        async with client(locked, token="all", cbor=True) as it:
            await it.raw(data)
            assert await it.closed() == 1008, data
    assert locked.rejected["not_the_protocol"] == len(texts) + 5


async def test_the_other_kind_of_frame_ends_the_connection(locked: Web) -> None:
    async with client(locked, token="all") as it:
        await it.raw(mesh.encode_cbor({"op": "peers", "id": 1}))
        assert await it.closed() == 1008
    async with client(locked, token="all", cbor=True) as it:
        await it.raw('{"op":"peers","id":1}')
        assert await it.closed() == 1008


MISTAKES: list[dict[str, Any]] = [
    {"op": "dance", "id": 1},
    {"op": 7},
    {"id": 1},
    {"op": "subscribe", "pattern": "a"},
    {"op": "subscribe", "id": -1, "pattern": "a"},
    {"op": "subscribe", "id": 1.5, "pattern": "a"},
    {"op": "subscribe", "id": "", "pattern": "a"},
    {"op": "subscribe", "id": [1], "pattern": "a"},
    {"op": "subscribe", "id": 2**53, "pattern": "a"},
    {"op": "subscribe", "id": 1},
    {"op": "subscribe", "id": 1, "pattern": ["a"]},
    {"op": "publish", "value": 1},
    {"op": "publish", "topic": 1},
    {"op": "publish", "topic": "a", "id": None},
    {"op": "publish", "topic": "a", "headers": {"a": 1}},
    {"op": "publish", "topic": "a", "headers": []},
    {"op": "request", "topic": "a"},
    {"op": "request", "id": 1, "topic": "a", "timeout": 0},
    {"op": "request", "id": 1, "topic": "a", "timeout": "soon"},
    {"op": "request", "id": 1, "topic": "a", "timeout": True},
    {"op": "auth"},
    {"op": "auth", "token": 1},
    {"op": "peers"},
]


async def test_a_mistake_is_answered_and_the_client_goes_on(open_web: Web) -> None:
    for some in (MISTAKES[at : at + 8] for at in range(0, len(MISTAKES), 8)):
        async with client(open_web) as it:
            for message in some:
                await it.say(
                    message.get("op", ""), lawful=False, **{k: v for k, v in message.items() if k != "op"}
                )
                assert (await it.hear("error"))["error"] == "ProtocolError", message
            await it.ask("subscribe", "subscribed", id=1, pattern="a")
    assert open_web.rejected["mistake"] == len(MISTAKES)


async def test_many_mistakes_are_not_the_protocol(locked: Web) -> None:
    async with client(locked, token="all") as it:
        for _ in range(4):
            await it.say("dance", lawful=False, id=3)
        assert await it.closed() == 1008
        assert len(it.heard) == 4
    assert locked.rejected["mistake"] == 4


async def test_no_known_subprotocol(locked: Web) -> None:
    async with client(locked, token="all", subprotocols=["soap"], ready=False) as it:
        assert await it.closed() == 1008
    assert locked.rejected["subprotocol"] == 1


async def test_too_large(near: mesh.Node) -> None:
    """What is a little too large, and what is without end."""
    async with web(near, bounds=Bounds(body_bytes=100_000)) as it:
        async with client(it) as one:
            await one.raw('{"op":"publish","topic":"a","value":"' + "x" * 100_000 + '"}')
            assert await one.closed() == 1009
        assert it.rejected["too_large"] == 1
        async with raw(it) as stream:
            with trio.move_on_after(PATIENCE):
                try:
                    await stream.send_all(masked(1, b'{"op":"', fin=False))
                    while True:
                        await stream.send_all(masked(0, b"x" * 50_000, fin=False))
                except trio.BrokenResourceError:
                    pass
        await it.until("too_large", 2)
        assert (await it.ask("POST", "/api/v1/publish", b"x" * 100_001)).problem == "TooLarge"


async def test_who_is_refused_while_still_sending_hears_why(near: mesh.Node) -> None:
    """A connection that is closed with something unread is reset, and takes the answer with it."""
    async with web(near, bounds=Bounds(body_bytes=100_000, close_within=PATIENCE)) as it:
        stream = await trio.open_tcp_stream("127.0.0.1", it.port)
        async with stream:
            head = f"POST /api/v1/publish HTTP/1.1\r\nhost: 127.0.0.1:{it.port}\r\ncontent-length: 200000\r\n\r\n"
            await stream.send_all(head.encode())
            await it.until("too_large", 1)  # judged by its head
            await stream.send_all(bytes(200_000))
            with trio.fail_after(PATIENCE):
                assert (await stream.receive_some(65536)).startswith(b"HTTP/1.1 413 ")


async def test_a_thousand_subscriptions(locked: Web) -> None:
    async with client(locked, token="all") as it:
        for number in range(1000):
            await it.raw(json.dumps({"op": "subscribe", "id": number, "pattern": f"a/{number % 500}"}))
        with trio.fail_after(PATIENCE):
            answers = [json.loads(await it.socket.recv())["op"] for _ in range(1000)]
        assert answers.count("subscribed") == 20
        assert answers.count("error") == 980
        assert locked.gateway.counters.rejected["too_many_subscriptions"] == 980
        await it.ask("unsubscribe", "unsubscribed", id=0)
        await it.ask("subscribe", "subscribed", id=0, pattern="b")


BROKEN_FRAMES: list[tuple[bytes, int]] = [
    (masked(3, b"reserved opcode"), 1002),
    (masked(11, b"reserved control opcode"), 1002),
    (masked(1, b"reserved bits", reserved=2), 1002),
    (masked(0, b"nothing to continue"), 1002),
    (masked(1, b"begun", fin=False) + masked(1, b"and begun again"), 1002),
    (masked(9, b"x" * 126), 1002),
    (masked(9, b"fragmented ping", fin=False), 1002),
    (masked(1, b"\xc3\x28"), 1007),
    (masked(1, b"\xc3", fin=False) + masked(0, b"\x28"), 1007),
    (masked(1, b'"cut\xe2\x82'), 1007),
    (masked(8, b"\x00"), 1002),
    (masked(8, b"\x03\xec"), 1002),  # 1004, which nobody sends
    (masked(8, b"\x03\xe8\xff"), 1007),
    (b"\x81\x05hello", 1002),  # not masked
    (b"\x81\xff" + b"\xff" * 12, 1002),  # of 2**64 - 1 bytes
    (b"\x00" * 40, 1002),
    (b"GET / HTTP/1.1\r\n\r\n", 1002),
]


async def test_frames_that_break_the_rules_end_the_connection(open_web: Web) -> None:
    """RFC 6455 §5 and §7.1.7: the endpoint fails the connection, and says why (§7.4.1)."""
    for frames, code in BROKEN_FRAMES:
        async with raw(open_web) as stream:
            await stream.send_all(frames)
            with trio.fail_after(PATIENCE):
                opcode, payload = await read_frame(stream)
                assert (opcode, payload[:2]) == (8, code.to_bytes(2)), (frames, payload)
                await stream.send_all(b"\xff" * 1000)  # what comes after is nobody's
                await stream.send_eof()
                assert (await read_frame(stream))[0] == -1
        assert (await open_web.ask("GET", "/healthz")).status == 200
    utf8 = sum(code == 1007 for _, code in BROKEN_FRAMES)
    assert open_web.rejected["not_utf8"] == utf8
    assert open_web.rejected["broken_frame"] == len(BROKEN_FRAMES) - utf8


async def test_what_came_before_a_broken_frame_counts(open_web: Web, far: mesh.Node) -> None:
    async with raw(open_web) as stream, far.subscribe("a") as there:
        await stream.send_all(masked(1, b'{"op":"publish","id":1,"topic":"a","value":7}') + masked(3, b""))
        with trio.fail_after(PATIENCE):
            assert b"published" in (await read_frame(stream))[1]
            assert (await read_frame(stream))[1][:2] == b"\x03\xea"
            assert (await there.__anext__()).value == 7


async def test_fragments_pings_and_closing(open_web: Web) -> None:
    """RFC 6455 §5.4, §5.5: control frames may come between fragments; a ping's payload returns."""
    async with raw(open_web) as stream:
        message = b'{"op":"publish","id":1,"topic":"a","value":"\xc3\xbc"}'
        for place, byte in enumerate(message):
            last = place == len(message) - 1
            await stream.send_all(masked(0 if place else 1, bytes((byte,)), fin=last))
            if place == 5:
                await stream.send_all(masked(9, b"are you there"))
        with trio.fail_after(PATIENCE):
            assert await read_frame(stream) == (10, b"are you there")
            assert b"published" in (await read_frame(stream))[1]
            await stream.send_all(masked(10, b"a pong that nobody asked for"))
            await stream.send_all(masked(8, b"\x03\xe8bye"))
            assert await read_frame(stream) == (8, b"\x03\xe8bye")
            assert (await read_frame(stream))[0] == -1


# -- who may come in -------------------------------------------------------------------------------


async def refused(where: Web, status: int, **options: object) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with client(where, **options):  # type: ignore[arg-type]
            pass
    assert caught.value.response.status_code == status
    assert json.loads(caught.value.response.body)["status"] == status


async def test_origins(locked: Web) -> None:
    for origin in (
        "https://evil.example",
        "http://panel.example",
        "https://panel.example.evil.example",
        "null",
    ):
        await refused(locked, 403, token="all", origin=origin)
        answer = await locked.ask("GET", "/healthz", headers={"Origin": origin})
        assert (answer.status, answer.problem) == (403, "origin")
    assert locked.rejected["origin"] == 8
    for origin in ("https://panel.example", locked.url):
        async with client(locked, token="all", origin=origin):
            pass
    answer = await locked.ask("GET", "/healthz", headers={"Origin": "https://panel.example"})
    assert answer.headers["access-control-allow-origin"] == "https://panel.example"
    preflight = {"Origin": "https://panel.example", "Access-Control-Request-Method": "POST"}
    assert (await locked.ask("OPTIONS", "/api/v1/publish", headers=preflight)).status == 204
    for site, mode, status in (
        ("cross-site", "no-cors", 403),
        ("same-site", "cors", 403),
        ("none", "navigate", 200),
    ):
        headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}
        assert (await locked.ask("GET", "/healthz", headers=headers)).status == status


async def test_hosts(locked: Web) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost:x", "10.0.0.1", "[::1", ""):
        assert (await locked.ask("GET", "/healthz", headers={"Host": host})).problem == "host"
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    headers = {**upgrade, "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Host": "evil.example"}
    assert (await locked.ask("GET", "/ws", headers=headers)).problem == "host"
    for host in ("gate.example", "GATE.example:7480", "localhost", "127.0.0.1:1", "[::1]:7480"):
        assert (await locked.ask("GET", "/healthz", headers={"Host": host})).status == 200


async def test_a_token_is_never_in_a_url(locked: Web) -> None:
    await refused(locked, 400, token="all", path="/ws?token=all")
    for name in ("token", "access_token", "Authorization"):
        answer = await locked.ask("GET", f"/api/v1/peers?{name}=all", headers={"Authorization": "Bearer all"})
        assert (answer.status, answer.problem) == (400, "token_in_url")
    assert locked.rejected["token_in_url"] == 4


async def test_without_a_token_and_with_a_wrong_one(locked: Web) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic YTph"},
        {"Authorization": ""},
    ):
        for method, path in (("GET", "/api/v1/peers"), ("GET", "/metrics"), ("GET", "/api/v1/statistics")):
            answer = await locked.ask(method, path, headers=headers)
            assert (answer.status, answer.problem) == (401, "NotAuthenticated")
            assert answer.headers["www-authenticate"].startswith("Bearer")
        if headers:
            async with client(locked, ready=False, headers=headers) as it:
                assert await it.closed() == 4401
    async with client(locked, ready=False) as it:
        await it.say("auth", token="wrong")
        assert await it.closed() == 4401
    async with client(locked, ready=False) as it:
        await it.say("peers", id=1)
        assert await it.closed() == 4401
        assert "NotAuthenticated" in str(it.heard)


async def test_a_token_allows_what_it_says_and_no_more(locked: Web, far: mesh.Node) -> None:
    async def nothing(_: mesh.Request) -> None:
        return None

    await locked.nursery.start(far.serve, "home/x", nothing)
    for op, fields in (
        ("publish", {"topic": "home/a/b"}),
        ("publish", {"topic": "garden"}),
        ("subscribe", {"pattern": "**"}),
        ("subscribe", {"pattern": "*/x"}),
        ("request", {"topic": "home/x"}),
    ):
        async with client(locked, token="home") as it:
            await it.ask("subscribe", "subscribed", id=7, pattern="home/x/**")
            assert (await it.ask(op, "error", id=1, **fields))["error"] == "NotAuthorized"
            assert await it.closed() == 4403
    assert locked.rejected["not_allowed"] == 5
    bearer = {"Authorization": "Bearer home"}
    for path, body in (
        ("/api/v1/publish", {"topic": "garden", "value": 1}),
        ("/api/v1/request", {"topic": "home/x"}),
    ):
        assert (await locked.ask("POST", path, body, bearer)).problem == "NotAuthorized"
    for path in ("/api/v1/subscribe?pattern=**", "/api/v1/traffic"):
        assert (await locked.ask("GET", path, headers=bearer)).problem == "NotAuthorized"
    assert (
        await locked.ask("POST", "/api/v1/publish", {"topic": "home/a", "value": 1}, bearer)
    ).status == 200


async def test_a_revoked_token_ends_its_connections(locked: Web) -> None:
    async with client(locked, token="home") as it, client(locked, token="all") as other:
        await it.ask("subscribe", "subscribed", id=1, pattern="home/x")
        del locked.book.tokens["home"]
        assert await it.closed() == 4401
        await other.ask("subscribe", "subscribed", id=1, pattern="home/x")
    assert locked.rejected["token_revoked"] == 1


async def test_the_open_loopback_closes_with_the_first_token(open_web: Web) -> None:
    async with client(open_web) as it:
        assert (await open_web.ask("GET", "/api/v1/peers")).status == 200
        behind_a_proxy = {"X-Forwarded-For": "192.0.2.1"}
        assert (await open_web.ask("GET", "/api/v1/peers", headers=behind_a_proxy)).status == 401
        open_web.book.tokens.update(Book(new=("subscribe:**",)).tokens)
        assert await it.closed() == 4401
        assert (await open_web.ask("GET", "/api/v1/peers")).status == 401


# -- slow and odd clients ----------------------------------------------------------------------------


NO_HTTP = [
    b"\x00\x01\x02\x03\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"POST /api/v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
    b"POST /api/v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
    b"GET /" + b"a&" * 100 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /?" + b"a&" * 100 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: \xff\r\n\r\n",
    b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 30,
]


async def test_what_is_no_http(locked: Web) -> None:
    for data in NO_HTTP:
        async with await trio.open_tcp_stream("127.0.0.1", locked.port) as stream:
            await stream.send_all(data)
            await stream.send_eof()
            answer = b""
            with trio.fail_after(PATIENCE):
                try:
                    async for more in stream:
                        answer += more
                except trio.BrokenResourceError:
                    pass
        assert not answer.startswith((b"HTTP/1.1 2", b"HTTP/1.1 500")), (data, answer)
    assert locked.rejected["not_http"] == 7
    assert locked.rejected["host"] == 1
    assert locked.rejected["http_version"] == 2
    assert locked.rejected["failed"] == 0


async def test_connections_are_bounded(near: mesh.Node) -> None:
    async with web(near, bounds=Bounds(connections=3)) as it:
        streams = [await trio.open_tcp_stream("127.0.0.1", it.port) for _ in range(5)]
        await it.until("connections", 2)
        for stream in streams:
            await stream.aclose()
        with trio.fail_after(PATIENCE):
            while it.gateway.counters.connections:  # noqa: ASYNC110 - counters wake nobody
                await trio.sleep(0.01)
        assert (await it.ask("GET", "/healthz")).status == 200
