"""The sockets: listening, one hypercorn connection for each client, and an end in bounded time.

    open → accept → TLS → ``SharedStream`` → ``serve_connection`` → the ASGI application

What hypercorn's own ``serve`` does around this is short; it is done here because the stream of each connection
must be ours (``stream``), and because open WebSockets must be told before the end.
"""

from __future__ import annotations

import errno
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

import trio
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext

from bridges.web.bounds import Bounds
from bridges.web.connection import serve_connection
from bridges.web.counters import Counters
from bridges.web.stream import SharedStream
from mesh.errors import ConfigError, TransportError

__all__ = ["Listening", "Server", "listen", "tls_context"]

_ANSWERS_END_WITHIN: Final = 1.0
"""Seconds for answers in progress, when the daemon stops."""
_TLS_WITHIN: Final = 10.0
_BACKLOG: Final = 1024  # a thousand pages that reconnect at once

_log = logging.getLogger("mesh.web")


class Listening:
    """Sockets that listen; ``urls`` says where."""

    def __init__(self, listeners: Sequence[trio.SocketListener], tls: ssl.SSLContext | None) -> None:
        self.listeners = listeners
        self.tls = tls

    @property
    def urls(self) -> list[str]:
        scheme = "http" if self.tls is None else "https"
        return [f"{scheme}://{_shown(listener.socket.getsockname())}" for listener in self.listeners]

    @property
    def port(self) -> int:
        return int(self.listeners[0].socket.getsockname()[1])


def _shown(address: Any) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def listen(host: str, port: int, tls: ssl.SSLContext | None = None) -> Listening:
    """Listen on HOST:PORT (0: any free one). Raises ``TransportError``."""
    try:
        return Listening(await trio.open_tcp_listeners(port, host=host.strip("[]"), backlog=_BACKLOG), tls)
    except OSError as error:
        # Trio tells of several addresses in a group; the number is the cause's.
        number = error.errno or getattr(error.__cause__, "errno", None)
        in_use = number == errno.EADDRINUSE or "address in use" in str(error).lower()
        reason = "the port is in use" if in_use else (error.strerror or str(error))
        raise TransportError(f"http://{host}:{port}", reason) from None


def tls_context(certificate: str, key: str) -> ssl.SSLContext:
    """TLS 1.2 or later with this certificate chain and key (files in PEM). Raises ``ConfigError``."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key or None)
    except OSError as error:  # SSLError is one
        raise ConfigError(f"{certificate}: {error.strerror or error}", key="http.certificate") from None
    return context


class Server:
    """Serves an ASGI application on sockets that listen."""

    def __init__(self, app: Callable[..., Awaitable[None]], bounds: Bounds, counters: Counters) -> None:
        self._app = app
        self._bounds = bounds
        self._counters = counters
        self._streams: dict[SharedStream, None] = {}
        self._empty = trio.Event()
        self._config = config = Config()
        config.h11_max_incomplete_size = bounds.head_bytes
        # The session says 1009 itself, and counts; what is far beyond ends in hypercorn, before it fills memory.
        config.websocket_max_message_size = bounds.body_bytes + (64 << 10)
        config.max_app_queue_size = 4
        config.include_server_header = False
        config.accesslog = None
        config.errorlog = logging.getLogger("mesh.web.hypercorn")
        config.errorlog.setLevel(logging.CRITICAL)

    async def run(self, listening: Listening, farewell: Callable[[], Awaitable[None]]) -> None:
        """Serve until cancelled; then stop listening, await ``farewell``, and end what is still open."""
        async with trio.open_nursery() as nursery:
            connections = await nursery.start(_shielded_nursery)
            context = WorkerContext(None)
            try:
                await trio.serve_listeners(
                    partial(self._connection, tls=listening.tls, context=context),
                    list(listening.listeners),
                    handler_nursery=connections,
                )
            finally:
                with trio.move_on_after(self._bounds.close_within, shield=True):
                    await context.terminated.set()
                    await farewell()
                for stream in list(self._streams):
                    if stream.rests:
                        stream.abort()
                with trio.move_on_after(_ANSWERS_END_WITHIN, shield=True):
                    if self._streams:
                        self._empty = trio.Event()
                        await self._empty.wait()
                for stream in list(self._streams):
                    stream.abort()
                connections.cancel_scope.cancel()

    async def _connection(
        self, socket: trio.SocketStream, *, tls: ssl.SSLContext | None, context: WorkerContext
    ) -> None:
        if len(self._streams) >= self._bounds.connections:
            self._counters.rejected["connections"] += 1
            await trio.aclose_forcefully(socket)
            return
        inner: trio.SocketStream | trio.SSLStream[trio.SocketStream] = socket
        if tls is not None:
            inner = trio.SSLStream(socket, tls, server_side=True, https_compatible=True)
        stream = SharedStream(inner, self._bounds)
        self._streams[stream] = None
        self._counters.connections += 1
        try:
            if isinstance(inner, trio.SSLStream):
                with trio.fail_after(_TLS_WITHIN):
                    await inner.do_handshake()
            await serve_connection(self._app, stream, self._config, context, self._counters)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            self._counters.rejected["broken"] += 1
        except Exception:  # noqa: BLE001
            # Policy: whatever goes wrong on one connection is logged and ends that connection alone.
            _log.exception("a connection failed")
            self._counters.rejected["failed"] += 1
        finally:
            stream.abort()
            del self._streams[stream]
            if not self._streams:
                self._empty.set()
            self._counters.connections -= 1


async def _shielded_nursery(*, task_status: trio.TaskStatus[trio.Nursery]) -> None:
    """A nursery that only its own scope cancels: whoever is connected learns of the end before it comes."""
    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.shield = True
        task_status.started(nursery)
        await trio.sleep_forever()
