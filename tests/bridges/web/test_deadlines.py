"""Time at the gateway: pings, silence, idling, slow heads and bodies, readers that stop, the rate of operations."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
import trio
from websockets.exceptions import ConnectionClosed

import mesh
from bridges.web.bounds import Bounds
from bridges.web.pace import Pace
from tests.bridges.web.clients import PATIENCE, Book, Web, client, masked, raw, read_frame, web

# A bound in these tests is either far shorter than what is waited for, or so long that it never comes:
# none asks that a machine be fast.


async def test_a_client_is_pinged_and_one_that_stays_silent_is_told_so(near: mesh.Node) -> None:
    async with web(near, bounds=Bounds(ping_every=0.1, silent_within=1.0)) as it, raw(it) as stream:
        with trio.fail_after(PATIENCE):
            assert await read_frame(stream) == (9, b"")
            while (frame := await read_frame(stream))[0] == 9:
                pass
        assert frame == (8, b"\x03\xe9nothing was heard for too long")
        assert it.rejected["silent"] == 1


async def test_a_pong_is_a_sign_of_life(open_web: Web) -> None:
    async with client(open_web) as it, raw(open_web) as mute:
        (session, silent) = open_web.gateway._sockets._sessions
        later = trio.current_time() + open_web.gateway._bounds.ping_every
        for each in (session, silent):
            each.look(later)
        with trio.fail_after(PATIENCE):
            assert await read_frame(mute) == (9, b"")
            before = session._stream.heard
            while session._stream.heard == before:  # noqa: ASYNC110 - a pong wakes nobody
                await trio.sleep(0.01)
        # Had both been heard then for the last time:
        session._stream.heard = later
        late = later + open_web.gateway._bounds.silent_within - 1
        for each in (session, silent):
            each.look(late)
        assert (session.ending, silent.ending and silent.ending.code) == (None, 1001)
        await it.ask("subscribe", "subscribed", id=1, pattern="a")


async def test_who_says_nothing_is_not_authenticated(near: mesh.Node) -> None:
    async with web(near, Book(all=("publish:**",)), bounds=Bounds(auth_within=0.3)) as it:
        async with client(it, ready=False) as silent:
            assert await silent.closed() == 4401
        assert it.rejected["auth_timeout"] == 1
        async with client(it, ready=False) as late:
            # What is no auth does not count as one, however much of it comes.
            with trio.move_on_after(PATIENCE), suppress(ConnectionClosed):
                for _ in range(5):
                    await late.raw('{"op":"dance"}')
                    await trio.sleep(0.1)
            assert await late.closed() == 4401


async def test_a_connection_that_idles_is_closed(near: mesh.Node) -> None:
    """Before a first request, and between two: nobody has done anything wrong, and nothing is counted."""
    async with web(near, bounds=Bounds(head_within=0.3, idle_within=0.3)) as it:
        async with await trio.open_tcp_stream("127.0.0.1", it.port) as stream:
            with trio.fail_after(PATIENCE):
                assert await stream.receive_some() == b""
        async with await trio.open_tcp_stream("127.0.0.1", it.port) as stream:
            with trio.fail_after(PATIENCE):
                await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
                while await stream.receive_some():
                    pass
        assert not it.rejected


@pytest.mark.parametrize("first", [True, False])
async def test_a_head_that_comes_drop_by_drop(near: mesh.Node, first: bool) -> None:
    """Slow-loris, at once and after a first request: 408, however many drops."""
    bounds = Bounds(head_within=0.5 if first else PATIENCE, idle_within=0.5)
    async with web(near, bounds=bounds) as it, await trio.open_tcp_stream("127.0.0.1", it.port) as stream:
        with trio.fail_after(PATIENCE):
            if not first:
                await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert b'"ok"' in await read_until(stream, b"}")
            await stream.send_all(b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nX-")
            answer = b""
            while not answer:
                with trio.move_on_after(0.02):
                    answer = await stream.receive_some()
                if not answer:
                    await stream.send_all(b"a")
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b'"error": "TooSlow"' in answer + await read_until(stream, b"")
        assert it.rejected == {"too_slow": 1}


async def read_until(stream: trio.SocketStream, wanted: bytes) -> bytes:
    """What comes until ``wanted``, or the end."""
    data = b""
    while not (wanted and wanted in data):
        try:
            more = await stream.receive_some()
        except trio.BrokenResourceError:
            break
        if not more:
            break
        data += more
    return data


async def test_a_body_that_comes_drop_by_drop(near: mesh.Node) -> None:
    async with (
        web(near, bounds=Bounds(body_within=0.5)) as it,
        await trio.open_tcp_stream("127.0.0.1", it.port) as stream,
    ):
        await stream.send_all(
            b"POST /api/v1/publish HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        with trio.fail_after(PATIENCE):
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 408 ")
        assert it.rejected == {"too_slow": 1}


async def test_a_socket_that_nobody_empties_is_closed(near: mesh.Node, far: mesh.Node) -> None:
    """A reader of events that has stopped, and a WebSocket client likewise: each ends, and holds nothing."""
    async with (
        web(near, bounds=Bounds(send_within=0.3)) as it,
        raw(it) as stuck,
        await trio.open_tcp_stream("127.0.0.1", it.port) as events,
    ):
        await stuck.send_all(masked(1, b'{"op":"subscribe","id":1,"pattern":"t"}'))
        await events.send_all(b"GET /api/v1/subscribe?pattern=t HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with trio.fail_after(PATIENCE):
            assert b"subscribed" in (await read_frame(stuck))[1]
            await read_until(events, b": live\n\n")
            while it.gateway.counters.connections:  # until both are cut off
                await far.publish("t", "x" * 500_000)
                await trio.sleep(0.01)
        assert it.gateway._sockets.queued_bytes == 0


async def test_answers_that_nobody_reads(near: mesh.Node, far: mesh.Node) -> None:
    async def large(_: mesh.Request) -> bytes:
        return bytes(500_000)

    async with web(near, bounds=Bounds(answers_bytes=1_000_000)) as it, raw(it) as stuck:
        await it.nursery.start(far.serve, "large", large)
        for number in range(60):
            operation = {"op": "request", "id": number, "topic": "large", "timeout": PATIENCE}
            await stuck.send_all(masked(1, json.dumps(operation).encode()))
        await it.until("answers_unread")


async def test_what_is_in_flight_is_bounded(near: mesh.Node, far: mesh.Node) -> None:
    async def never(_: mesh.Request) -> Any:
        await trio.sleep_forever()

    async with web(near, bounds=Bounds(requests=2, patterns=2)) as it, client(it) as one:
        await it.nursery.start(far.serve, "never", never)
        for number in (1, 2, 3):
            await one.say("request", id=number, topic="never", timeout=PATIENCE)
        assert (await one.hear("error", id=3))["error"] == "TooMany"
        assert it.rejected["too_many_requests"] == 1
        for pattern in ("a", "b"):
            await one.ask("subscribe", "subscribed", id=pattern, pattern=pattern)
        assert (await one.ask("subscribe", "error", id="c", pattern="c"))["error"] == "TooManyPatterns"
        answer = await it.ask("GET", "/api/v1/subscribe?pattern=c")
        assert (answer.status, answer.problem) == (429, "TooManyPatterns")


async def test_the_rate_of_operations(autojump_clock: trio.testing.MockClock) -> None:
    """A burst at once, then no faster than the rate; a pause gives a burst again, and no more than one."""
    pace = Pace(10.0, 5)
    took = []
    for pause in (0.0, 100.0):
        await trio.sleep(pause)
        began = trio.current_time()
        for _ in range(25):
            await pace.wait()
        took.append(trio.current_time() - began)
    assert took == [pytest.approx(2.0, abs=0.11)] * 2
