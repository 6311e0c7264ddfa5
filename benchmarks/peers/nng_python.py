"""pynng with blocking calls: PUSH/PULL one way (its PUB drops what a subscriber's queue of 8,192 does not take), REQ/REP."""

from __future__ import annotations

from benchmarks.adapter import Adapter, Control, free_port
from benchmarks.workload import Asker, Meter, Unsupported, Workload

__all__ = ["ADAPTERS"]

_ASK_STOP = 100
"""Milliseconds after which a sink that hears nothing looks whether it shall stop."""


def _publisher(control: Control, workload: Workload) -> None:
    import pynng

    data, total = workload.payload(), workload.total
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    with pynng.Push0(listen=endpoint, send_buffer_size=4096) as socket:
        control.listening({"endpoint": endpoint})
        control.ready()  # PUSH waits for its first PULL
        control.go.wait()
        send = socket.send
        with control.measured():
            for _ in range(total):
                send(data)
        control.done({"sent": total})
        control.close.wait()


def _subscriber(control: Control, workload: Workload) -> None:
    import pynng

    meter = Meter(workload)
    with pynng.Pull0(
        dial=control.details["endpoint"], recv_timeout=_ASK_STOP, recv_buffer_size=4096
    ) as socket:
        control.ready()
        seen, mark = 0, meter.first
        with control.measured():
            while mark and not control.stop.is_set():
                try:
                    while mark:
                        socket.recv()
                        seen += 1
                        if seen == mark:
                            mark = meter.stamp(seen)
                except pynng.Timeout:
                    continue
        control.done({"received": seen, "stamps": meter.stamps})
        control.close.wait()


def _server(control: Control, workload: Workload) -> None:
    import pynng

    endpoint = f"tcp://127.0.0.1:{free_port()}"
    served = 0
    with pynng.Rep0(listen=endpoint, recv_timeout=_ASK_STOP) as socket:
        control.listening({"endpoint": endpoint})
        control.ready()
        with control.measured():
            while not control.stop.is_set():
                try:
                    while True:
                        socket.send(socket.recv())
                        served += 1
                except pynng.Timeout:
                    continue
        control.done({"served": served})
        control.close.wait()


def _client(control: Control, workload: Workload) -> None:
    import pynng

    if workload.kind == "inflight":
        raise Unsupported("a REQ socket has one request at a time")
    asker = Asker(workload)
    with pynng.Req0(dial=control.details["endpoint"]) as socket:

        def ask(data: bytes) -> bytes:
            socket.send(data)
            return bytes(socket.recv())

        control.ready()
        control.go.wait()
        with control.measured():
            asker.one_by_one_blocking(ask)
        control.done(asker.numbers())
        control.close.wait()


ADAPTERS = [
    Adapter(
        "pynng",
        "pynng",
        sealed=False,
        roles={"publisher": _publisher, "subscriber": _subscriber, "server": _server, "client": _client},
        distributions=("pynng",),
        modules=("pynng",),
        share=0.2,
    )
]
