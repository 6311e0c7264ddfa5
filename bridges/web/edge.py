"""The first thing that every request meets: what may come in, and where it goes.

hypercorn → ``Edge`` ─ refused (Host, Origin, a token in the URL) → problem details
                     ├ websocket /ws → ``websocket.Sockets``
                     └ http → FastAPI, with the client's grant in the scope's state, under deadlines
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from bridges.web.access import Access, Refusal, headers_of
from bridges.web.bounds import Bounds
from bridges.web.counters import Counters
from bridges.web.problems import FAILED, MEDIA_TYPE, problem_body
from bridges.web.stream import SharedStream
from bridges.web.websocket import Asgi, Sockets, reject_handshake

__all__ = ["Edge"]

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Asgi, Receive, Send], Awaitable[None]]

_log = logging.getLogger("mesh.web")

_SAFE: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
]
"""On every answer. All that the pages need comes from here."""


class Edge:
    """The ASGI application of the gateway."""

    def __init__(
        self, app: App, sockets: Sockets, access: Access, bounds: Bounds, counters: Counters
    ) -> None:
        self._app = app
        self._sockets = sockets
        self._access = access
        self._bounds = bounds
        self._counters = counters

    async def __call__(self, scope: Asgi, receive: Receive, send: Send, *_: Any) -> None:
        headers = headers_of(scope)
        stream = scope["state"]["stream"]
        assert isinstance(stream, SharedStream)
        if scope["http_version"] in ("1.0", "1.1"):
            refusal = self._access.refuse(scope, headers)
        else:
            refusal = Refusal(505, "http_version", "this is HTTP/1.1")
        if scope["type"] == "websocket":
            if refusal is None and scope["path"] != "/ws":
                refusal = Refusal(404, "path", "WebSockets are at /ws")
            if refusal is None:
                await self._websocket(scope, receive, send)
            else:
                self._counters.rejected[refusal.reason] += 1
                await reject_handshake(refusal, receive, send)
        elif scope["type"] == "http":
            stream.work()
            try:
                await self._http(scope, receive, send, headers, refusal)
            finally:
                stream.rest()

    async def _websocket(self, scope: Asgi, receive: Receive, send: Send) -> None:
        try:
            await self._sockets.serve(scope, receive, send)
        except Exception:  # noqa: BLE001
            # Policy: a mistake of ours with one client is logged and ends that client (1011), not the gateway.
            _log.exception("a WebSocket client's session failed")
            self._counters.rejected["failed"] += 1

    async def _http(
        self, scope: Asgi, receive: Receive, send: Send, headers: dict[str, str], refusal: Refusal | None
    ) -> None:
        answer = _Answer(send, self._access.allowed_origin(headers))
        try:
            if refusal is not None:
                self._counters.rejected[refusal.reason] += 1
                await self._discard(receive)
                await answer.problem(refusal.status, refusal.reason, refusal.detail)
            elif scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                await answer.preflight()
            elif headers.get("content-length", "0").isdigit() and (
                int(headers.get("content-length", "0")) > self._bounds.body_bytes
            ):
                self._counters.rejected["too_large"] += 1
                await self._discard(receive)
                await answer.problem(413, "TooLarge", f"a body has at most {self._bounds.body_bytes} bytes")
            else:
                scope["state"]["grant"] = self._access.grant(scope, headers)
                await self._serve(scope, receive, answer)
        finally:
            self._counters.answers[_route(scope), answer.status] += 1

    async def _serve(self, scope: Asgi, receive: Receive, answer: _Answer) -> None:
        try:
            # Whole before anything else runs: the models need all of it, and its bounds are kept in one place.
            body = await self._body(receive)
        except _BodyRefused as refused:
            self._counters.rejected[refused.reason] += 1
            await answer.problem(refused.status, refused.error, refused.detail)
            return
        first = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_body() -> Any:
            return first.pop() if first else await trio.sleep_forever()

        async def until_gone() -> None:
            """Nobody works for a client that has left: what it asked of the mesh is cancelled there, too."""
            while (await receive())["type"] != "http.disconnect":
                pass
            nursery.cancel_scope.cancel()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(until_gone)
                await self._app(scope, receive_body, answer.send)
                nursery.cancel_scope.cancel()
        except Exception:  # noqa: BLE001
            # Policy: a mistake of ours in one answer ends that answer, not the gateway. The application's handler
            # has logged, counted and answered it (``rest``); Starlette raises it once more.
            await answer.problem(500, "Failed", FAILED)

    async def _discard(self, receive: Receive) -> None:
        """Take what the client is still sending, for a bounded time and size: a connection that is closed with
        something unread is reset, and the client would not hear the answer (RFC 9112 §9.6)."""
        size = 0
        with trio.move_on_after(self._bounds.close_within):
            while size <= self._bounds.discard_bytes:
                event = await receive()
                size += len(event.get("body", b""))
                if not event.get("more_body", False):
                    return

    async def _body(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        with trio.move_on_after(self._bounds.body_within):
            while True:
                event = await receive()
                parts.append(event.get("body", b""))
                size += len(parts[-1])
                if size > self._bounds.body_bytes:
                    raise _BodyRefused(
                        413, "too_large", "TooLarge", f"a body has at most {self._bounds.body_bytes} bytes"
                    )
                if not event.get("more_body", False):
                    return b"".join(parts)
        raise _BodyRefused(
            408, "too_slow", "TooSlow", f"the body took more than {self._bounds.body_within:g} s"
        )


def _route(scope: Asgi) -> str:
    """The path as it is written in the description: what clients make up is counted as one."""
    return getattr(scope.get("route"), "path", "other")


class _BodyRefused(Exception):
    def __init__(self, status: int, reason: str, error: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.error = error
        self.detail = detail


class _Answer:
    """An answer on its way out, with the headers that all have. ``status`` is 0 until it begins."""

    def __init__(self, send: Send, origin: str | None) -> None:
        self._send = send
        self._origin = origin
        self.status = 0

    async def send(self, event: Any) -> None:
        if event["type"] == "http.response.start":
            self.status = event["status"]
            event = {**event, "headers": [*event.get("headers", ()), *_SAFE, *self._cors()]}
        await self._send(event)

    def _cors(self) -> list[tuple[bytes, bytes]]:
        if self._origin is None:
            return []
        return [(b"access-control-allow-origin", self._origin.encode()), (b"vary", b"Origin")]

    async def problem(self, status: int, error: str, detail: str) -> None:
        if self.status:
            return  # it has begun: all that is left is to end it
        body = problem_body(status, error, detail)
        head = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
        if status in (408, 413):
            head.append((b"connection", b"close"))  # the rest of the body is not wanted
        await self.send({"type": "http.response.start", "status": status, "headers": head})
        await self.send({"type": "http.response.body", "body": body})

    async def preflight(self) -> None:
        head = [
            (b"access-control-allow-methods", b"GET, POST"),
            (b"access-control-allow-headers", b"authorization, content-type"),
            (b"access-control-max-age", b"600"),
        ]
        await self.send({"type": "http.response.start", "status": 204, "headers": head})
        await self.send({"type": "http.response.body", "body": b""})
