"""A bridge to Kafka is killed (SIGKILL) under numbered traffic, both ways: its sibling goes on, nothing is lost."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import trio

import mesh
from tests.bridges.kafka_broker import Broker
from tests.bridges.kafka_clients import create, fresh, until
from tests.bridges.kafka_outside import Outside
from tests.lab import Running, running

PATIENCE = 150.0


async def test_a_killed_bridge_is_replaced_and_nothing_is_lost(kafka: Broker, tmp_path: Path) -> None:
    inward, outward = fresh("inward"), fresh("outward")
    await create(kafka.address, inward, outward)
    table = {
        "kind": "kafka",
        "url": f"kafka://{kafka.address}",
        # A member that was killed is missed after this time; the rest is what tests would wait for.
        "options": {"session.timeout.ms": 3000, "topic.metadata.refresh.interval.ms": 300},
        "export": [{"pattern": "out/*", "to": outward, "reliable": True, "format": "json"}],
        "import": [{"from": inward, "topic": "in/{topic}", "reliable": True}],
    }
    home = tmp_path / "home"
    outside = Outside(kafka.address)
    outside.start()
    try:
        async with (
            mesh.open_node(
                "outer", home=home, listen=["tcp://127.0.0.1:0"], discovery=(), config=mesh.Config.local()
            ) as node,
            node.subscribe("in/**") as messages,
            outside.reading(outward) as reading,
            trio.open_nursery() as nursery,
            AsyncExitStack() as programs,
        ):

            async def begin(name: str, word: str) -> Running:
                argv = [sys.executable, "-m", "tests.bridges.bridge_program", json.dumps(table)]
                argv += [name, str(home), node.endpoints[0], str(tmp_path / name)]
                program = await programs.enter_async_context(running(argv))
                await program.expect(f"^{word}$", within=PATIENCE)
                return program

            got: list[int] = []
            told: list[int] = []

            async def feed(first: int, last: int) -> None:
                """Both ways, one after the other."""
                for number in range(first, last):
                    await node.publish("out/a", number)
                    await outside.put(inward, b"%d" % number, {})

            async def listen() -> None:
                async for message in messages:
                    got.append(int(message.data))

            async def read() -> None:
                while True:
                    told.extend(json.loads(record.value) for record in await reading.more())

            async def heard() -> set[int]:
                return set(got) & set(told)

            leader = await begin("one", "leads")
            standby = await begin("two", "waits")
            nursery.start_soon(listen)
            nursery.start_soon(read)
            await feed(0, 100)
            nursery.start_soon(feed, 100, 600)
            await until(heard, lambda both: len(both) > 150)
            leader.signal(signal.SIGKILL)
            await standby.expect("^leads$", within=PATIENCE)
            await until(heard, set(range(600)).issubset)
            await feed(600, 700)
            await until(heard, set(range(700)).issubset)
            nursery.cancel_scope.cancel()
    finally:
        outside.stop()
    # In order, but for what came twice.
    assert list(dict.fromkeys(got)) == list(range(700))
    assert list(dict.fromkeys(told)) == list(range(700))
