"""How fast a bridge exports to Kafka: ``python -m benchmarks.kafka``.

A private broker on this machine (KRaft mode, one node), and in each round, one after the other, the same records
(value, key, headers, all confirmed by an idempotent producer):

    bare       confluent-kafka alone, as its manual has it: ``produce`` with a callback, ``poll``, ``flush``
    export     a node publishes → the mesh → a bridge in another process → Kafka
    reliable   the same on a reliable route, by way of the spool on disk

A rate is from the first message's publishing (for ``bare``, the first ``produce``) to the last confirmation, by the
clock that all processes share. ``bare`` has the machine to itself; a bridge shares it with the publishing node.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import trio

from benchmarks import figures
from benchmarks.report import print_table
from tests.lab import Running, running

GOAL: Final = 0.7
"""What the median of ``export`` has to reach of that of ``bare``."""

MOST: Final = 60_000
"""Messages a round: what a subscription holds by default, so that none is dropped before the bridge takes it."""

WITHIN: Final = 120.0

HEADERS: Final = {
    "mesh-path": "0123456789abcdef",
    "mesh-topic": "bench/a",
    "mesh-sender": "publisher",
    "content-type": "application/octet-stream",
    "timestamp": "1700000000.123456",
}
"""What a bridge writes beside each value; the message id comes to it."""


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


# -- the programs ----------------------------------------------------------------------------


def bare(address: str, topic: str, count: int, size: int) -> None:
    from confluent_kafka import Producer

    failed: list[Any] = []
    confirmed = 0

    def report(error: Any, _: Any) -> None:
        nonlocal confirmed
        confirmed += 1
        if error is not None:
            failed.append(error)

    producer = Producer({"bootstrap.servers": address, "enable.idempotence": True, "linger.ms": 5})
    producer.produce(topic, b"first", on_delivery=report)
    producer.flush()
    value = bytes(size)
    began = time.monotonic()
    for number in range(count):
        headers = {**HEADERS, "message-id": f"{'0' * 32}-{'0' * 16}-{number}"}
        while True:
            try:
                producer.produce(topic, value, "bench/a", on_delivery=report, headers=headers)
            except BufferError:
                producer.poll(0.01)
            else:
                break
        if number % 500 == 0:
            producer.poll(0)
    producer.flush()
    say(rate=count / (time.monotonic() - began), confirmed=confirmed - 1, failed=len(failed))


async def publisher(home: str, count: int, size: int) -> None:
    import mesh

    async with mesh.open_node(
        "publisher", home=home, listen=["tcp://127.0.0.1:0"], discovery=(), config=mesh.Config.local()
    ) as node:
        print(node.endpoints[0], flush=True)
        publisher = node.publisher("bench/a")
        await publisher.wait_for_subscribers(1)
        print("ready", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        value = bytes(size)
        say(began=time.monotonic())
        for _ in range(count):
            await publisher.publish(value)
        await publisher.flush()
        await trio.to_thread.run_sync(sys.stdin.readline)


async def bridge(address: str, topic: str, home: str, seed: str, count: int, reliable: bool) -> None:
    import mesh
    from bridges.bridge import open_bridge

    table = {
        "kind": "kafka",
        "url": f"kafka://{address}",
        "export": [{"pattern": "bench/**", "to": topic, "reliable": reliable}],
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


# -- the rounds ------------------------------------------------------------------------------


def program(*words: object) -> list[str]:
    return [sys.executable, "-m", "benchmarks.kafka", "--as", *map(str, words)]


async def told(program: Running) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((await program.expect(r"^\{", within=WITHIN)).string)
    return found


async def one_bare(address: str, topic: str, options: argparse.Namespace) -> float:
    async with running(program("bare", address, topic, options.count, options.size)) as process:
        result = await told(process)
        assert (result["confirmed"], result["failed"]) == (options.count, 0), result
        return float(result["rate"])


async def one_bridge(address: str, topic: str, options: argparse.Namespace, *, reliable: bool) -> float:
    with tempfile.TemporaryDirectory() as home:
        async with running(program("publisher", home, options.count, options.size)) as source:
            seed = (await source.expect("^tcp:", within=WITHIN)).string
            words = ("bridge", address, topic, home, seed, options.count, int(reliable))
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
    from tests.bridges.kafka_broker import Broker, why_not

    reason = await trio.to_thread.run_sync(why_not)
    if reason is not None:
        raise SystemExit(f"benchmarks: no Kafka broker: {reason}")
    rates: dict[str, list[float]] = {"bare": [], "export": [], "reliable": []}
    with tempfile.TemporaryDirectory() as folder:
        broker = Broker(Path(folder))
        try:
            await trio.to_thread.run_sync(broker.start)
            for turn in range(options.rounds):
                rates["bare"].append(await one_bare(broker.address, f"bare-{turn}", options))
                for name in ("export", "reliable"):
                    rate = await one_bridge(
                        broker.address, f"{name}-{turn}", options, reliable=name == "reliable"
                    )
                    rates[name].append(rate)
        finally:
            await trio.to_thread.run_sync(broker.stop)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    claim = f"export >= {GOAL} x bare"
    return {
        "settings": {"count": options.count, "size": options.size, "rounds": options.rounds},
        "rates": rates,
        "medians": medians,
        "met": {claim: medians["export"] >= GOAL * medians["bare"]},
    }


def show(result: Mapping[str, Any]) -> None:
    medians = result["medians"]
    rows = [
        [
            name,
            f"{medians[name]:,.0f}",
            f"{medians[name] / medians['bare']:.2f}",
            f"{(max(found) - min(found)) / medians[name]:.0%}",
        ]
        for name, found in result["rates"].items()
    ]
    settings = result["settings"]
    title = f"to Kafka: {settings['count']:,} messages of {settings['size']} B, {settings['rounds']} rounds"
    print_table(title, ["", "messages/s", "of bare", "spread"], rows, sys.stdout)


def main() -> int:
    """0: measured, and the claim held; 1: it did not; 2: usage."""
    if sys.argv[1:2] == ["--as"]:
        role, *words = sys.argv[2:]
        if role == "bare":
            bare(words[0], words[1], int(words[2]), int(words[3]))
        elif role == "publisher":
            trio.run(publisher, words[0], int(words[1]), int(words[2]))
        else:
            trio.run(bridge, *words[:4], int(words[4]), words[5] == "1")
        return 0
    parser = figures.parser("kafka", "Measure a bridge's export to Kafka beside confluent-kafka alone.")
    parser.add_argument("--count", type=int, default=40_000, metavar="N", help="messages a round (40000)")
    parser.add_argument("--size", type=int, default=256, metavar="N", help="bytes a message (256)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds (5)")
    options = parser.parse_args()
    if not 0 < options.count <= MOST:
        parser.error(f"--count is 1 to {MOST}")
    return figures.run(options, measure, show)


if __name__ == "__main__":
    sys.exit(main())
