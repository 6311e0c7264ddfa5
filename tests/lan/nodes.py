"""Nodes as processes on hosts of the laboratory."""

from __future__ import annotations

import json
import sys
from collections import Counter
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
        self._read: Counter[str] = Counter()  # lines, by the peer that was asked about

    async def event(self, kind: str, name: str = "") -> dict[str, Any]:
        """The next event of this kind; ``kind`` may be ``one|other``. With ``name``, the next about the peer
        of this name, whatever has been read about others: what happens to two peers has no order."""
        kinds = kind.split("|")
        lines = self.program.stdout
        with trio.move_on_after(WITHIN):
            while True:
                while self._read[name] < len(lines):
                    said: dict[str, Any] = json.loads(lines[self._read[name]])
                    self._read[name] += 1
                    if said["event"] in kinds and name in ("", said.get("name")):
                        return said
                if self.program.ended:
                    raise AssertionError(f"{self.name} ended without {kind} {name}\n{self.program.report()}")
                await self.program.changed()
        raise AssertionError(f"{self.name} did not say {kind} {name} in {WITHIN} s\n{self.program.report()}")

    async def meets(self, *names: str) -> None:
        """Return when these peers, and no others, are alive here."""
        wanted, found = dict.fromkeys(names, "alive"), None
        with trio.move_on_after(WITHIN):
            while (found := (await self.count())["peers"]) != wanted:
                await self.event("joined|left|recovered|suspected")
        assert found == wanted, self.program.report()

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
