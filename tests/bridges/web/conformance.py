"""The Autobahn|Testsuite's cases against ``/ws``: ``make conformance``, or ``python -m tests.bridges.web.conformance``.

The suite is Python 2; kosoku runs the same case files.  They want an echo, which the gateway is not: each message is
sent back where ``Session`` would read its operation, through the same outbox, frames and stream as every answer.
Everything else, from the handshake to the closing, is the gateway's.

    1-7, 10    framing, pings, reserved bits, opcodes, fragments, UTF-8, closing: always (247 cases)
    9          messages up to 16 MiB: here, not in the tests (54 cases)
    12, 13     compression: not offered, see ``bridges.web.connection``
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from unittest import mock

import trio

import mesh
from bridges.web.bounds import Bounds
from bridges.web.encoding import frame
from bridges.web.session import Session
from tests.bridges.web.clients import web
from tests.node.meshes import MemoryMeshes

NOT_OFFERED = ("12.*", "13.*")
LARGE = ("9.*",)
PATIENCE = 240.0


async def _echo(session: Session, data: str | bytes) -> None:
    text = isinstance(data, str)
    session.outbox.answer(frame(data.encode() if isinstance(data, str) else data, text=text))
    session._out.kick()


async def run(node: mesh.Node, folder: Path, *, without: Sequence[str] = ()) -> dict[str, tuple[str, str]]:
    """What the suite says of each case: of the messages, and of the closing."""
    program = [str(Path(sys.executable).with_name("kosoku")), "--parallelism", "2", "--outdir", str(folder)]
    for cases in (*NOT_OFFERED, *without):
        program += ["--exclude", cases]
    bounds = Bounds(body_bytes=20 << 20, answers_bytes=64 << 20, answers_pause=64 << 20)
    with mock.patch.object(Session, "_take", _echo), mock.patch.object(Session, "_say_ready"):
        async with web(node, bounds=bounds) as it:
            address = f"{it.url.replace('http', 'ws')}/ws"
            with trio.fail_after(PATIENCE):
                await trio.run_process([*program, address], check=False, stdout=subprocess.DEVNULL)
            assert it.rejected["failed"] == 0
    (cases,) = json.loads((folder / "index.json").read_text()).values()
    return {name: (case["behavior"], case["behaviorClose"]) for name, case in cases.items()}


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with MemoryMeshes().of(1) as (node,):
            found = await run(node, Path(folder))
    for verdict, count in Counter(found.values()).items():
        print(f"{count:4} cases: {', closing '.join(verdict)}")
    bad = {name: it for name, it in found.items() if not {*it} <= {"OK", "INFORMATIONAL"}}
    for name, verdict in bad.items():
        print(f"case {name}: {', closing '.join(verdict)}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    trio.run(partial(main))
