"""Figures of the web gateway: ``python -m benchmarks.web [clients N] [rate] [memory] [slow]``.

    this process:  the clients, as lean as Python allows: plain sockets, frames cut by hand
    its child:     a node with a gateway, which publishes when a client asks for it; or a bare hypercorn echo

``rate``     messages a second to one client, beside an echo on bare hypercorn, in the same run
``clients``  many clients on one pattern at 100 messages a second: latency from publish to the client's read
``memory``   what an idle client with a subscription costs the gateway's process
``slow``     the latency of the others while one client reads nothing
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import resource
import selectors
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

SIZE = 100  # bytes of text in a value
MARK = b'"value":"'


# -- the child ----------------------------------------------------------------------------------


def serve_gateway(home: str) -> None:
    """A node and its gateway; requests on ``bench/go`` publish."""
    import trio

    import mesh
    from bridges.web.bounds import Bounds
    from bridges.web.gateway import Gateway, WebSettings

    class NoTokens:
        def find(self, token: str) -> None:
            return None

        def holds(self, identifier: str) -> bool:
            return False

        def exist(self) -> bool:
            return False

    async def main() -> None:
        async with mesh.open_node("gateway", home=home, discovery=(), listen=["tcp://127.0.0.1:0"]) as node:

            async def go(request: mesh.Request) -> int:
                count, rate = request.value
                filler = "x" * (SIZE - 17)
                began = trio.current_time()
                for number in range(count):
                    if rate:
                        await trio.sleep_until(began + number / rate)
                    await node.publish("bench/a", f"{time.time():017.6f}{filler}")
                return count

            gateway = Gateway(node, NoTokens(), WebSettings(port=0), bounds=Bounds(queue_bytes=64 << 20))
            async with trio.open_nursery() as nursery:
                urls = await nursery.start(gateway.run)
                await nursery.start(node.serve, "bench/go", go)
                print(urls[0].rpartition(":")[2], flush=True)

    trio.run(main)


def serve_echo() -> None:
    """The smallest WebSocket echo on hypercorn's Trio worker."""
    import trio
    from hypercorn.config import Config
    from hypercorn.trio import serve

    async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
            return
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"]})

    async def main() -> None:
        config = Config()
        config.bind = ["127.0.0.1:0"]
        config.errorlog = None
        async with trio.open_nursery() as nursery:
            binds = await nursery.start(serve, app, config)
            print(binds[0].rpartition(":")[2], flush=True)

    trio.run(main)


@contextlib.contextmanager
def child(*words: str) -> Iterator[tuple[int, int]]:
    """The child: its port and process id."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.web", *words], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline()), process.pid
        finally:
            process.terminate()


# -- lean clients ---------------------------------------------------------------------------------


def masked(text: bytes) -> bytes:
    """A client's text frame, with a mask of zeros."""
    size = len(text)
    head = bytes((0x81, 0x80 | size)) if size < 126 else struct.pack("!BBH", 0x81, 0xFE, size)
    return head + bytes(4) + text


def opened(port: int, path: str = "/ws", *, small: bool = False) -> socket.socket:
    """A WebSocket after its handshake. ``small``: with as little room for what it does not read as possible."""
    it = socket.socket()
    if small:
        it.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    it.connect(("127.0.0.1", port))
    it.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    key = base64.b64encode(os.urandom(16)).decode()
    it.sendall(
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    until(it, b"\r\n\r\n")
    return it


def until(it: socket.socket, wanted: bytes) -> bytes:
    data = b""
    while wanted not in data:
        more = it.recv(65536)
        assert more, data
        data += more
    return data


def subscribed(port: int, *, small: bool = False) -> socket.socket:
    it = opened(port, small=small)
    it.sendall(masked(b'{"op":"subscribe","id":1,"pattern":"bench/**"}'))
    until(it, b"subscribed")
    return it


def latencies(sockets: list[socket.socket], asker: socket.socket, count: int, rate: int) -> list[float]:
    """Seconds from each publish to each client's read."""
    selector = selectors.DefaultSelector()
    rest: dict[socket.socket, bytes] = {}
    for it in sockets:
        it.setblocking(False)
        rest[it] = b""
        selector.register(it, selectors.EVENT_READ)
    asker.sendall(
        masked(
            json.dumps(
                {"op": "request", "id": 9, "topic": "bench/go", "value": [count, rate], "timeout": 60}
            ).encode()
        )
    )
    found: list[float] = []
    wanted = count * len(sockets)
    deadline = time.time() + count / max(rate, 1) + 30
    while len(found) < wanted and time.time() < deadline:
        for key, _ in selector.select(1):
            it = key.fileobj
            assert isinstance(it, socket.socket)
            data = rest[it] + it.recv(1 << 18)
            now = time.time()
            number, last = data.count(MARK), data.rfind(MARK)
            whole = len(data) - last >= len(MARK) + 17
            if number > (not whole):
                # The first is the oldest: what came with it has waited no longer. To read each would take the
                # clients more time than the gateway needs to send them.
                first = data.find(MARK) + len(MARK)
                found += [now - float(data[first : first + 17])] * (number if whole else number - 1)
            rest[it] = data[1 - len(MARK) :] if whole or last < 0 else data[last:]
    selector.close()
    return found


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def summary(found: list[float], wanted: int) -> dict[str, float]:
    return {
        "received": len(found),
        "expected": wanted,
        **{
            f"p{name}_ms": round(percentile(found, share) * 1000, 2)
            for name, share in (("50", 0.5), ("99", 0.99), ("999", 0.999))
        },
    }


# -- the figures ----------------------------------------------------------------------------------


def resident(pid: int) -> int:
    """Bytes of memory that a process holds (proc(5))."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def rate(home: str, count: int = 30_000) -> dict[str, float]:
    with child("echo") as (port, _):
        it = opened(port, "/")
        frame = masked(b"x" * 190)
        began = time.perf_counter()
        sent = got = 0
        while got < count // 3:
            if sent - got < 64 and sent < count // 3:
                it.sendall(frame * 32)
                sent += 32
            else:
                got += len(it.recv(1 << 18)) / 194  # a header of 4 bytes
        echo = got / (time.perf_counter() - began)
        it.close()
    with child("gateway", home) as (port, _), subscribed(port) as it, opened(port) as asker:
        began = time.perf_counter()
        found = latencies([it], asker, count, 0)
        took = time.perf_counter() - began
    return {
        "echo": round(echo),
        "gateway": round(len(found) / took),
        "lost": count - len(found),
        "ratio": round(len(found) / took / echo, 2),
    }


def clients(home: str, number: int, seconds: int = 10) -> dict[str, float]:
    with child("gateway", home) as (port, pid), contextlib.ExitStack() as open_ones:
        asker = open_ones.enter_context(opened(port))
        sockets = [open_ones.enter_context(subscribed(port)) for _ in range(number)]
        before = Path(f"/proc/{pid}/stat").read_text().split()
        began = time.time()
        found = latencies(sockets, asker, 100 * seconds, 100)
        took = time.time() - began
        after = Path(f"/proc/{pid}/stat").read_text().split()
        cpu = sum(int(after[at]) - int(before[at]) for at in (13, 14)) / os.sysconf("SC_CLK_TCK")
        return {
            "clients": number,
            **summary(found, number * 100 * seconds),
            "gateway_cpu": round(cpu / took, 2),
        }


def memory(home: str, number: int = 500) -> dict[str, float]:
    with child("gateway", home) as (port, pid), contextlib.ExitStack() as kept:
        for _ in range(20):
            kept.enter_context(subscribed(port))
        before = resident(pid)
        for _ in range(number):
            kept.enter_context(subscribed(port))
        return {"clients": number, "bytes_each": (resident(pid) - before) // number}


def slow(home: str, number: int = 20) -> dict[str, float]:
    answer: dict[str, float] = {}
    with child("gateway", home) as (port, _), contextlib.ExitStack() as open_ones:
        asker = open_ones.enter_context(opened(port))
        sockets = [open_ones.enter_context(subscribed(port)) for _ in range(number)]
        latencies(sockets, asker, 200, 500)  # warm
        alone = latencies(sockets, asker, 2500, 500)
        open_ones.enter_context(subscribed(port, small=True))
        beside = latencies(sockets, asker, 2500, 500)
        answer["alone_p99_ms"] = round(percentile(alone, 0.99) * 1000, 2)
        answer["beside_p99_ms"] = round(percentile(beside, 0.99) * 1000, 2)
        answer["ratio"] = round(percentile(beside, 0.99) / percentile(alone, 0.99), 2)
    return answer


def main() -> None:
    """Print one line of JSON for each figure asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", default=["rate", "clients", "memory", "slow"])
    parser.add_argument("--clients", type=int, default=1000)
    given = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if given.what[0] == "gateway":
        return serve_gateway(given.what[1])
    if given.what[0] == "echo":
        return serve_echo()
    with tempfile.TemporaryDirectory() as folder:
        for what in given.what:
            home = str(Path(folder) / "home")
            found = (
                clients(home, given.clients)
                if what == "clients"
                else {"rate": rate, "memory": memory, "slow": slow}[what](home)
            )
            print(json.dumps({"figure": what, **found}), flush=True)
    return None


if __name__ == "__main__":
    main()
