"""The broker in memory keeps the contract: with it the engine is tested wherever the tests run."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio

import mesh
from bridges.mapping import words
from bridges.memory import MemoryServer, kind
from bridges.messages import flatten, unflatten
from tests.bridges.contract import (
    BOTH,
    CANARY,
    PATIENCE,
    BridgeContract,
    Harness,
    Observer,
    Seen,
    Setting,
    received,
    route,
    settled,
)
from tests.bridges.contract import setting as setting
from tests.node.meshes import CALM


class MemoryObserver(Observer):
    """Reads the log, or what is said now."""

    def __init__(self, server: MemoryServer, messages: Any, prefix: str) -> None:
        super().__init__()
        self._server = server
        self._messages = messages
        self._prefix = prefix
        self._next = 0

    async def more(self) -> None:
        if self._next == len(self._messages):
            await self._server.news.park()
        for message in list(self._messages)[self._next :]:
            self._next += 1
            if message.destination.startswith(self._prefix):
                self.seen.append(Seen(message.destination, message.data, flatten(message)))


class MemoryHarness(Harness):
    remote = False

    def __init__(self) -> None:
        self.server = MemoryServer(password="right")
        self.kind = kind(self.server)

    def table(self) -> dict[str, Any]:
        return {"kind": "memory", "url": "memory://:right@localhost"}

    def wrong_credentials(self) -> dict[str, Any]:
        return {"kind": "memory", "url": f"memory://:{CANARY}@localhost"}

    def everything(self, prefix: str) -> str:
        return f"{prefix}.#"

    def observe(self, prefix: str, *, reliable: bool) -> AbstractAsyncContextManager[Observer]:
        return self._observing(f"{prefix}.", reliable)

    @asynccontextmanager
    async def _observing(self, prefix: str, reliable: bool) -> AsyncIterator[Observer]:
        if reliable:
            yield MemoryObserver(self.server, self.server.log, prefix)
        else:
            async with self.server.listen(words("#")) as waiting:
                yield MemoryObserver(self.server, waiting, prefix)

    async def put(
        self, destination: str, data: bytes, headers: Mapping[str, str] | None = None, *, reliable: bool
    ) -> None:
        self.server.put(unflatten(destination, data, headers or {}), reliable=reliable)

    async def kill(self) -> None:
        self.server.kill()

    async def restart(self) -> None:
        self.server.restart()

    async def dead_letters(self, destination: str) -> list[Seen]:
        return [Seen(message.destination, message.data) for message, _ in self.server.dead]


@pytest.fixture
def broker() -> MemoryHarness:
    return MemoryHarness()


class TestMemory(BridgeContract):
    async def test_what_was_stored_and_not_confirmed_is_sent_again_with_its_id(
        self, setting: Setting, broker: MemoryHarness
    ) -> None:
        async with (
            setting.nodes(1) as (here,),
            setting.leading(here, export=setting.export(reliable=True, format="json")) as bridge,
        ):
            broker.server.confirms = 0  # the next batch is stored, and nobody hears of it
            await here.publish(f"{setting.prefix}/a", 1)
            await settled(bridge, lambda it: it.state == "away")
            broker.server.restart()
            statistics = await settled(bridge, lambda it: route(it).moved == 1)
            assert route(statistics).repeated == 1
            first, again = broker.server.log
            assert first.message_id == again.message_id

    async def test_batches_are_under_way_at_once_and_those_in_doubt_are_sent_again_in_order(
        self, setting: Setting, broker: MemoryHarness
    ) -> None:
        server = broker.server
        async with (
            setting.nodes(1) as (here,),
            setting.leading(here, export=setting.export(reliable=True, format="json")) as bridge,
        ):
            server.confirming = trio.Event()
            for number in range(3):
                await here.publish(f"{setting.prefix}/a", number)
                await settled(bridge, lambda it: len(server.log) == number + 1)  # noqa: B023 - asked at once
            # All three are there, each in a batch of its own, and nobody has heard of the first.
            assert route(bridge.statistics()).moved == 0
            assert (await settled(bridge, lambda it: it.spool)).spool.messages == 3  # type: ignore[union-attr]
            server.kill()
            server.confirming.set()
            await settled(bridge, lambda it: it.state == "away")
            server.restart()
            statistics = await settled(bridge, lambda it: route(it).moved == 3)
            assert route(statistics).repeated == 3
            assert [message.data for message in server.log] == [b"0", b"1", b"2"] * 2
            await settled(bridge, lambda it: it.spool and it.spool.messages == 0)

    async def test_a_full_spool_that_blocks_holds_publishers_back(
        self, setting: Setting, broker: MemoryHarness
    ) -> None:
        config = replace(CALM, buffer=20, backpressure_patience=PATIENCE)
        async with (
            setting.nodes(2, config=config) as (here, there),
            setting.bridge(
                here, export=setting.export(reliable=True, format="json"), spool={"bytes": 4_000}
            ) as bridge,
        ):
            broker.server.kill()
            with trio.fail_after(PATIENCE):
                await bridge.wait_for("away")
            async with (
                there.publisher(f"{setting.prefix}/a", reliable=True) as publisher,
                trio.open_nursery() as nursery,
            ):

                async def publish() -> None:
                    for number in range(300):
                        await publisher.publish(number)

                nursery.start_soon(publish)
                with trio.fail_after(PATIENCE):
                    while not any(window.waiting for window in there.statistics().windows):  # noqa: ASYNC110
                        await trio.sleep(0.02)
                broker.server.restart()
                await settled(bridge, lambda it: route(it).moved == 300)
            assert [json.loads(message.data) for message in broker.server.log] == [*range(300)]
            assert not route(bridge.statistics()).dropped

    async def test_what_comes_when_patience_is_over_is_counted(
        self, setting: Setting, broker: MemoryHarness
    ) -> None:
        config = replace(CALM, buffer=20, backpressure_patience=0.1)
        async with (
            setting.nodes(2, config=config) as (here, there),
            setting.bridge(
                here, export=setting.export(reliable=True, format="json"), spool={"bytes": 4_000}
            ) as bridge,
        ):
            broker.server.kill()
            with trio.fail_after(PATIENCE):
                await bridge.wait_for("away")
                for number in range(300):
                    await there.publish(f"{setting.prefix}/a", number)
            broker.server.restart()
            statistics = await settled(
                bridge,
                lambda it: route(it).dropped and route(it).moved + sum(route(it).dropped.values()) == 300,
            )
            assert set(route(statistics).dropped) == {"cut off"}

    @BOTH
    async def test_what_the_broker_refuses_is_put_on_a_topic_of_the_mesh(
        self, setting: Setting, broker: MemoryHarness, reliable: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING, logger="mesh")
        export = setting.export(reliable=reliable, dead_letter="dead/letters")
        async with (
            setting.nodes(1) as (here,),
            here.subscribe("dead/letters") as letters,
            setting.leading(here, export=export) as bridge,
        ):
            large = bytes(100_000)
            for _ in range(3):
                await here.publish(f"{setting.prefix}/a", large)
            await here.publish(f"{setting.prefix}/a", b"small")
            got = await received(letters, 3)
            assert {letter.data for letter in got} == {large}
            assert got[0].headers["mesh-rejected"].startswith("too large")
            assert got[0].headers["mesh-origin"] == f"{setting.prefix}/a"
            # A letter is counted when it has been put, which its reader may have seen before.
            statistics = await settled(
                bridge, lambda it: route(it).moved == 1 and route(it).dead_letters == 3
            )
            assert dict(route(statistics).rejected) == {"too large": 3}
            lines = [record for record in caplog.records if "rejected: too large" in record.getMessage()]
            assert len(lines) == 1
            assert f"bridge {bridge.name}: export[1]" in lines[0].getMessage()

    async def test_a_letter_that_cannot_be_put_stops_nothing(
        self, setting: Setting, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def denied(*_: object, **__: object) -> None:
            raise mesh.NotAuthorized("publish", "dead/letters")

        async with (
            setting.nodes(1) as (here,),
            setting.observe(reliable=False) as observer,
            setting.leading(here, export=setting.export(format="json", dead_letter="dead/letters")) as bridge,
        ):
            monkeypatch.setattr(here, "publisher", denied)
            for value in (float("nan"), float("nan"), "good"):
                await here.publish(f"{setting.prefix}/a", value)
            await observer.take(1)
            statistics = await settled(bridge, lambda it: route(it).moved == 1)
            assert (route(statistics).rejected["not JSON"], route(statistics).dead_letters) == (2, 0)
            assert caplog.text.count("a dead letter cannot be put on 'dead/letters'") == 1
