"""One connection: hypercorn's HTTP/1.1 on a ``SharedStream``, and of hypercorn no more than that.

    stream ── ``receive_some`` ──> ``_Http11`` (h11; wsproto after a handshake) ──> the ASGI application
       ^────── ``send_all`` ──────────┘

hypercorn has no settings for what is otherwise here: not to change to HTTP/2 in the clear where a client asks for it (the
deadlines and bounds of this gateway are a connection's, not a stream's), not to compress WebSocket messages (RFC 7692:
64 KiB on the wire become 64 MiB in memory, before anybody has shown a token), to answer a handshake of another version
with the one that is spoken (RFC 6455 §4.4), and to say why a connection fails (§7.1.7).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import Data, Request, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol, H11WSConnection
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.protocol.ws_stream import FrameTooLargeError, WSStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState as SharedState
from hypercorn.utils import parse_socket_addr
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Message, Ping
from wsproto.events import Event as WSProtoEvent
from wsproto.frame_protocol import CloseReason

from bridges.web.counters import Counters
from bridges.web.problems import MEDIA_TYPE, problem_body
from bridges.web.stream import SharedStream

__all__ = ["serve_connection"]

_READ: Final = 64 << 10


async def serve_connection(
    app: Callable[..., Awaitable[None]],
    stream: SharedStream,
    config: Config,
    context: WorkerContext,
    counters: Counters,
) -> None:
    """Serve one client until either side closes. The scope's state has the ``stream``."""
    family = stream.socket.family
    try:
        client = parse_socket_addr(family, stream.socket.getpeername())
        server = parse_socket_addr(family, stream.socket.getsockname())
    except OSError:
        return  # they are gone already

    async def send(event: Event) -> None:
        if isinstance(event, RawData):
            try:
                await stream.send_all(event.data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                await protocol.handle(Closed())
        elif isinstance(event, Closed):
            await close()
            await protocol.handle(Closed())
        # ``Updated`` says whether it idles; the stream knows, and keeps that deadline.

    async def close() -> None:
        try:
            await stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            pass  # it is closed already, or a closing comes while something is sent
        if protocol.has_refused:
            await stream.read_past()
        await stream.aclose()

    async with TaskGroup() as tasks:
        state = SharedState({"stream": stream})
        protocol = _Http11(app, config, context, tasks, state, stream.tls, client, server, send)  # type: ignore[arg-type]
        protocol.counters = counters
        try:
            try:
                while data := await stream.receive_some(_READ):
                    await protocol.handle(RawData(bytes(data)))
                if stream.is_late:
                    await protocol.too_slow()
                await protocol.handle(RawData(b""))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # they are gone, which is how most clients leave
            await protocol.handle(Closed())
        finally:
            await close()


class _Http11(H11Protocol):
    """HTTP/1.1 that stays what it is."""

    counters: Counters
    has_refused = False

    async def too_slow(self) -> None:
        """The head of a request has begun, and does not end."""
        await self._refuse(408, "too_slow", "TooSlow", "the head of the request took too long")

    async def _send_error_response(self, status_code: int) -> None:
        await self._refuse(status_code, "not_http", "NotHttp", "this is no request of HTTP/1.1 (RFC 9112)")

    async def _refuse(self, status: int, reason: str, error: str, detail: str) -> None:
        self.has_refused = True
        self.counters.rejected[reason] += 1
        body = problem_body(status, error, detail)
        head = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        await self._send_h11_event(h11.Response(status_code=status, headers=head))
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())

    async def _check_protocol(self, event: h11.Request) -> None:
        """Where hypercorn would change to HTTP/2: an ``Upgrade: h2c`` is ignored (RFC 9110 §7.8)."""

    async def _create_stream(self, request: h11.Request) -> None:
        """As hypercorn's, with a stricter eye on what a handshake is, and without extensions to WebSockets."""
        is_handshake = _is_handshake(request)
        self.stream = (_WebSocket if is_handshake else HTTPStream)(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        if is_handshake:
            self.connection = H11WSConnection(cast(h11.Connection, self.connection))
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=[pair for pair in request.headers if pair[0] != b"sec-websocket-extensions"],
                http_version=request.http_version.decode(),
                method=request.method.decode().upper(),
                raw_path=request.target,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1
        await self.context.mark_request()


def _is_handshake(request: h11.Request) -> bool:
    """Version 13, and a key of 16 bytes (RFC 6455 §4.2.1)."""
    headers = dict(request.headers)
    try:
        key = base64.b64decode(headers.get(b"sec-websocket-key", b""), validate=True)
    except binascii.Error:
        return False
    wanted = {each.strip().lower() for each in headers.get(b"connection", b"").split(b",")}
    return (
        request.method == b"GET"
        and headers.get(b"sec-websocket-protocol", b"").isascii()  # hypercorn reads it as that
        and b"upgrade" in wanted
        and headers.get(b"upgrade", b"").lower() == b"websocket"
        and headers.get(b"sec-websocket-version") == b"13"
        and len(key) == 16
    )


class _WebSocket(WSStream):
    """Tells the application why a connection fails (RFC 6455 §7.1.7): ``websocket.disconnect`` with the code to close
    with, after what came before. What comes after it is read past."""

    _failed = False

    async def handle(self, event: StreamEvent) -> None:
        if not (self._failed and isinstance(event, Data)):
            await super().handle(event)

    async def _handle_events(self) -> None:
        for event in self.connection.events():
            if isinstance(event, Message):
                try:
                    self.buffer.extend(event)
                except FrameTooLargeError:
                    return await self._fail(CloseReason.MESSAGE_TOO_BIG, "too large")
                if event.message_finished:
                    await self._tell(self.buffer.to_message())
                    self.buffer.clear()
            elif isinstance(event, Ping):
                await self._send_wsproto_event(event.response())
            elif isinstance(event, CloseConnection):
                state = self.connection.state
                if state in (ConnectionState.OPEN, ConnectionState.LOCAL_CLOSING):
                    return await self._fail(
                        event.code, event.reason
                    )  # it is wsproto's own: a frame was wrong
                if state is ConnectionState.REMOTE_CLOSING:
                    await self._send_wsproto_event(event.response())
                await self.send(StreamClosed(stream_id=self.stream_id))
        return None

    async def _send_wsproto_event(self, event: WSProtoEvent) -> None:
        if isinstance(event, CloseConnection):
            # Ours or the answer to theirs: from here on the session's writer is silent, before it knows of the end.
            self.scope["state"]["stream"].say_goodbye()
        await super()._send_wsproto_event(event)

    async def _fail(self, code: int, reason: str | None) -> None:
        self._failed = True
        await self._tell({"type": "websocket.disconnect", "code": int(code), "reason": reason or ""})

    async def _tell(self, event: dict[str, Any]) -> None:
        assert self.app_put is not None, "frames come after the handshake"
        await self.app_put(event)
