"""A mesh for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lan.nodes import Mesh


@pytest.fixture
def home(tmp_path: Path) -> Mesh:
    """A mesh without nodes yet."""
    return Mesh(tmp_path / "home")
