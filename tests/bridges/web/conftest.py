from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

import mesh
from tests.bridges.web import browser
from tests.bridges.web.clients import Web, web
from tests.node.meshes import MemoryMeshes


@pytest.fixture(scope="session")
def chromium() -> str:
    """A browser's path; without one, its tests say so in one line."""
    try:
        return browser.chromium()
    except OSError as why:
        pytest.skip(f"NO CHROMIUM, so the pages and the client in a browser are not tested: {why}")


@pytest.fixture
async def pair() -> AsyncIterator[tuple[mesh.Node, mesh.Node]]:
    """Two nodes of one mesh, in memory: the gateway's, and one that is further away."""
    async with MemoryMeshes().of(2) as (near, far):
        yield near, far


@pytest.fixture
async def near(pair: tuple[mesh.Node, mesh.Node]) -> mesh.Node:
    return pair[0]


@pytest.fixture
async def far(pair: tuple[mesh.Node, mesh.Node]) -> mesh.Node:
    return pair[1]


@pytest.fixture
async def open_web(near: mesh.Node) -> AsyncIterator[Web]:
    """A gateway without tokens: the loopback needs none."""
    async with web(near) as running:
        yield running
