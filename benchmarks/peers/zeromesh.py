"""This mesh, through the names that a program uses: ``open_node``, ``publisher``, ``subscribe``, ``request``, ``serve``.

Both processes are nodes of one fresh home; the second knows the first as a seed, so that a
run depends on no multicast.  The subscription's buffer holds a whole run, as the bare sockets' queues do.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from benchmarks.adapter import Adapter, Control, stops, wait
from benchmarks.workload import IN_FLIGHT, Asker, Meter, Unsupported, Workload

__all__ = ["ADAPTERS"]

_TOPIC = "bench/one"
_LISTEN = ("tcp://127.0.0.1:0",)


@asynccontextmanager
async def _first() -> AsyncIterator[tuple[Any, dict[str, Any]]]:
    """A node in a home of its own, and the details with which ``_second`` finds it."""
    import mesh

    with tempfile.TemporaryDirectory(prefix="zeromesh-bench-") as home:
        async with mesh.open_node("first", home=home, listen=_LISTEN, discovery=()) as node:
            yield node, {"home": home, "endpoints": list(node.endpoints)}


def _second(details: Mapping[str, Any]) -> AbstractAsyncContextManager[Any]:
    import mesh

    return mesh.open_node(
        "second", home=details["home"], listen=_LISTEN, connect=details["endpoints"], discovery=()
    )


def _publisher(control: Control, workload: Workload) -> None:
    import trio

    trio.run(_publish, control, workload)


async def _publish(control: Control, workload: Workload) -> None:
    import mesh

    data, total = workload.payload(), workload.total
    async with _first() as (node, details), node.publisher(_TOPIC) as publisher:
        try:
            publisher.publish_nowait(data)
        except mesh.MessageTooLarge as error:
            raise Unsupported(str(error)) from None
        await publisher.flush()  # nobody is subscribed: it goes nowhere
        control.listening(details)
        await publisher.wait_for_subscribers(1)
        control.ready()
        await wait(control.go)
        with control.measured():
            for _ in range(total):
                await publisher.publish(data)
            await publisher.flush()
        control.done({"sent": total})
        await wait(control.close)


def _subscriber(control: Control, workload: Workload) -> None:
    import trio

    trio.run(_subscribe, control, workload)


async def _subscribe(control: Control, workload: Workload) -> None:
    import trio

    meter = Meter(workload)
    async with _second(control.details) as node, trio.open_nursery() as nursery:
        async with node.subscribe(_TOPIC, buffer=workload.total) as subscription:
            control.ready()
            seen, mark = 0, meter.first
            with control.measured(), stops(control, nursery):
                async for _ in subscription:
                    seen += 1
                    if seen == mark:
                        mark = meter.stamp(seen)
                        if not mark:
                            break
            counted = node.statistics()
            control.done(
                {
                    "received": seen,
                    "stamps": meter.stamps,
                    "lost": counted.lost,
                    "dropped": counted.dropped,
                    "rejected": dict(counted.rejected_by_reason),
                }
            )
            await wait(control.close)
        nursery.cancel_scope.cancel()


def _server(control: Control, workload: Workload) -> None:
    import trio

    trio.run(_serve, control, workload)


async def _serve(control: Control, workload: Workload) -> None:
    import trio

    async def echo(request: Any) -> bytes:
        data: bytes = request.value
        return data

    async with trio.open_nursery() as nursery, _first() as (node, details):
        await nursery.start(node.serve, _TOPIC, echo)
        control.listening(details)
        await node.wait_for_peers(1)
        control.ready()
        with control.measured():
            await wait(control.stop)
        control.done({"served": node.statistics().requests_served})
        await wait(control.close)
        nursery.cancel_scope.cancel()


def _client(control: Control, workload: Workload) -> None:
    import trio

    trio.run(_ask, control, workload)


async def _ask(control: Control, workload: Workload) -> None:
    import trio

    asker = Asker(workload)
    async with _second(control.details) as node:
        await node.wait_for_peers(1)

        async def ask(data: bytes) -> Any:
            return await node.request(_TOPIC, data)

        control.ready()
        await wait(control.go)
        with control.measured():
            if workload.kind == "inflight":
                async with trio.open_nursery() as nursery:
                    for _ in range(IN_FLIGHT):
                        nursery.start_soon(asker.many, ask)
            else:
                await asker.one_by_one(ask, trio.sleep)
        control.done(asker.numbers())
        await wait(control.close)


ADAPTERS = [
    Adapter(
        "zeromesh",
        "zeromesh",
        sealed=True,
        roles={"publisher": _publisher, "subscriber": _subscriber, "server": _server, "client": _client},
        distributions=("zeromesh", "pyzmq", "trio", "cbor2", "cryptography"),
    )
]
