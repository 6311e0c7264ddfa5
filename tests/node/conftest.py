"""Every test of the API runs twice: over the in-memory transport, and over ZeroMQ on the loopback."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from mesh.node.node import Node
from tests.node.meshes import MemoryMeshes, Meshes, ZmqMeshes


@pytest.fixture(params=["memory", "zmq"])
def meshes(request: pytest.FixtureRequest, tmp_path: Path) -> Meshes:
    """Where nodes live. Made outside Trio, used inside."""
    return MemoryMeshes() if request.param == "memory" else ZmqMeshes(tmp_path / "home")


@pytest.fixture
def mesh_of(meshes: Meshes) -> Callable[..., AbstractAsyncContextManager[list[Node]]]:
    """``async with mesh_of(3) as (a, b, c)``: open nodes that know each other."""
    return meshes.of
