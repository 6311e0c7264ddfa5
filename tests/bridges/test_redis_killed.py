"""A bridge to Redis is killed (SIGKILL) under numbered traffic, both ways: its sibling goes on, nothing is lost."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import redis
import trio

import mesh
from tests.bridges.redis_broker import PASSWORD, Broker
from tests.lab import Running, running

PATIENCE = 90.0
TOTAL = 400


async def test_a_killed_bridge_is_replaced_and_nothing_is_lost(redis_server: Broker, tmp_path: Path) -> None:
    redis_server.start_if_dead()
    word = f"k{uuid4().hex[:8]}"
    table = {
        "kind": "redis",
        "url": f"redis://:{PASSWORD}@127.0.0.1:{redis_server.port}",
        "export": [{"pattern": "out/*", "to": f"{word}.out.{{1}}", "reliable": True, "format": "json"}],
        # What the dead one had been given and not acknowledged is claimed after this time.
        "import": [{"from": f"{word}.in", "topic": "in/a", "reliable": True, "claim_after": 1.0}],
    }
    home = tmp_path / "home"
    got: list[int] = []
    told: list[int] = []
    with redis.Redis(port=redis_server.port, password=PASSWORD) as client:
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
                    fields = {"data": b"%d" % number}
                    await trio.to_thread.run_sync(client.xadd, f"{word}.in", fields)

            async def listen() -> None:
                while not {*range(TOTAL)} <= {*got}:
                    got.append(int((await anext(messages)).data))
                    if len(got) > TOTAL // 4:
                        halfway.set()

            async def read() -> None:
                last = b"0"
                while not {*range(TOTAL)} <= {*told}:
                    entries = client.xrange(f"{word}.out.a", f"({last.decode()}")
                    told.extend(json.loads(fields[b"data"]) for _, fields in entries)
                    last = entries[-1][0] if entries else last
                    await trio.sleep(0 if entries else 0.05)

            leader = await begin("one", "leads")
            standby = await begin("two", "waits")
            with trio.fail_after(PATIENCE):
                async with trio.open_nursery() as moving:
                    for task in (listen, read, feed):
                        moving.start_soon(task)
                    await halfway.wait()
                    leader.signal(signal.SIGKILL)
                    await standby.expect("^leads$", within=PATIENCE)
    # In order, but for what came twice; and from Redis, for what was claimed of the dead one.
    assert list(dict.fromkeys(told)) == list(range(TOTAL))
    assert sorted(set(got)) == list(range(TOTAL))
