"""``mesh demo``: three real processes, real telemetry, and nothing left behind."""

from __future__ import annotations

import json
import re
import signal

import psutil

from tests.cli.command import mesh, started


async def test_lines_and_a_summary() -> None:
    done = await mesh("demo", "--seconds", "3", within=60)
    assert done.code == 0, done
    assert done.stderr == []
    *lines, summary = done.stdout
    assert lines
    assert all(re.search(r"3 peers \(.*\)  \d+ messages", line) for line in lines), lines
    found = re.fullmatch(r"demo: 3 nodes found by .*, (\d+) messages in .* s, 0 lost, request .* ms", summary)
    assert found, summary
    assert int(found[1]) > 20


async def test_json() -> None:
    done = await mesh("demo", "--seconds", "2.5", "--json", within=60)
    assert done.code == 0, done
    *pictures, last = map(json.loads, done.stdout)
    assert last["summary"]["nodes"] == 3
    picture = pictures[-1]
    assert {row["name"] for row in picture["nodes"]} == {"cpu", "storage", "network"}
    assert all(row["messages"] > 0 and row["state"] == "alive" for row in picture["nodes"])
    assert picture["uptime"]["seconds"] > 0
    latest = {what for row in picture["nodes"] for what in row["latest"]}
    assert {"load", "percent", "memory", "disk", "sent", "received"} <= latest


async def test_ctrl_c_ends_it_and_every_node() -> None:
    async with started("demo") as demo:
        await demo.expect("3 peers", within=60)
        children = psutil.Process(demo.pid).children(recursive=True)
        assert len(children) == 3
        demo.signal(signal.SIGINT)
        assert await demo.wait(within=15) == 0
        assert demo.stdout[-1].startswith("demo: 3 nodes found by ")
        assert not any(child.is_running() for child in children)


async def test_the_nodes_do_not_outlive_a_demo_that_is_killed() -> None:
    async with started("demo") as demo:
        await demo.expect("3 peers", within=60)
        children = psutil.Process(demo.pid).children(recursive=True)
        demo.signal(signal.SIGKILL)
        await demo.wait()
        _, alive = psutil.wait_procs(children, timeout=15)
        assert not alive


async def test_a_node_that_dies_ends_the_demo_with_a_line() -> None:
    async with started("demo") as demo:
        await demo.expect("3 peers", within=60)
        psutil.Process(demo.pid).children()[0].kill()
        assert await demo.wait(within=20) == 1
        assert len(demo.stderr) == 1
        assert re.match("mesh: the demo's node (cpu|storage|network) ended: ", demo.stderr[0])
