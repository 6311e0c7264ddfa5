"""Many nodes die and begin again at the same moment: those who stay are asked no more often than there are pairs."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio

import mesh
from mesh.core.engine import Engine
from mesh.testing import VirtualNetwork, run

MANY = 5


def test_all_but_one_begin_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    introductions: Counter[str] = Counter()
    heard = Engine.stranger_received

    def counted(engine: Engine, *frame: Any) -> None:
        introductions[engine.record.name] += 1
        heard(engine, *frame)

    monkeypatch.setattr(Engine, "stranger_received", counted)

    async def main() -> None:
        network = VirtualNetwork(1, jitter=0.002)
        async with network.open_node("stays") as stays, AsyncExitStack() as before:
            for number in range(MANY):
                await before.enter_async_context(network.open_node(f"n{number}"))
            await stays.wait_for_peers(MANY)
            old = set(stays.peers)
            introductions.clear()
            for number in range(MANY):
                network.crash(f"n{number}")
            await begin_again(network, stays, old)

    async def begin_again(network: VirtualNetwork, stays: mesh.Node, old: set[str]) -> None:
        async with trio.open_nursery() as nursery:
            crashed = trio.current_time()
            met: list[float] = []

            async def again(name: str) -> None:
                async with network.open_node(name) as node:
                    while len({peer.name for peer in node.peers.values()} - {name}) < MANY:  # noqa: ASYNC110
                        await trio.sleep(0.01)  # of virtual time
                    met.append(trio.current_time() - crashed)
                    await trio.sleep_forever()

            for number in range(MANY):
                nursery.start_soon(again, f"n{number}")
            await trio.sleep(2.0)
            assert len(met) == MANY
            assert sum(introductions.values()) <= 1.5 * MANY * (MANY + 1) / 2
            assert max(introductions.values()) <= 2 * MANY
            await trio.sleep(10.0)
            assert not old & set(stays.peers) and len(stays.peers) == MANY
            nursery.cancel_scope.cancel()

    run(main)
