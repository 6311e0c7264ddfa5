"""``demo``: three nodes as processes of their own, sharing this machine's real telemetry.

A temporary home with a fresh mesh → three child processes (``demo_node``) → this process, a node too, finds
them by mDNS, or is told where they are if multicast does not work here → what they publish, requests and
round trips → a view (``demo_view``).  The children end with their standard input, whatever becomes of this
process.
"""

from __future__ import annotations

import json as json_
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from mesh.cli.base import JsonOption, VerboseOption, guarded, run, set_up_logging
from mesh.cli.demo_view import NodeRow, Picture, View, milliseconds, view
from mesh.cli.output import json_line, write
from mesh.errors import MeshError

if TYPE_CHECKING:
    import trio

    import mesh

__all__ = ["register"]

MDNS_PATIENCE: Final = 3.0  # seconds until the children are told where to find each other
START_PATIENCE: Final = 20.0  # seconds for a child to say that it is up
REFRESH: Final = 1.0  # seconds between two pictures


def register(app: typer.Typer) -> None:
    app.command("demo")(guarded(demo))


def demo(
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", metavar="N", min=0.1, help="End after so many.", show_default=False),
    ] = None,
    json: JsonOption = False,
    verbose: VerboseOption = 0,
) -> int:
    """See a mesh at work, on this machine.

    Three nodes share its load, memory, disk and network counters. They are processes of their own, find each other by mDNS (or by a seed where there is no multicast), and talk
    encrypted, in a mesh that exists for the demo only. On a terminal a table is redrawn every second;
    elsewhere a line is printed. Until Ctrl-C, or for --seconds.

    \b
    Examples:
      mesh demo
      mesh demo --seconds 10
      mesh demo --seconds 5 --json
    """
    set_up_logging(verbose)
    with tempfile.TemporaryDirectory(prefix="zeromesh-demo-", ignore_cleanup_errors=True) as folder:
        summary = _Summary()
        code = run(lambda: _demo(Path(folder), seconds, json, summary), endless=True)
        if summary.picture is not None:
            write(json_line({"summary": summary.fields()}) if json else summary.line())
        return code


class _Summary:
    """What is left to say at the end."""

    picture: Picture | None = None

    def fields(self) -> dict[str, Any]:
        assert self.picture is not None
        picture = self.picture
        return {
            "seconds": round(picture.elapsed, 1),
            "nodes": len(picture.nodes),
            "found_by": picture.found_by,
            "messages": picture.messages,
            "lost": picture.lost,
            "request": picture.request,
        }

    def line(self) -> str:
        assert self.picture is not None
        picture = self.picture
        return (
            f"demo: {len(picture.nodes)} nodes found by {picture.found_by}, {picture.messages} messages in "
            f"{picture.elapsed:.1f} s, {picture.lost} lost, request {milliseconds(picture.request)}\n"
        )


class _Watcher:
    """Counts what arrives at this process's node, and draws the picture."""

    def __init__(self, node: mesh.Node, rows: list[NodeRow], found_by: str) -> None:
        self._node = node
        self._rows = {row.name: row for row in rows}
        self._began = self._last = time.monotonic()
        self._before: dict[str, int] = {}
        self.found_by = found_by
        self._request: float | None = None
        self._uptime: Any = None

    async def listen(self, pattern: str, *, task_status: trio.TaskStatus[None]) -> None:
        async with self._node.subscribe(pattern) as messages:
            task_status.started()
            async for message in messages:
                row = self._rows.get(message.sender.name)
                if row is not None:
                    row.messages += 1
                    row.latest[message.topic.rpartition("/")[2]] = message.value

    async def measure(self, service: str) -> None:
        """Round trips to all, and one request, again and again."""
        import trio

        while True:
            for peer in list(self._node.peers.values()):
                if peer.name in self._rows:
                    await self._ping(peer)
            began = time.monotonic()
            try:
                self._uptime = await self._node.request(service, timeout=1.0)
                self._request = time.monotonic() - began
            except MeshError:
                self._request = None  # shown as "-": the node that serves may still be starting
            await trio.sleep(REFRESH / 2)

    async def _ping(self, peer: mesh.Peer) -> None:
        row = self._rows[peer.name]
        try:
            row.rtt = await self._node.ping(peer, timeout=1.0)
        except MeshError:
            row.rtt = None

    def picture(self) -> Picture:
        now = time.monotonic()
        past, self._last = now - self._last, now
        states = {peer.name: peer.state for peer in self._node.peers.values()}
        for row in self._rows.values():
            row.rate = (row.messages - self._before.get(row.name, 0)) / past if past > 0 else 0.0
            self._before[row.name] = row.messages
            row.state = states.get(row.name, "gone")
        rows = list(self._rows.values())
        return Picture(
            elapsed=now - self._began,
            found_by=self.found_by,
            nodes=rows,
            messages=sum(row.messages for row in rows),
            rate=sum(row.rate for row in rows),
            lost=self._node.statistics().lost,
            request=self._request,
            uptime=self._uptime,
        )


async def _demo(folder: Path, seconds: float | None, json: bool, summary: _Summary) -> None:
    import trio

    import mesh
    from mesh.cli.demo_node import NAMES, SERVICE
    from mesh.home import Home

    home = folder / "home"
    Home(home).init("demo", "demo")
    async with AsyncExitStack() as stack:
        children = [await stack.enter_async_context(_child(home, name)) for name in NAMES]
        rows = [await _is_up(child) for child in children]
        node = await stack.enter_async_context(mesh.open_node("panel", home=home, discovery=("mdns",)))
        found_by = await _meet(node, children, [endpoint for _, endpoints in rows for endpoint in endpoints])
        watcher = _Watcher(node, [row for row, _ in rows], found_by)
        with view(json=json) as shown:
            async with trio.open_nursery() as nursery:
                await nursery.start(watcher.listen, "demo/**")
                nursery.start_soon(watcher.measure, SERVICE)
                for child in children:
                    nursery.start_soon(_mind, child)
                try:
                    with trio.move_on_after(float("inf") if seconds is None else seconds):
                        await _draw(watcher, shown)
                finally:
                    summary.picture = watcher.picture()
                nursery.cancel_scope.cancel()


async def _draw(watcher: _Watcher, shown: View) -> None:
    import trio

    while True:
        await trio.sleep(REFRESH)
        shown.show(watcher.picture())


# -- the children -----------------------------------------------------------------------------


class _Child:
    def __init__(self, name: str, process: trio.Process) -> None:
        self.name = name
        self.process = process

    async def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(line.encode() + b"\n")


@asynccontextmanager
async def _child(home: Path, name: str) -> AsyncIterator[_Child]:
    """A node as a process, which ends with the block."""
    import trio

    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "mesh.cli.demo_node", str(home), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield _Child(name, process)
    finally:
        with trio.CancelScope(shield=True):
            assert process.stdin is not None
            await process.stdin.aclose()  # which asks it to end
            with trio.move_on_after(4.0):
                await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()
            for stream in (process.stdout, process.stderr):
                assert stream is not None
                await stream.aclose()


async def _is_up(child: _Child) -> tuple[NodeRow, list[str]]:
    """Wait for the child's first line. Raises ``MeshError`` if it ends instead."""
    import trio

    assert child.process.stdout is not None
    said = b""
    with trio.move_on_after(START_PATIENCE):
        while b"\n" not in said:
            chunk = await child.process.stdout.receive_some()
            if not chunk:
                raise MeshError(await _last_words(child))
            said += chunk
        fields = json_.loads(said.split(b"\n")[0])
        return NodeRow(child.name, fields["id"]), list(fields["endpoints"])
    raise MeshError(f"the demo's node {child.name} was not up within {START_PATIENCE:g} s")


async def _mind(child: _Child) -> None:
    """End the demo with a clear line if a child ends before it."""
    await child.process.wait()
    raise MeshError(await _last_words(child))


async def _last_words(child: _Child) -> str:
    assert child.process.stderr is not None
    said = b""
    async for chunk in child.process.stderr:
        said += chunk
    last = said.decode(errors="replace").strip().splitlines()[-1:] or ["without a word"]
    return f"the demo's node {child.name} ended: {last[0]}"


async def _meet(node: mesh.Node, children: list[_Child], endpoints: list[str]) -> str:
    """Wait until all are peers; by what they were found."""
    import trio

    with trio.move_on_after(MDNS_PATIENCE):
        await node.wait_for_peers(len(children))
        return "mDNS"
    for child in children:
        for endpoint in endpoints:
            await child.tell(f"connect {endpoint}")
    for endpoint in endpoints:
        node.add_seed(endpoint)
    with trio.move_on_after(START_PATIENCE):
        await node.wait_for_peers(len(children))
        return "seed (there is no multicast here)"
    raise MeshError("the demo's nodes do not find each other, neither by mDNS nor by seed; try mesh doctor")
