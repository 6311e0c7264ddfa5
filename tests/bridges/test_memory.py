"""The broker in memory keeps the contract: with it the engine is tested wherever the tests run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from bridges.mapping import words
from bridges.memory import MemoryServer, kind
from bridges.messages import BrokerMessage, flatten, unflatten
from tests.bridges.contract import CANARY, BridgeContract, Harness, Observer, Seen
from tests.bridges.contract import setting as setting


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
    async def test_confirmed_late_is_sent_again_and_dropped_by_its_id(self, broker: MemoryHarness) -> None:
        assert isinstance(BrokerMessage("a", b""), BrokerMessage)
