"""Meshes for the tests of the API: over the in-memory transport, and over ZeroMQ on the loopback.

``Meshes.open`` opens one node, ``Meshes.of(n)`` several that are all in each other's ``peers``.
No multicast: the fake's hub or seeds bring them together.
"""

from __future__ import annotations

import itertools
import os
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import trio

import mesh
from mesh.core.handshake import Papers
from mesh.core.identity import SigningKey, issue_certificate
from mesh.core.types import mesh_id
from mesh.discovery.memory import MemoryDiscovery, MemoryHub
from mesh.node.node import Node
from mesh.transport.base import LinkKey
from mesh.transport.memory import MemoryNetwork

PATIENCE = 20.0
"""Seconds within which everything must have happened; a shared machine may be slow."""

# Tests of pace have their own settings: a machine that is busy must not look like a peer that died.
# A request that is answered costs no time, so its timeout is no shorter than what tests wait for.
CALM = mesh.Config.local(probe_after=5.0, probe_timeout=5.0, gone_after=10.0, request_timeout=PATIENCE)
HASTY = mesh.Config.local(probe_after=0.1, probe_timeout=0.1, gone_after=0.3)


class Meshes(ABC):
    """Where nodes of one kind of transport live."""

    def __init__(self) -> None:
        self._names = (f"node-{number}" for number in itertools.count())

    @abstractmethod
    def open(
        self, name: str | None = None, *, config: mesh.Config = CALM
    ) -> AbstractAsyncContextManager[Node]:
        """A node that finds those which are open already."""

    @asynccontextmanager
    async def of(self, n: int, *, config: mesh.Config = CALM) -> AsyncIterator[list[Node]]:
        """``n`` nodes that know each other, named node-0, node-1 …"""
        async with AsyncExitStack() as stack:
            nodes = [await stack.enter_async_context(self.open(config=config)) for _ in range(n)]
            with trio.fail_after(PATIENCE):
                for node in nodes:
                    await node.wait_for_peers(n - 1)
            yield nodes


class MemoryMeshes(Meshes):
    """Nodes in a ``MemoryNetwork``, brought together by a ``MemoryHub``."""

    def __init__(self) -> None:
        super().__init__()
        self.network = MemoryNetwork()
        self.hub = MemoryHub()
        self._ca = SigningKey.from_seed(os.urandom(32))
        self._keys = itertools.count(1)

    @asynccontextmanager
    async def open(self, name: str | None = None, *, config: mesh.Config = CALM) -> AsyncIterator[Node]:
        name = name or next(self._names)
        link = LinkKey(next(self._keys).to_bytes(32, "big"), bytes(32))
        transport = self.network.transport(link, mesh_id(self._ca.public), config)
        node = Node(name, config, self._papers(name), f"member {name}", link.public, transport)
        async with node.run([MemoryDiscovery(self.hub)]):
            yield node

    def _papers(self, name: str) -> Papers:
        key = SigningKey.from_seed(os.urandom(32))
        now = int(time.time())
        certificate = issue_certificate(
            self._ca,
            public_key=key.public,
            name=f"member {name}",
            not_before=now - 60,
            expires=now + 3600,
            serial=1,
        )
        return Papers(mesh_id(self._ca.public), self._ca.public, key, certificate, bytes(32), 1, None)


class ZmqMeshes(Meshes):
    """Nodes of one home on the loopback, brought together by seeds."""

    def __init__(self, home: Path) -> None:
        super().__init__()
        self._home = home
        self._endpoints: list[str] = []

    @asynccontextmanager
    async def open(self, name: str | None = None, *, config: mesh.Config = CALM) -> AsyncIterator[Node]:
        async with mesh.open_node(
            name or next(self._names),
            home=self._home,
            listen=["tcp://127.0.0.1:0"],
            connect=self._endpoints,
            discovery=(),
            config=config,
        ) as node:
            self._endpoints = [*self._endpoints, *node.endpoints]
            try:
                yield node
            finally:
                self._endpoints = [each for each in self._endpoints if each not in node.endpoints]


# -- what many tests do -----------------------------------------------------------------


async def take(messages: Any, n: int) -> list[mesh.Message]:
    """The next ``n`` messages of a subscription."""
    with trio.fail_after(PATIENCE):
        return [await anext(messages) for _ in range(n)]


async def values(messages: Any, n: int) -> list[Any]:
    """The values of the next ``n`` messages."""
    return [message.value for message in await take(messages, n)]


async def until(node: Node, predicate: Callable[[], object]) -> None:
    """Wait until something about a node is so, looking whenever it made a step."""
    with trio.fail_after(PATIENCE):
        while not predicate():
            with trio.move_on_after(0.05):  # statistics of a program's own doing make no step
                await node._presence.changed.park()


@asynccontextmanager
async def background(*tasks: Callable[[], Coroutine[Any, Any, Any]]) -> AsyncIterator[trio.CancelScope]:
    """Tasks behind a block; the block's failures are not wrapped."""
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(task)
        try:
            yield nursery.cancel_scope
        except Exception as error:  # noqa: BLE001 - a test's own
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


@asynccontextmanager
async def serving(node: Node, topic: str, handler: Any, **options: Any) -> AsyncIterator[trio.CancelScope]:
    """``node.serve`` behind a block, started; gives the scope that ends it."""
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def serve(*, task_status: trio.TaskStatus[None]) -> None:
            with scope:
                await node.serve(topic, handler, task_status=task_status, **options)

        with trio.fail_after(PATIENCE):
            await nursery.start(serve)
        try:
            yield scope
        except Exception as error:  # noqa: BLE001 - a test's own
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


def vanish(node: Node) -> None:
    """From now on the node says nothing any more, not even goodbye, as if it were killed."""
    board = node._board
    board.engine.take_effects()
    board.pump.apply = lambda: None  # type: ignore[method-assign]
    board.pump.send = lambda peer, message: False  # type: ignore[method-assign]
    board.pump.direct_received = lambda sender, frames: None  # type: ignore[method-assign]
