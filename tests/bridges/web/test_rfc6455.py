"""The WebSocket protocol itself: a conformance suite, and what it does not ask."""

from __future__ import annotations

import base64
import re
import zlib
from pathlib import Path

import pytest
import trio

import mesh
from bridges.web.stream import SharedStream
from tests.bridges.web import conformance
from tests.bridges.web.clients import PATIENCE, Web, masked, raw, read_frame, shake_hands


async def test_the_cases_of_autobahn(near: mesh.Node, tmp_path: Path) -> None:
    """RFC 6455 in 247 cases, each judged by the messages and by the closing."""
    found = await conformance.run(near, tmp_path, without=conformance.LARGE)
    assert len(found) == 247
    bad = {name: verdict for name, verdict in found.items() if not {*verdict} <= {"OK", "INFORMATIONAL"}}
    assert not bad
    # Those three ask of what the RFC leaves open: data after a close, and codes from 5000 on.
    assert [name for name, (verdict, _) in found.items() if verdict != "OK"] == ["7.1.6", "7.13.1", "7.13.2"]


async def test_nothing_follows_the_close_frame_that_answers_theirs(
    open_web: Web, far: mesh.Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 6455 §5.5.1, with a message that comes after the close frame and before the session hears of it."""
    held = trio.Event()
    send_all = SharedStream.send_all

    async def send_and_pause(stream: SharedStream, data: bytes) -> None:
        await send_all(stream, data)
        if data[0] == 0x88:
            await held.wait()

    monkeypatch.setattr(SharedStream, "send_all", send_and_pause)
    async with raw(open_web) as leaver, raw(open_web) as stayer:
        with trio.fail_after(PATIENCE):
            for stream in (leaver, stayer):  # the hub passes messages on in this order
                await stream.send_all(masked(1, b'{"op":"subscribe","id":1,"pattern":"t"}'))
                assert b"subscribed" in (await read_frame(stream))[1]
            await leaver.send_all(masked(8, b"\x03\xe8"))
            assert await read_frame(leaver) == (8, b"\x03\xe8")
            await far.publish("t", 1)
            assert b'"message"' in (await read_frame(stayer))[1]
            held.set()
            assert (await read_frame(leaver))[0] == -1


async def test_nothing_follows_the_close_frame_that_is_ours(open_web: Web) -> None:
    async with raw(open_web) as stream:
        (session,) = open_web.gateway._sockets._sessions
        with trio.fail_after(PATIENCE):
            await stream.send_all(masked(3, b""))  # there is no such opcode
            assert (await read_frame(stream))[0] == 8
            session.look(trio.current_time() + open_web.gateway._bounds.ping_every)  # a ping is due
            with pytest.raises(trio.ClosedResourceError):
                await session._out.flush()
            await stream.send_all(masked(8, b"\x03\xe8"))
            assert (await read_frame(stream))[0] == -1


async def test_compression_is_not_offered(open_web: Web) -> None:
    """What browsers ask for: a thousandfold of memory for whoever sends zeros (RFC 7692 §7)."""
    asked = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
    async with raw(open_web, headers=asked) as stream:
        bomb = zlib.compress(bytes(1 << 20), wbits=-15)
        await stream.send_all(masked(1, bomb, reserved=4))
        with trio.fail_after(PATIENCE):
            assert (await read_frame(stream))[0] == 8
    head = await shake_hands(open_web, asked)
    assert b"101" in head
    assert b"extensions" not in head.lower()


@pytest.mark.parametrize(
    "wrong",
    [
        {"Sec-WebSocket-Version": "8"},
        {"Sec-WebSocket-Version": "14"},
        {"Sec-WebSocket-Key": base64.b64encode(bytes(15)).decode()},
        {"Sec-WebSocket-Key": "?" * 24},
        {"Sec-WebSocket-Key": None},
        {"Sec-WebSocket-Version": None},
        {"Upgrade": None},
        {"Upgrade": "h2c"},
    ],
    ids=str,
)
async def test_what_is_no_handshake_is_told_what_would_be(
    open_web: Web, wrong: dict[str, str | None]
) -> None:
    """RFC 6455 §4.2.2, §4.4: 426, and the version that is spoken."""
    head = await shake_hands(open_web, wrong)
    assert head.startswith(b"HTTP/1.1 426 "), head
    assert b"\r\nsec-websocket-version: 13\r\n" in head.lower()
    assert open_web.rejected["handshake"] == 1


async def test_nobody_changes_to_http_2(open_web: Web) -> None:
    """Deadlines and bounds are those of a connection with one request at a time."""
    async with await trio.open_tcp_stream("127.0.0.1", open_web.port) as stream:
        await stream.send_all(
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\n"
            b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n"
        )
        with trio.fail_after(PATIENCE):
            assert re.match(rb"HTTP/1.1 200 ", await stream.receive_some())
    async with await trio.open_tcp_stream("127.0.0.1", open_web.port) as stream:
        await stream.send_all(b"PRI * HTTP/2.0\r\nHost: localhost\r\n\r\nSM\r\n\r\n")
        with trio.fail_after(PATIENCE):
            assert re.match(rb"HTTP/1.1 505 ", await stream.receive_some())
