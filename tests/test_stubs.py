"""The type stubs of ``mesh.aio`` and ``mesh.sync`` say what the Trio classes say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.sources import ROOT

if not (ROOT / "tools").is_dir():
    pytest.skip("the tools are not here", allow_module_level=True)

from tools.stubs import stubs

PROGRAM = """
import mesh, mesh.aio, mesh.sync

async def asked(request: mesh.Request) -> int:
    return 1

async def asynchronous() -> None:
    async with mesh.aio.open_node("kitchen", discovery=()) as node:
        await node.publish("a", 1)
        async with node.subscribe("a") as values:
            async for message in values:
                reveal_type(message)
        async with node.request_many("a") as replies:
            reveal_type([reply async for reply in replies])
        await node.serve("a", asked, started=lambda: None)

def plain() -> None:
    with mesh.sync.open_node("kitchen") as node:
        node.publish("a", 1)
        with node.subscribe("a") as values:
            for message in values:
                reveal_type(message)
        for event in node.watch_peers():
            reveal_type(event)
        with node.request_many("a") as replies:
            reveal_type([reply for reply in replies])
        node.serve("a", lambda request: request.value)
        node.publish(1, 1)
"""


def test_the_stubs_are_up_to_date() -> None:
    for path, text in stubs().items():
        assert path.read_text(encoding="utf-8") == text, f"run: python -m tools.stubs ({path.name})"


def test_a_type_checker_understands_programs(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary", str(program)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    told = [line.partition(": ")[2] for line in said.splitlines()]
    message, reply = "mesh.node.message.Message", "mesh.node.request.Reply"
    assert [line.partition('"')[2].rstrip('"') for line in told if line.startswith("note: Revealed")] == [
        message,
        f"list[{reply}]",
        message,
        "mesh.node.message.PeerEvent",
        f"list[{reply}]",
    ]
    (error,) = [line for line in told if line.startswith("error")]
    assert 'Argument 1 to "publish"' in error
