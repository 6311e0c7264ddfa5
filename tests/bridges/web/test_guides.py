"""The guides for Node, curl and Prometheus do what they say. (The browser's is the chat of ``test_javascript``.)"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

import mesh
from tests.bridges.web.clients import PATIENCE, Book, Web, web
from tests.bridges.web.test_javascript import CLIENT, node_command
from tests.cli.command import daemon, home_at
from tests.sources import ROOT


def guide(name: str) -> str:
    return (ROOT / f"docs/howto/{name}.md").read_text(encoding="utf-8")


def blocks(text: str, kind: str = "") -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


async def test_node(near: mesh.Node, far: mesh.Node, tmp_path: Path) -> None:
    command = node_command()
    if command is None:
        pytest.skip("NO NODE 20 OR LATER, so the guide for it is not tried")
    [program] = blocks(guide("web-node"), "js")
    book = Book(token=("subscribe:home/**", "publish:home/*/heating"))
    async with web(near, book) as it, far.subscribe("home/*/heating") as heating:
        shutil.copy(CLIENT, tmp_path)
        script = tmp_path / "thermostat.mjs"
        script.write_text(program.replace("ws://127.0.0.1:7480", it.url.replace("http", "ws")))
        process = await trio.lowlevel.open_process(
            [*command, str(script)], env={**os.environ, "MESH_TOKEN": "token"}, stdout=-1, stderr=-3
        )
        try:
            with trio.fail_after(PATIENCE * 2):
                async with far.publisher("home/hall/temperature") as hall:
                    await hall.wait_for_subscribers(1)
                    # The gateway is there then; its client only when it has been told so.
                    message = None
                    while message is None:
                        await hall.publish(17.5)
                        with trio.move_on_after(0.5):
                            message = await heating.__anext__()
                assert (message.topic, message.value) == ("home/hall/heating", {"on": True})
                assert process.stdout is not None
                said = await process.stdout.receive_some()
                assert said.splitlines()[0] == f"{far.name}: home/hall/temperature = 17.5".encode()
        finally:
            process.kill()
            await process.wait()


async def shell(line: str, where: str, home: Path, tools: Path, more: Sequence[str] = ()) -> str:
    """A line of the guide as a person would type it, with the gateway's real port."""
    script = line.replace("http://127.0.0.1:7480", where) + "".join(more)
    environment = {**os.environ, "MESH_HOME": str(home), "PATH": f"{tools}:{os.environ['PATH']}"}
    with trio.fail_after(PATIENCE * 2):
        done = await trio.run_process(
            ["bash", "-c", script], capture_stdout=True, env=environment, check=False
        )
    return done.stdout.decode()


async def test_curl(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("NO CURL, so the guide for it is not tried")
    text = guide("web-curl")
    _, token, calls, *_ = blocks(text)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "mesh").write_text(f'#!/bin/sh\nexec {sys.executable} -m mesh.cli.main "$@"\n')
    (tools / "mesh").chmod(0o755)
    home = home_at(tmp_path / "home")
    async with daemon(home, "--http", "127.0.0.1:0") as running:
        found = re.search(r"http://\S+", running.stdout[0])
        assert found is not None
        where = found[0]
        secret = (await shell(f'{token}\necho "$TOKEN"', where, home, tools)).strip()
        assert secret.startswith("zmt_")
        publish, request, peers, listen = re.findall(r"curl .*?(?:[^\\]\n)", calls + "\n", re.DOTALL)

        async def call(line: str, *more: str) -> str:
            return await shell(f"TOKEN={secret}\n{line.strip()}", where, home, tools, more)

        assert json.loads(await call(publish)) == {"published": True}
        # As the guide shows it: the whole document, for a topic that nobody serves.
        [problem] = blocks(text, "json")
        assert json.loads(await call(request)) == json.loads(problem)
        assert json.loads(await call(peers)) == []
        async with trio.open_nursery() as nursery:
            heard: list[str] = []

            async def hear() -> None:
                heard.append(await call(listen, " | sed -u '/^data:/q'"))
                nursery.cancel_scope.cancel()

            nursery.start_soon(hear)
            with trio.fail_after(PATIENCE * 2):
                while True:  # until it listens
                    await call(publish)
        event = json.loads(heard[0].rpartition("data: ")[2])
        assert (event["topic"], event["value"]) == ("home/hall/lamp", {"on": True})


async def test_prometheus(open_web: Web) -> None:
    """Every metric that the guide names is there, under the type that its query asks for."""
    text = guide("web-prometheus")
    metrics = (await open_web.ask("GET", "/metrics")).body.decode()
    kinds: dict[str, Any] = dict(re.findall(r"^# TYPE (\S+) (\S+)$", metrics, re.MULTILINE))
    named = set(re.findall(r"zeromesh_[a-z_]+", text))
    named |= {f"zeromesh{part}messages_total" for part in re.findall(r"`…(_[a-z]+_)…`", text)}
    for name in sorted(named):
        assert name in kinds or kinds.get(name.removesuffix("_bucket")) == "histogram", name
    for name in re.findall(r"(?:rate|increase)\((zeromesh_[a-z_]+)", text):
        assert kinds.get(name, kinds.get(name.removesuffix("_bucket"))) in ("counter", "histogram"), name
    # What it is for is all there.
    assert named >= {name for name in kinds if name.startswith("zeromesh_bridge_")}
