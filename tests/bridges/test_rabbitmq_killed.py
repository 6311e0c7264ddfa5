"""A bridge to RabbitMQ is killed (SIGKILL) under numbered traffic, both ways: its sibling goes on, nothing is lost."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import trio

import mesh
from tests.bridges.rabbitmq_broker import Broker
from tests.bridges.rabbitmq_client import outsider
from tests.lab import Running, running

PATIENCE = 90.0
TOTAL = 400


async def test_a_killed_bridge_is_replaced_and_nothing_is_lost(rabbitmq: Broker, tmp_path: Path) -> None:
    word = f"k{uuid4().hex[:8]}"
    table = {
        "kind": "rabbitmq",
        "url": rabbitmq.url.rstrip("/"),
        "export": [{"pattern": "out/*", "to": f"{word}.out.{{1}}", "reliable": True, "format": "json"}],
        "import": [{"from": f"{word}.in", "topic": "in/a", "reliable": True}],
    }
    home = tmp_path / "home"
    got: list[int] = []
    told: list[int] = []
    with outsider(rabbitmq.url) as sender, outsider(rabbitmq.url) as reader:
        queue = await reader.queue(f"{word}.out.#")
        async with (
            mesh.open_node(
                "outer", home=home, listen=["tcp://127.0.0.1:0"], discovery=(), config=mesh.Config.local()
            ) as node,
            node.subscribe("in/**") as messages,
            AsyncExitStack() as programs,
        ):

            async def begin(name: str, line: str) -> Running:
                argv = [sys.executable, "-m", "tests.bridges.bridge_program", json.dumps(table)]
                argv += [name, str(home), node.endpoints[0], str(tmp_path / name)]
                program = await programs.enter_async_context(running(argv))
                await program.expect(f"^{line}$", within=PATIENCE)
                return program

            halfway = trio.Event()

            async def feed() -> None:
                """Both ways, one after the other."""
                for number in range(TOTAL):
                    await node.publish("out/a", number)
                    await sender.publish(f"{word}.in", b"%d" % number, delivery_mode=2)

            async def listen() -> None:
                while not {*range(TOTAL)} <= {*got}:
                    got.append(int((await anext(messages)).data))
                    if len(got) > TOTAL // 4:
                        halfway.set()

            async def read() -> None:
                while not {*range(TOTAL)} <= {*told}:
                    told.extend(json.loads(each.body) for each in await reader.take(queue, within=PATIENCE))

            leader = await begin("one", "leads")
            standby = await begin("two", "waits")
            with trio.fail_after(PATIENCE):
                async with trio.open_nursery() as moving:
                    for task in (listen, read, feed):
                        moving.start_soon(task)
                    await halfway.wait()
                    leader.signal(signal.SIGKILL)
                    await standby.expect("^leads$", within=PATIENCE)
    # In order, but for what came twice.
    assert list(dict.fromkeys(got)) == list(range(TOTAL))
    assert list(dict.fromkeys(told)) == list(range(TOTAL))
