"""The floor under every design on Trio and ZeroMQ: two bare tasks on the sockets' descriptors.

No node, no framing, no identity; only what it takes to wait correctly on an edge-triggered
descriptor: try, look at EVENTS, then wait.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import zmq

from benchmarks.adapter import Adapter, Control, RoleFunction, stops, wait
from benchmarks.peers.bare_zmq import bound, connected
from benchmarks.workload import Asker, Meter, Role, Unsupported, Workload

__all__ = ["ADAPTERS"]

_FAIR = 256
"""Messages between two yields to the scheduler, as many as our own subscriptions hand out."""


def _descriptor(socket: zmq.Socket[bytes]) -> int:
    import zmq

    return int(socket.getsockopt(zmq.FD))


def _readable(socket: zmq.Socket[bytes]) -> bool:
    import zmq

    return bool(int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)


async def _receive(socket: zmq.Socket[bytes], descriptor: int) -> list[bytes]:
    import trio
    import zmq

    while True:
        try:
            return socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            if not _readable(socket):
                await trio.lowlevel.wait_readable(descriptor)


def _run(function: Any, control: Control, workload: Workload, **options: bool) -> None:
    import trio

    trio.run(partial(function, control, workload, **options))


async def _publisher(control: Control, workload: Workload, *, curve: bool) -> None:
    import trio
    import zmq

    data, total = workload.payload(), workload.total
    with bound("XPUB", curve=curve) as (socket, details):
        control.listening(details)
        await _receive(socket, _descriptor(socket))
        control.ready()
        await wait(control.go)
        send = socket.send
        with control.measured():
            for number in range(total):
                send(data, zmq.NOBLOCK)
                if not number % _FAIR:
                    await trio.lowlevel.checkpoint()
        control.done({"sent": total})
        await wait(control.close)


async def _subscriber(control: Control, workload: Workload) -> None:
    import trio
    import zmq

    meter = Meter(workload)
    with connected("SUB", control) as socket:
        descriptor, receive = _descriptor(socket), socket.recv
        control.ready()
        seen, mark = 0, meter.first
        async with trio.open_nursery() as nursery:
            with control.measured(), stops(control, nursery):
                while mark:
                    try:
                        receive(zmq.NOBLOCK)
                    except zmq.Again:
                        if not _readable(socket):
                            await trio.lowlevel.wait_readable(descriptor)
                        continue
                    seen += 1
                    if seen == mark:
                        mark = meter.stamp(seen)
                    if not seen % _FAIR:
                        await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        control.done({"received": seen, "stamps": meter.stamps})
        await wait(control.close)


async def _server(control: Control, workload: Workload, *, curve: bool) -> None:
    import trio
    import zmq

    with bound("ROUTER", curve=curve) as (socket, details):
        descriptor = _descriptor(socket)
        control.listening(details)
        control.ready()
        served = 0
        async with trio.open_nursery() as nursery:
            with control.measured(), stops(control, nursery):
                while not control.stop.is_set():
                    socket.send_multipart(await _receive(socket, descriptor), zmq.NOBLOCK)
                    served += 1
            nursery.cancel_scope.cancel()
        control.done({"served": served})
        await wait(control.close)


async def _client(control: Control, workload: Workload) -> None:
    import trio
    import zmq

    if workload.kind == "inflight":
        raise Unsupported("it has no requests to tell apart")
    asker = Asker(workload)
    with connected("DEALER", control) as socket:
        descriptor = _descriptor(socket)

        async def ask(data: bytes) -> bytes:
            socket.send(data, zmq.NOBLOCK)
            return (await _receive(socket, descriptor))[0]

        control.ready()
        await wait(control.go)
        with control.measured():
            await asker.one_by_one(ask, trio.sleep)
        control.done(asker.numbers())
        await wait(control.close)


def _roles(*, curve: bool) -> dict[Role, RoleFunction]:
    return {
        "publisher": partial(_run, _publisher, curve=curve),
        "subscriber": partial(_run, _subscriber),
        "server": partial(_run, _server, curve=curve),
        "client": partial(_run, _client),
    }


_NEEDS = (("pyzmq", "trio"), ("zmq", "trio"))

ADAPTERS = [
    Adapter("trio-zmq", "floor: Trio on bare pyzmq", False, _roles(curve=False), *_NEEDS),
    Adapter("trio-zmq-curve", "floor: Trio on bare pyzmq, CURVE", True, _roles(curve=True), *_NEEDS),
]
