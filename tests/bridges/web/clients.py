"""A gateway around a node in memory, real sockets in front of it, and clients that hold both sides to the schema."""

from __future__ import annotations

import http.client
import json
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
import trio
from websockets.exceptions import ConnectionClosed
from websockets.trio.client import ClientConnection, connect

import mesh
from bridges.web.bounds import Bounds
from bridges.web.gateway import Gateway, WebSettings
from bridges.web.scopes import Grant
from tests.sources import ROOT

PATIENCE = 30.0
"""Seconds within which everything must have happened; a shared machine may be slow."""

SCHEMA = json.loads((ROOT / "docs/reference/websocket.schema.json").read_text())


def validator(side: str) -> Any:
    return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{side}", "$defs": SCHEMA["$defs"]})


SENT, RECEIVED = validator("client"), validator("server")


class Book:
    """Tokens in memory."""

    def __init__(self, **tokens: tuple[str, ...]) -> None:
        self.tokens = {name: Grant.of(name, scopes) for name, scopes in tokens.items()}

    def find(self, token: str) -> Grant | None:
        return self.tokens.get(token)

    def holds(self, identifier: str) -> bool:
        return identifier in self.tokens

    def exist(self) -> bool:
        return bool(self.tokens)


@dataclass
class Web:
    """A gateway that runs."""

    gateway: Gateway
    node: mesh.Node
    url: str
    nursery: trio.Nursery
    stop: Callable[[], None]
    stopped: trio.Event
    book: Book

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def rejected(self) -> Mapping[str, int]:
        return self.gateway.counters.rejected

    async def until(self, reason: str, count: int = 1) -> None:
        """Wait until so many were turned away for this reason."""
        with trio.fail_after(PATIENCE):
            while self.rejected[reason] < count:  # noqa: ASYNC110 - counters wake nobody
                await trio.sleep(0.01)

    async def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request on a connection of its own."""

        def call() -> Answer:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
            try:
                data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
                kind = {"content-type": "application/json"} if data is not None else {}
                connection.request(method, path, data, {**kind, **(headers or {})})
                response = connection.getresponse()
                return Answer(response.status, dict(map(_lower, response.getheaders())), response.read())
            finally:
                connection.close()

        return await trio.to_thread.run_sync(call)


def _lower(header: tuple[str, str]) -> tuple[str, str]:
    return header[0].lower(), header[1]


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def problem(self) -> str:
        """The short name of the error, having seen that it is a problem document (RFC 9457)."""
        assert self.headers["content-type"] == "application/problem+json", self
        assert self.json["status"] == self.status
        assert {"type", "title", "detail"} <= self.json.keys()
        return str(self.json["error"])


@asynccontextmanager
async def web(
    node: mesh.Node, book: Book | None = None, *, bounds: Bounds | None = None, **settings: Any
) -> AsyncIterator[Web]:
    """A gateway around ``node``, on any free port of the loopback."""
    book = book or Book()
    gateway = Gateway(node, book, WebSettings(port=0, **settings), bounds=bounds)
    stopped = trio.Event()

    async def run(*, task_status: trio.TaskStatus[tuple[list[str], trio.CancelScope]]) -> None:
        async with trio.open_nursery() as inner:
            urls = await inner.start(gateway.run)
            task_status.started((urls, inner.cancel_scope))
        stopped.set()

    async with trio.open_nursery() as nursery:
        urls, scope = await nursery.start(run)
        yield Web(gateway, node, urls[0], nursery, scope.cancel, stopped, book)
        nursery.cancel_scope.cancel()


@dataclass
class Client:
    """A WebSocket client. What it says and hears must be in the schema (unless it says so)."""

    socket: ClientConnection
    cbor: bool = False
    heard: list[Any] = field(default_factory=list)

    async def say(self, op: str, *, lawful: bool = True, **fields: Any) -> None:
        message = {"op": op, **fields}
        assert SENT.is_valid(_jsonable(message)) == lawful, message
        await self.raw(mesh.encode_cbor(message) if self.cbor else json.dumps(message))

    async def raw(self, data: str | bytes) -> None:
        await self.socket.send(data)

    async def hear(self, op: str | None = None, **wanted: Any) -> Any:
        """The next message that is this operation with these members; others are kept in ``heard``."""
        with trio.fail_after(PATIENCE):
            while True:
                data = await self.socket.recv()
                assert isinstance(data, bytes) == self.cbor
                message = mesh.decode_cbor(data) if isinstance(data, bytes) else json.loads(data)
                RECEIVED.validate(_jsonable(message))
                if op in (None, message["op"]) and wanted.items() <= message.items():
                    return message
                self.heard.append(message)

    async def ask(self, op: str, answer: str, **fields: Any) -> Any:
        await self.say(op, **fields)
        return await self.hear(answer, id=fields["id"])

    async def closed(self) -> int:
        """The code with which the gateway closes the connection."""
        with trio.fail_after(PATIENCE):
            try:
                while True:
                    self.heard.append(await self.socket.recv())
            except ConnectionClosed as closed:
                return closed.rcvd.code if closed.rcvd else 1006


def _jsonable(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"base64": ""}
    if isinstance(value, dict):
        return {key: _jsonable(each) for key, each in value.items()}
    return [_jsonable(each) for each in value] if isinstance(value, list) else value


@asynccontextmanager
async def client(
    where: Web,
    *,
    token: str | None = None,
    origin: str | None = None,
    cbor: bool = False,
    path: str = "/ws",
    ready: bool = True,
    headers: Mapping[str, str] | None = None,
    subprotocols: list[str] | None = None,
    tls: Path | None = None,
    **options: Any,
) -> AsyncIterator[Client]:
    """A client; with ``ready`` it has heard that it may speak."""
    more = {**(headers or {}), **({} if token is None else {"Authorization": f"Bearer {token}"})}
    context = None if tls is None else ssl.create_default_context(cafile=str(tls))
    async with connect(
        f"{where.url.replace('http', 'ws')}{path}",
        origin=origin,  # type: ignore[arg-type]
        subprotocols=subprotocols or [f"zeromesh.v1.{'cbor' if cbor else 'json'}"],  # type: ignore[list-item]
        additional_headers=more,
        max_size=None,
        open_timeout=PATIENCE,
        close_timeout=PATIENCE,
        **({"ssl": context} if context else {}),
        **options,
    ) as socket:
        it = Client(socket, cbor)
        if ready:
            await it.hear("ready")
        yield it


# -- clients that no library would be ----------------------------------------------------------


def masked(opcode: int, payload: bytes, *, fin: bool = True, reserved: int = 0) -> bytes:
    """A client's frame (RFC 6455 §5.2), with a mask of zeros, which is one."""
    size = len(payload)
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + bytes(4) + payload


async def read_frame(stream: trio.SocketStream) -> tuple[int, bytes]:
    """The server's next frame: its opcode and payload. Opcode -1: the connection is over."""
    try:
        head = await _exactly(stream, 2)
        size = head[1]
        if size == 126:
            size = int.from_bytes(await _exactly(stream, 2))
        elif size == 127:
            size = int.from_bytes(await _exactly(stream, 8))
        return head[0] & 15, await _exactly(stream, size)
    except (EOFError, trio.BrokenResourceError):
        return -1, b""


async def _exactly(stream: trio.SocketStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await stream.receive_some(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


async def _handshake(stream: trio.SocketStream, headers: Mapping[str, str | None]) -> bytes:
    """The head of the answer to a handshake with these headers besides, or instead; None: without it."""
    fields: dict[str, str | None] = {
        "Host": "localhost",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        **headers,
    }
    lines = [f"{name}: {value}\r\n" for name, value in fields.items() if value is not None]
    await stream.send_all(f"GET /ws HTTP/1.1\r\n{''.join(lines)}\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await _exactly(stream, 1)
    return head


async def shake_hands(where: Web, headers: Mapping[str, str | None]) -> bytes:
    """What the gateway answers to such a handshake, on a connection of its own."""
    with trio.fail_after(PATIENCE):
        async with await trio.open_tcp_stream("127.0.0.1", where.port) as stream:
            return await _handshake(stream, headers)


@asynccontextmanager
async def raw(where: Web, headers: Mapping[str, str] | None = None) -> AsyncIterator[trio.SocketStream]:
    """A connection right after the WebSocket handshake, and after the gateway's ``ready``."""
    stream = await trio.open_tcp_stream("127.0.0.1", where.port)
    async with stream:
        with trio.fail_after(PATIENCE):
            head = await _handshake(stream, headers or {})
            assert head.startswith(b"HTTP/1.1 101 "), head
            assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head  # the example of RFC 6455 §1.3
            assert json.loads((await read_frame(stream))[1])["op"] == "ready"
        yield stream
