"""Bare pyzmq with blocking calls: PUB/SUB one way, DEALER/ROUTER for round trips, a message a send.

High-water marks are off, so that nothing is lost.  The publisher's socket is an XPUB, which sends exactly as a PUB does
and besides tells when the subscription has arrived.  With CURVE, both sides have keys and
the client's is not looked at, which is the least that a server can do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import zmq

from benchmarks.adapter import Adapter, Control, RoleFunction
from benchmarks.workload import Asker, Meter, Role, Unsupported, Workload

__all__ = ["ADAPTERS", "bound", "connected"]

_ASK_STOP = 100
"""Milliseconds after which a sink that hears nothing looks whether it shall stop."""


@contextmanager
def bound(kind: str, *, curve: bool) -> Iterator[tuple[zmq.Socket[bytes], dict[str, Any]]]:
    """A socket on a free port of loopback, and the details with which ``connected`` finds it."""
    import zmq

    with zmq.Context() as context, context.socket(getattr(zmq, kind)) as socket:
        socket.linger = 0
        socket.sndhwm = socket.rcvhwm = 0
        details: dict[str, Any] = {}
        if curve:
            public, secret = zmq.curve_keypair()
            socket.curve_server = True
            socket.curve_publickey, socket.curve_secretkey = public, secret
            details["server_key"] = public.decode()
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        details["endpoint"] = f"tcp://127.0.0.1:{port}"
        yield socket, details


@contextmanager
def connected(kind: str, control: Control) -> Iterator[zmq.Socket[bytes]]:
    """A socket connected to what ``bound`` made."""
    import zmq

    with zmq.Context() as context, context.socket(getattr(zmq, kind)) as socket:
        socket.linger = 0
        socket.sndhwm = socket.rcvhwm = 0
        server_key = control.details.get("server_key")
        if server_key is not None:
            socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
            socket.curve_serverkey = server_key.encode()
        if kind == "SUB":
            socket.subscribe(b"")
        socket.connect(control.details["endpoint"])
        yield socket


def _publisher(control: Control, workload: Workload, *, curve: bool) -> None:
    data, total = workload.payload(), workload.total
    with bound("XPUB", curve=curve) as (socket, details):
        control.listening(details)
        socket.recv()  # the subscription
        control.ready()
        control.go.wait()
        send = socket.send
        with control.measured():
            for _ in range(total):
                send(data)
        control.done({"sent": total})
        control.close.wait()


def _subscriber(control: Control, workload: Workload) -> None:
    import zmq

    meter = Meter(workload)
    with connected("SUB", control) as socket:
        socket.rcvtimeo = _ASK_STOP
        control.ready()
        receive = socket.recv
        seen, mark = 0, meter.first
        with control.measured():
            while not control.stop.is_set():
                try:
                    while mark:
                        receive()
                        seen += 1
                        if seen == mark:
                            mark = meter.stamp(seen)
                    break
                except zmq.Again:
                    continue
        control.done({"received": seen, "stamps": meter.stamps})
        control.close.wait()


def _server(control: Control, workload: Workload, *, curve: bool) -> None:
    import zmq

    with bound("ROUTER", curve=curve) as (socket, details):
        socket.rcvtimeo = _ASK_STOP
        control.listening(details)
        control.ready()
        served = 0
        with control.measured():
            while not control.stop.is_set():
                try:
                    while True:
                        socket.send_multipart(socket.recv_multipart())
                        served += 1
                except zmq.Again:
                    continue
        control.done({"served": served})
        control.close.wait()


def _client(control: Control, workload: Workload) -> None:
    if workload.kind == "inflight":
        raise Unsupported("it has no requests to tell apart")
    asker = Asker(workload)
    with connected("DEALER", control) as socket:

        def ask(data: bytes) -> bytes:
            socket.send(data)
            return socket.recv()

        control.ready()
        control.go.wait()
        with control.measured():
            asker.one_by_one_blocking(ask)
        control.done(asker.numbers())
        control.close.wait()


def _roles(*, curve: bool) -> dict[Role, RoleFunction]:
    return {
        "publisher": partial(_publisher, curve=curve),
        "subscriber": _subscriber,
        "server": partial(_server, curve=curve),
        "client": _client,
    }


ADAPTERS = [
    Adapter("pyzmq", "bare pyzmq", False, _roles(curve=False), ("pyzmq",), ("zmq",)),
    Adapter("pyzmq-curve", "bare pyzmq, CURVE", True, _roles(curve=True), ("pyzmq",), ("zmq",)),
]
