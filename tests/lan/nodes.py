"""Nodes as processes on hosts of the laboratory."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from tests.lab import Host, Running

__all__ = ["WITHIN", "LanNode", "Mesh", "both_hear"]

WITHIN = 30.0
"""Seconds that anything may take here: these tests are about what happens, not how fast (``benchmarks``)."""


class LanNode:
    """A running node, and what it says of itself."""

    def __init__(self, name: str, program: Running) -> None:
        self.name = name
        self.program = program
        self.ready: dict[str, Any] = {}
        self._asked = 0

    async def event(self, kind: str, name: str = "") -> dict[str, Any]:
        """The next event of this kind (about the peer of this name); ``kind`` may be ``one|other``."""
        pattern = f'^{{"event": "({kind})"' + (f'.*"name": "{name}"' if name else "")
        found: dict[str, Any] = json.loads((await self.program.expect(pattern, within=WITHIN)).string)
        return found

    async def has_said(self, kind: str, name: str) -> dict[str, Any]:
        """The first event of this kind about the peer of this name, be it long ago or yet to come."""
        with trio.fail_after(WITHIN):
            while True:
                for line in self.program.stdout:
                    said: dict[str, Any] = json.loads(line)
                    if said["event"] == kind and said.get("name") == name:
                        return said
                await self.program.expect("", within=WITHIN)

    async def meets(self, *names: str) -> None:
        """Return when these peers, and no others, are alive here."""
        with trio.fail_after(WITHIN):
            while (await self.count())["peers"] != dict.fromkeys(names, "alive"):
                await self.event("joined|left|recovered|suspected")

    async def count(self) -> dict[str, Any]:
        await self.program.send("count\n")
        return await self.event("counted")

    async def publish(self, value: str) -> None:
        await self.program.send(f"publish {value}\n")

    async def hears(self, other: LanNode) -> None:
        """Return when what ``other`` publishes arrives here; it goes on publishing until then."""
        async with trio.open_nursery() as nursery:
            self._asked += 1
            word = f"for-{self.name}-{self._asked}"

            async def speak() -> None:
                while True:
                    await other.publish(word)
                    await trio.sleep(0.05)

            nursery.start_soon(speak)
            await self.program.expect(f'^{{"event": "message".*"value": "{word}"', within=WITHIN)
            nursery.cancel_scope.cancel()

    def events(self, *kinds: str) -> list[tuple[str, str]]:
        """(kind, name of the peer) of everything said so far."""
        said = [json.loads(line) for line in self.program.stdout]
        return [(each["event"], each["name"]) for each in said if each["event"] in kinds]


class Mesh:
    """Starts nodes that belong to one mesh."""

    def __init__(self, home: Path) -> None:
        self.home = home

    @asynccontextmanager
    async def node(self, name: str, host: Host, *options: str) -> AsyncIterator[LanNode]:
        argv = [sys.executable, "-m", "tests.lan.node", name, str(self.home), *options]
        async with host.running(argv) as program:
            node = LanNode(name, program)
            node.ready = await node.event("ready")
            yield node


async def both_hear(one: LanNode, other: LanNode) -> None:
    """Return when messages have gone both ways."""
    await one.hears(other)
    await other.hears(one)
