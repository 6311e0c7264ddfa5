"""How fast a bridge exports to Redis: ``python -m benchmarks.redis``.

    channels    coredis alone: PUBLISH, in pipelines of 512, each answered before the next
    export      a bridge's route: PUBLISH, and the headers beside it
    streams     coredis alone: XADD with the fields that a bridge writes and trimming, in pipelines of 512
    reliable    a bridge's reliable route, by way of the spool on disk: XADD

``benchmarks.bridged`` has the method.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from benchmarks import bridged
from tests.bridges import redis_broker

BATCH: Final = 512
STREAM: Final = "bench.bare"


def broker(folder: Path) -> tuple[bridged.Broker, Callable[[], str]]:
    made = redis_broker.Broker(folder)
    return made, lambda: f"redis://:{redis_broker.PASSWORD}@127.0.0.1:{made.port}"


def prepare(url: str) -> None:
    trio.run(_flush, url)


async def _flush(url: str) -> None:
    from coredis import Redis

    async with Redis.from_url(url) as client:
        await client.flushall()


async def _send(url: str, count: int, size: int, *, streams: bool) -> None:
    from coredis import PureToken, Redis

    value = bytes(size)
    async with Redis.from_url(url) as client:
        await client.ping()
        began = time.monotonic()
        for start in range(0, count, BATCH):
            async with client.pipeline(transaction=False) as pipe:
                for number in range(start, min(count, start + BATCH)):
                    if not streams:
                        pipe.publish(bridged.KEY, value)
                        continue
                    fields: dict[str, Any] = {
                        "data": value,
                        **bridged.HEADERS,
                        "message-id": f"{'0' * 32}-{'0' * 16}-{number}",
                    }
                    pipe.xadd(
                        STREAM,
                        fields,
                        trim_strategy=PureToken.MAXLEN,
                        trim_operator=PureToken.APPROXIMATELY,
                        threshold=100_000,
                    )
        bridged.say(rate=count / (time.monotonic() - began))


def bare(url: str, count: int, size: int, *, streams: bool) -> None:
    trio.run(partial(_send, url, count, size, streams=streams))


ROUTE: Final = {"pattern": "bench/**", "to": "bench.{1}"}

SUBJECT: Final = bridged.Subject(
    name="redis",
    broker=broker,
    why_not=redis_broker.why_not,
    prepare=prepare,
    bare={"channels": partial(bare, streams=False), "streams": partial(bare, streams=True)},
    routes={"export": ROUTE, "reliable": {**ROUTE, "reliable": True}},
    compare={"export": "channels", "reliable": "streams"},
    count=40_000,
)

if __name__ == "__main__":
    sys.exit(bridged.main(SUBJECT, sys.argv[1:]))
