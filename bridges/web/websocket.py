"""``/ws``: from the handshake to the closing frame (RFC 6455), around a ``Session``.

The handshake, incoming frames and the closing are hypercorn's (ASGI's ``websocket`` scope); what goes out in
between is the session's, straight to the shared stream.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Final

import trio

import mesh
from bridges.web.access import Access, Refusal, headers_of
from bridges.web.bounds import Bounds
from bridges.web.counters import Counters
from bridges.web.encoding import Format
from bridges.web.hub import Hub
from bridges.web.problems import problem_body
from bridges.web.session import (
    GOING_AWAY,
    NOT_AUTHENTICATED,
    NOT_THE_PROTOCOL,
    TOO_LARGE,
    Ending,
    Session,
)
from bridges.web.stream import SharedStream
from bridges.web.wire import SUBPROTOCOLS

__all__ = ["Asgi", "Sockets", "reject_handshake"]

Asgi = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

LOOK_EVERY: Final = 0.5
"""Seconds between looks at the deadlines of all clients; a revoked token ends its connections within twice that."""

FAILURES: Final = {1002: "broken_frame", 1007: "not_utf8", TOO_LARGE: "too_large"}
"""Why a frame fails a connection (RFC 6455 §7.4.1), as it is counted."""

_log = logging.getLogger("mesh.web")


class Sockets:
    """All WebSocket clients of one gateway."""

    def __init__(self, node: mesh.Node, hub: Hub, access: Access, bounds: Bounds, counters: Counters) -> None:
        self._parts = node, hub, access, bounds, counters
        self._access = access
        self._bounds = bounds
        self._counters = counters
        self._sessions: dict[Session, None] = {}
        self._empty = trio.Event()

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def queued_bytes(self) -> int:
        return sum(session.outbox.size for session in self._sessions)

    @property
    def sent(self) -> int:
        return self._counters.sent + sum(session.outbox.taken for session in self._sessions)

    @property
    def dropped(self) -> int:
        return self._counters.dropped + sum(session.outbox.dropped for session in self._sessions)

    async def watch(self) -> None:
        """Keep the deadlines of all clients until cancelled."""
        while True:
            await trio.sleep(LOOK_EVERY)
            now = trio.current_time()
            for session in list(self._sessions):
                session.look(now)

    async def close(self) -> None:
        """Tell all clients that the daemon stops; returns when they are gone."""
        for session in list(self._sessions):
            session.end(GOING_AWAY, "the daemon stops")
        if self._sessions:
            self._empty = trio.Event()
            await self._empty.wait()

    @contextmanager
    def _held(self, session: Session) -> Iterator[None]:
        self._sessions[session] = None
        try:
            yield
        finally:
            del self._sessions[session]
            if not self._sessions:
                self._empty.set()

    async def serve(self, scope: Asgi, receive: Receive, send: Send) -> None:
        """One client, from its handshake on."""
        headers = headers_of(scope)
        stream = scope["state"]["stream"]
        assert isinstance(stream, SharedStream)
        stream.work()
        await receive()  # websocket.connect
        offered = scope["subprotocols"]
        chosen = next((each for each in offered if each in SUBPROTOCOLS), None)
        await send({"type": "websocket.accept", "subprotocol": chosen})
        if offered and chosen is None:
            self._counters.rejected["subprotocol"] += 1
            ending = Ending(NOT_THE_PROTOCOL, f"offer {' or '.join(SUBPROTOCOLS)}")
        elif (grant := self._access.grant(scope, headers)) is None and "authorization" in headers:
            self._counters.rejected["wrong_token"] += 1
            ending = Ending(NOT_AUTHENTICATED, "this token is not known, or counts no longer")
        else:
            form: Format = "cbor" if chosen == "zeromesh.v1.cbor" else "json"
            session = Session(*self._parts, scope=scope, stream=stream, form=form, grant=grant)
            incoming = _Incoming(receive, self._counters)
            with self._held(session):
                await session.run(incoming.next)
                if (ended := session.ending or incoming.failed) is not None:
                    await self._say_goodbye(ended, receive, send)
            return
        await self._say_goodbye(ending, receive, send)

    async def _say_goodbye(self, ending: Ending, receive: Receive, send: Send) -> None:
        with trio.move_on_after(self._bounds.close_within, shield=True):
            await send({"type": "websocket.close", "code": ending.code, "reason": ending.reason[:120]})
            # To close at once would let the client's unread messages reset the connection before it reads why.
            while (await receive())["type"] != "websocket.disconnect":
                pass


class _Incoming:
    """What the client sends, and whether a frame of it failed the connection."""

    def __init__(self, receive: Receive, counters: Counters) -> None:
        self._receive = receive
        self._counters = counters
        self.failed: Ending | None = None

    async def next(self) -> str | bytes | None:
        event = await self._receive()
        if event["type"] != "websocket.receive":
            if (reason := FAILURES.get(event["code"])) is not None:
                self._counters.rejected[reason] += 1
                self.failed = Ending(event["code"], event["reason"])
            return None
        text: str | None = event.get("text")
        data: bytes = event.get("bytes") or b""
        return data if text is None else text


async def reject_handshake(refusal: Refusal, receive: Receive, send: Send) -> None:
    """Answer a WebSocket's handshake with an HTTP error (ASGI's ``websocket.http.response``)."""
    await receive()
    body = problem_body(refusal.status, refusal.reason, refusal.detail)
    head = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "websocket.http.response.start", "status": refusal.status, "headers": head})
    await send({"type": "websocket.http.response.body", "body": body})
