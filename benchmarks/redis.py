"""How fast a bridge exports to Redis: ``python -m benchmarks.redis``.

A private redis-server on this machine, and in each round, one after the other, the same messages:

    channels        coredis alone: PUBLISH, in pipelines of 512, each answered before the next
    export          a node publishes → the mesh → a bridge in another process → PUBLISH, and the headers beside it
    streams         coredis alone: XADD with the fields that a bridge writes and trimming, in pipelines of 512
    reliable        the bridge on a reliable route: by way of the spool on disk, XADD

A rate is from the first message's publishing (for coredis alone, the first pipeline) to the last answer, by the clock
that all processes share. Coredis alone has the machine to itself; a bridge shares it with the publishing node.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import trio

from benchmarks import figures
from benchmarks.kafka import GOAL, HEADERS, MOST, WITHIN, publisher, say, told
from benchmarks.report import print_table
from tests.lab import running

BATCH: Final = 512
PAIRS: Final = {"export": "channels", "reliable": "streams"}
"""What a bridge does, and what coredis does alone that is the same."""


async def bare(port: int, password: str, count: int, size: int, streams: bool) -> None:
    from coredis import PureToken, Redis

    value = bytes(size)
    async with Redis(host="127.0.0.1", port=port, password=password) as client:
        await client.ping()
        began = time.monotonic()
        for start in range(0, count, BATCH):
            async with client.pipeline(transaction=False) as pipe:
                for number in range(start, min(count, start + BATCH)):
                    if not streams:
                        pipe.publish("bench.a", value)
                        continue
                    fields: dict[str, Any] = {
                        "data": value,
                        **HEADERS,
                        "message-id": f"{'0' * 32}-{'0' * 16}-{number}",
                    }
                    pipe.xadd(
                        "bench.bare",
                        fields,
                        trim_strategy=PureToken.MAXLEN,
                        trim_operator=PureToken.APPROXIMATELY,
                        threshold=100_000,
                    )
        say(rate=count / (time.monotonic() - began))


async def bridge(port: int, password: str, home: str, seed: str, count: int, reliable: bool) -> None:
    import mesh
    from bridges import open_bridge

    table = {
        "kind": "redis",
        "url": f"redis://127.0.0.1:{port}",
        "password": password,
        "export": [{"pattern": "bench/**", "to": "bench.{1}", "reliable": reliable}],
    }
    async with (
        mesh.open_node(
            "bridge", home=home, listen=["tcp://127.0.0.1:0"], connect=[seed], discovery=(),
            config=mesh.Config.local(),
        ) as node,
        open_bridge(node, table, spool_folder=Path(home) / "spool") as bridge,
    ):  # fmt: skip
        await bridge.wait_live()
        print("ready", flush=True)
        while True:
            (route,) = bridge.statistics().routes
            dropped = sum(route.dropped.values()) + sum(route.rejected.values())
            if route.moved + dropped >= count:
                say(ended=time.monotonic(), moved=route.moved, dropped=dropped)
                return
            await trio.sleep(0.005)


def program(*words: object) -> list[str]:
    return [sys.executable, "-m", "benchmarks.redis", "--as", *map(str, words)]


async def one_bare(port: int, password: str, options: argparse.Namespace, *, streams: bool) -> float:
    words = ("bare", port, password, options.count, options.size, int(streams))
    async with running(program(*words)) as process:
        return float((await told(process))["rate"])


async def one_bridge(port: int, password: str, options: argparse.Namespace, *, reliable: bool) -> float:
    with tempfile.TemporaryDirectory() as home:
        async with running(program("publisher", home, options.count, options.size)) as source:
            seed = (await source.expect("^tcp:", within=WITHIN)).string
            words = ("bridge", port, password, home, seed, options.count, int(reliable))
            async with running(program(*words)) as process:
                await process.expect("^ready", within=WITHIN)
                await source.expect("^ready", within=WITHIN)
                await source.send("go\n")
                began = (await told(source))["began"]
                result = await told(process)
                assert (result["moved"], result["dropped"]) == (options.count, 0), result
                await source.send("end\n")
    return float(options.count / (result["ended"] - began))


async def measure(options: argparse.Namespace) -> Mapping[str, Any]:
    from tests.bridges.redis_broker import PASSWORD, Broker, why_not

    reason = await trio.to_thread.run_sync(why_not)
    if reason is not None:
        raise SystemExit(f"benchmarks: no redis-server: {reason}")
    rates: dict[str, list[float]] = {"channels": [], "export": [], "streams": [], "reliable": []}
    with tempfile.TemporaryDirectory() as folder:
        server = Broker(Path(folder))
        try:
            await trio.to_thread.run_sync(server.start)
            for _ in range(options.rounds):
                for reliable, name in ((False, "export"), (True, "reliable")):
                    rate = await one_bare(server.port, PASSWORD, options, streams=reliable)
                    rates[PAIRS[name]].append(rate)
                    rates[name].append(await one_bridge(server.port, PASSWORD, options, reliable=reliable))
        finally:
            await trio.to_thread.run_sync(server.stop)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    return {
        "settings": {"count": options.count, "size": options.size, "rounds": options.rounds},
        "rates": rates,
        "medians": medians,
        "met": {
            f"{name} >= {GOAL} x {alone}": medians[name] >= GOAL * medians[alone]
            for name, alone in PAIRS.items()
        },
    }


def show(result: Mapping[str, Any]) -> None:
    medians = result["medians"]
    rows = [
        [
            name,
            f"{medians[name]:,.0f}",
            f"{medians[name] / medians[PAIRS[name]]:.2f} of {PAIRS[name]}" if name in PAIRS else "",
            f"{(max(found) - min(found)) / medians[name]:.0%}",
        ]
        for name, found in result["rates"].items()
    ]
    settings = result["settings"]
    title = f"to Redis: {settings['count']:,} messages of {settings['size']} B, {settings['rounds']} rounds"
    print_table(title, ["", "messages/s", "share", "spread"], rows, sys.stdout)


def main() -> int:
    """0: measured, and the claims held; 1: they did not; 2: usage."""
    if sys.argv[1:2] == ["--as"]:
        role, *words = sys.argv[2:]
        if role == "bare":
            trio.run(bare, int(words[0]), words[1], int(words[2]), int(words[3]), words[4] == "1")
        elif role == "publisher":
            trio.run(publisher, words[0], int(words[1]), int(words[2]))
        else:
            trio.run(bridge, int(words[0]), *words[1:4], int(words[4]), words[5] == "1")
        return 0
    parser = figures.parser("redis", "Measure a bridge's export to Redis beside coredis alone.")
    parser.add_argument("--count", type=int, default=40_000, metavar="N", help="messages a round (40000)")
    parser.add_argument("--size", type=int, default=256, metavar="N", help="bytes a message (256)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds (5)")
    options = parser.parse_args()
    if not 0 < options.count <= MOST:
        parser.error(f"--count is 1 to {MOST}")
    return figures.run(options, measure, show)


if __name__ == "__main__":
    sys.exit(main())
