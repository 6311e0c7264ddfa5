"""The fan-out measurement runs and says what it found; what it finds depends on the machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import fanout


def test_it_measures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "fan.json"
    arguments = ["--rounds", "1", "--subscribers", "2", "--count", "2000", "--json", str(path)]
    assert fanout.main(arguments) in (0, 1)
    result = json.loads(path.read_text())
    assert {number: len(found) for number, found in result["runs"].items()} == {"1": 1, "2": 1}
    assert result["ratio"] > 0
    assert "2 subscribers" in capsys.readouterr().out
