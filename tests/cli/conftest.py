from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import home_at


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, for commands that run in this process."""
    home = home_at(tmp_path / "home")
    monkeypatch.setenv("MESH_HOME", str(home))
    return home
