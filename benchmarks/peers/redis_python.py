"""redis-py with a real redis-server on loopback: ``publish`` and ``pubsub().listen()``, blocking calls.

The server's bound on what a subscriber may be behind is off, so that nothing is lost; it writes nothing to disk. Redis
has no requests.  The server is a third process: its CPU time is in no figure.
"""

from __future__ import annotations

from typing import Any

from benchmarks.adapter import Adapter, Control, free_port, server
from benchmarks.workload import Meter, Unsupported, Workload

__all__ = ["ADAPTERS"]

_CHANNEL = "bench:one"


def _client(port: int) -> Any:
    import redis

    return redis.Redis(host="127.0.0.1", port=port)


def _publisher(control: Control, workload: Workload) -> None:
    data, total, port = workload.payload(), workload.total, free_port()
    unbounded = ("--client-output-buffer-limit", "pubsub 0 0 0")
    arguments = ("--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no", *unbounded)
    with server("redis-server", *arguments, port=port), _client(port) as client:
        control.listening({"port": port})
        while not dict(client.pubsub_numsub(_CHANNEL)).get(_CHANNEL.encode()):
            pass
        control.ready()
        control.go.wait()
        with control.measured():
            for _ in range(total):
                client.publish(_CHANNEL, data)
        control.done({"sent": total})
        control.close.wait()


def _subscriber(control: Control, workload: Workload) -> None:
    meter = Meter(workload)
    with _client(control.details["port"]) as client, client.pubsub() as messages:
        messages.subscribe(_CHANNEL)
        messages.get_message(timeout=30)  # it says that it is subscribed
        control.ready()
        seen, mark = 0, meter.first
        with control.measured():
            while mark and not control.stop.is_set():
                if messages.get_message(timeout=0.1) is None:
                    continue
                seen += 1
                if seen == mark:
                    mark = meter.stamp(seen)
        control.done({"received": seen, "stamps": meter.stamps})
        control.close.wait()


def _none(control: Control, workload: Workload) -> None:
    raise Unsupported("Redis has no requests")


ADAPTERS = [
    Adapter(
        "redis",
        "redis-py, redis-server",
        sealed=False,
        roles={"publisher": _publisher, "subscriber": _subscriber, "server": _none, "client": _none},
        distributions=("redis",),
        modules=("redis",),
        programs=("redis-server",),
        share=0.02,
    )
]
