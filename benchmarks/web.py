"""Figures of the web gateway: ``python -m benchmarks.web [clients N] [rate] [memory] [slow]``.

    this process:  the clients, as lean as Python allows: plain sockets; what they read is looked at afterwards
    its child:     a node with a gateway, which publishes when a client asks for it; or a bare hypercorn echo

``rate``     messages a second to one client, beside an echo on bare hypercorn, in the same run
``clients``  many clients on one pattern at 100 messages a second: latency from publish to the client's read
``memory``   what an idle client with a subscription costs the gateway's process
``slow``     the latency of the others while one client reads nothing, and alone, in turns
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import gc
import json
import os
import resource
import select
import socket
import statistics
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


def serve_gateway(home: str, queue: int) -> None:
    """A node and its gateway, with so many bytes of queue a client; requests on ``bench/go`` publish."""
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
                topic, count, rate, size = request.value
                filler = "x" * (size - 17)
                began = trio.current_time()
                for number in range(count):
                    if rate:
                        await trio.sleep_until(began + number / rate)
                    await node.publish(topic, f"{time.time():017.6f}{filler}")
                return count

            gateway = Gateway(node, NoTokens(), WebSettings(port=0), bounds=Bounds(queue_bytes=queue))
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


def subscribed(port: int, *topics: str, small: bool = False) -> socket.socket:
    it = opened(port, small=small)
    for number, topic in enumerate(topics or ("bench/a",)):
        operation = {"op": "subscribe", "id": number, "pattern": topic}
        it.sendall(masked(json.dumps(operation).encode()))
        until(it, b'"op":"subscribed"')
    return it


def go(asker: socket.socket, topic: str, count: int, rate: int, size: int = SIZE) -> None:
    """Have the gateway's node publish."""
    value = [topic, count, rate, size]
    request = {"op": "request", "id": 9, "topic": "bench/go", "value": value, "timeout": 60}
    asker.sendall(masked(json.dumps(request).encode()))


Reads = list[tuple[float, bytes]]


def read_all(sockets: list[socket.socket], asker: socket.socket, count: int, rate: int) -> Reads:
    """What the clients read of so many messages, and when: to be looked at when all is over, so that the clients
    take as little of the processor as they can."""
    reads: Reads = []
    cut: dict[int, bytes] = {}
    got, wanted = 0, count * len(sockets)
    poll = select.epoll()
    for it in sockets:
        it.setblocking(False)
        poll.register(it.fileno(), select.EPOLLIN)
    go(asker, "bench/a", count, rate)
    deadline = time.time() + count / max(rate, 1) + 30
    gc.disable()
    while got < wanted and time.time() < deadline:
        for number, _ in poll.poll(1):
            data = os.read(number, 1 << 18)
            if number in cut:
                data = cut.pop(number) + data
            if data[-1:] != b"}":  # the edge of a read is inside a message; none has another of these
                end = data.rfind(b"}") + 1
                data, cut[number] = data[:end], data[end:]
            reads.append((time.time(), data))
            got += data.count(MARK)
    gc.enable()
    poll.close()
    until(asker, b'"op":"reply"')
    return reads


def latencies(reads: Reads) -> list[float]:
    """Seconds from each publish to each client's read."""
    found = []
    for when, data in reads:
        at = data.find(MARK)
        while at >= 0:
            at += len(MARK)
            found.append(when - float(data[at : at + 17]))
            at = data.find(MARK, at)
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


def processor(pid: int) -> float:
    """Seconds of processor that a process has had (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    """Bytes of memory that a process holds (proc(5))."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


LARGE = str(64 << 20)
"""Bytes of queue where nothing is to be dropped."""


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
    with child("gateway", home, LARGE) as (port, _), subscribed(port) as it, opened(port) as asker:
        began = time.perf_counter()
        found = latencies(read_all([it], asker, count, 0))
        took = time.perf_counter() - began
    return {
        "echo": round(echo),
        "gateway": round(len(found) / took),
        "lost": count - len(found),
        "ratio": round(len(found) / took / echo, 2),
    }


def clients(home: str, number: int, seconds: int = 10) -> dict[str, float]:
    with child("gateway", home, LARGE) as (port, pid), contextlib.ExitStack() as open_ones:
        asker = open_ones.enter_context(opened(port))
        sockets = [open_ones.enter_context(subscribed(port)) for _ in range(number)]
        began = time.time(), processor(pid), time.process_time()
        reads = read_all(sockets, asker, 100 * seconds, 100)
        took = time.time() - began[0]
        cores = {
            "gateway_cores": round((processor(pid) - began[1]) / took, 2),
            "clients_cores": round((time.process_time() - began[2]) / took, 2),
        }
        return {"clients": number, **summary(latencies(reads), number * 100 * seconds), **cores}


def memory(home: str, number: int = 500) -> dict[str, float]:
    with child("gateway", home, LARGE) as (port, pid), contextlib.ExitStack() as kept:
        for _ in range(20):
            kept.enter_context(subscribed(port))
        before = resident(pid)
        for _ in range(number):
            kept.enter_context(subscribed(port))
        return {"clients": number, "bytes_each": (resident(pid) - before) // number}


def slow(home: str, pairs: int = 15, number: int = 20) -> dict[str, object]:
    """The median of many ratios, each of two measurements a second apart: what else the machine does comes and
    goes, and is the same for both more often than not. The slow client has stalled, and loses messages, before it
    is measured beside it."""
    ratios, alone_p99, beside_p99 = [], [], []
    with child("gateway", home, str(256 << 10)) as (port, _), contextlib.ExitStack() as open_ones:
        asker = open_ones.enter_context(opened(port))
        sockets = [open_ones.enter_context(subscribed(port)) for _ in range(number)]

        def p99() -> float:
            go(asker, "bench/fill", 1000, 2000, 8000)  # more than its socket and queue take together
            until(asker, b'"op":"reply"')
            return percentile(latencies(read_all(sockets, asker, 500, 500)), 0.99) * 1000

        def beside() -> float:
            with subscribed(port, "bench/a", "bench/fill", small=True):
                return p99()

        p99()  # warm
        for turn in range(pairs):
            alone, other = (p99(), beside()) if turn % 2 else (beside(), p99())[::-1]
            alone_p99.append(alone)
            beside_p99.append(other)
            ratios.append(other / alone)
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "pairs": pairs,
        "alone_p99_ms": round(statistics.median(alone_p99), 2),
        "beside_p99_ms": round(statistics.median(beside_p99), 2),
        "ratio_median": round(middle, 2),
        "ratio_quartiles": [round(low, 2), round(high, 2)],
    }


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
        return serve_gateway(given.what[1], int(given.what[2]))
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
