"""The daemon's control socket: how commands on this machine ask the daemon of their home.

A Unix socket in the home, readable by its owner alone.  One JSON object a line each way:

    → {"op": "peers"}
    ← {"ok": [...]}                                   one answer, or
    ← {"item": …} for each, until either side closes  (an operation that goes on), or
    ← {"error": "UnknownPeer", "message": "…"}

``Control`` knows lines and errors; what the operations do stands in ``daemon.py``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import stat
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import trio

from mesh.errors import MeshError, TransportError

__all__ = [
    "MAX_REQUEST",
    "MAX_RESPONSE",
    "Control",
    "DaemonError",
    "NoDaemon",
    "Operation",
    "Stream",
    "ask",
    "listen_to",
]

MAX_REQUEST: Final = 64 << 10
"""Bytes in a request's line: an operation and a few names."""
MAX_RESPONSE: Final = 4 << 20
"""Bytes in an answer's line: 256 peers with eight endpoints each are some 200 KiB."""
MAX_CONNECTIONS: Final = 64  # all of one user; a watcher holds one for as long as it runs
PATIENCE: Final = 10.0  # seconds for a client to say what it wants, and for it to take the answer

_log = logging.getLogger(__name__)

Operation = Callable[[Mapping[str, Any]], Awaitable[Any]]
Stream = Callable[[Mapping[str, Any]], AsyncIterator[Any]]


class NoDaemon(MeshError):
    """No daemon runs in this home. ``home`` is its path."""

    def __init__(self, home: Path) -> None:
        super().__init__(f"no daemon runs in {home}: start `mesh daemon`")
        self.home = home


class DaemonError(MeshError):
    """The daemon could not do it. ``type_name`` is the class of its error."""

    def __init__(self, type_name: str, message: str) -> None:
        super().__init__(message or type_name)
        self.type_name = type_name


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name for a socket's path that fits ``sockaddr_un`` (107 bytes), however deep the folder is."""
    if len(os.fsencode(path)) <= 107 or sys.platform != "linux":
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


# -- the daemon's side ------------------------------------------------------------------------


class Control:
    """The socket at ``path`` and what can be asked there. The caller holds the home's lock."""

    def __init__(
        self, path: Path, operations: Mapping[str, Operation], streams: Mapping[str, Stream]
    ) -> None:
        self._path = path
        self._operations = operations
        self._streams = streams
        self._room = trio.CapacityLimiter(MAX_CONNECTIONS)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled; the socket's file goes with it. Raises ``TransportError``."""
        listener = self._listen()
        try:
            async with listener, trio.open_nursery() as nursery:
                task_status.started()
                await trio.serve_listeners(self._serve, [listener], handler_nursery=nursery)
        finally:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _listen(self) -> trio.SocketListener:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            channel.setblocking(False)
            with contextlib.suppress(FileNotFoundError):  # left by a daemon that was killed
                if stat.S_ISSOCK(self._path.lstat().st_mode):
                    self._path.unlink()
            with _short(self._path) as name:
                before = os.umask(0o177)
                try:
                    channel.bind(name)
                finally:
                    os.umask(before)
            channel.listen(16)
        except OSError as error:
            channel.close()
            raise TransportError(str(self._path), error.strerror or str(error)) from None
        return trio.SocketListener(trio.socket.from_stdlib_socket(channel))

    async def _serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            if not _same_user(stream.socket):
                return
            try:
                self._room.acquire_on_behalf_of_nowait(stream)
            except trio.WouldBlock:
                await _reply(stream, {"error": "TooMany", "message": "too many commands ask at once"})
                return
            try:
                await self._answer(stream)
            except trio.BrokenResourceError:
                pass  # the command went away
            finally:
                self._room.release_on_behalf_of(stream)

    async def _answer(self, stream: trio.SocketStream) -> None:
        lines = _Lines(stream, MAX_REQUEST)
        while True:
            line = None
            with trio.move_on_after(PATIENCE):
                line = await lines.next()
            if not line:
                return
            request = _request(line)
            operation = str(request.get("op"))
            try:
                if operation in self._streams:
                    await self._follow(stream, self._streams[operation](request))
                    return
                if operation not in self._operations:
                    await _reply(stream, _mistake(f"no operation {operation!r}"))
                    return
                answer = {"ok": await self._operations[operation](request)}
            except (MeshError, OSError) as error:
                answer = {"error": type(error).__name__, "message": str(error)}
            except Exception as error:  # noqa: BLE001 - policy: one operation's mistake is answered, logged,
                # and no reason for the daemon to end.
                _log.exception("control operation %s", operation)
                answer = {"error": type(error).__name__, "message": str(error)}
            await _reply(stream, answer)

    @staticmethod
    async def _follow(stream: trio.SocketStream, items: AsyncIterator[Any]) -> None:
        async def until_closed() -> None:
            while await stream.receive_some(1024):
                pass  # nothing more is expected; the end of the stream is
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(until_closed)
            async for item in items:
                await _reply(stream, {"item": item})
            nursery.cancel_scope.cancel()


def _same_user(channel: trio.socket.SocketType) -> bool:
    """Whether the other side is this user (or root); the file's mode says so too, where modes count."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", credentials)
    return user in (os.getuid(), 0)


def _request(line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return request if isinstance(request, dict) and isinstance(request.get("op"), str) else {}


def _mistake(message: str) -> dict[str, str]:
    return {"error": "ControlError", "message": message}


async def _reply(stream: trio.SocketStream, answer: Any) -> None:
    with trio.move_on_after(PATIENCE) as scope:
        await stream.send_all(json.dumps(answer, ensure_ascii=False).encode() + b"\n")
    if scope.cancelled_caught:
        raise trio.BrokenResourceError("the command does not read")


class _Lines:
    """Lines of bounded length off a stream."""

    def __init__(self, stream: trio.SocketStream, limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self._rest = b""

    async def next(self) -> bytes:
        """The next line; empty at the end of the stream, and for a line over the limit."""
        while b"\n" not in self._rest:
            if len(self._rest) > self._limit:
                return b""
            chunk = await self._stream.receive_some(65536)
            if not chunk:
                return b""
            self._rest += chunk
        line, self._rest = self._rest.split(b"\n", 1)
        return line if len(line) <= self._limit else b""


# -- the commands' side -----------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _connected(home: Path, path: Path) -> AsyncIterator[trio.SocketStream]:
    channel = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(path) as name:
            await channel.connect(name)
    except (FileNotFoundError, ConnectionRefusedError):  # none, or one that was killed
        channel.close()
        raise NoDaemon(home) from None
    except OSError as error:
        channel.close()
        raise TransportError(str(path), error.strerror or str(error)) from None
    except BaseException:
        channel.close()
        raise
    async with trio.SocketStream(channel) as stream:
        yield stream


async def ask(home: Path, path: Path, operation: str, *, patience: float = PATIENCE, **fields: Any) -> Any:
    """One question to the daemon of ``home``, whose socket is ``path``; its answer.

    Raises ``NoDaemon``, ``DaemonError``, ``TransportError``.
    """
    async with _connected(home, path) as stream:
        with trio.move_on_after(patience):
            try:
                await _reply(stream, {"op": operation, **fields})
                return _unwrap(await _Lines(stream, MAX_RESPONSE).next(), "ok")
            except trio.BrokenResourceError:
                raise NoDaemon(home) from None
        raise DaemonError("TimeoutError", f"the daemon did not answer {operation!r} within {patience:g} s")


async def listen_to(home: Path, path: Path, operation: str, **fields: Any) -> AsyncIterator[Any]:
    """The items of an operation that goes on, until the daemon ends. Raises as ``ask`` does."""
    async with _connected(home, path) as stream:
        await _reply(stream, {"op": operation, **fields})
        lines = _Lines(stream, MAX_RESPONSE)
        while line := await lines.next():
            yield _unwrap(line, "item")


def _unwrap(line: bytes, key: str) -> Any:
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise DaemonError("ControlError", "the daemon ended before it answered")
    if key in answer:
        return answer[key]
    raise DaemonError(str(answer.get("error", "ControlError")), str(answer.get("message", "")))
