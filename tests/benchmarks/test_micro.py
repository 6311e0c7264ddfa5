"""The micro benchmarks run: a part whose code moved is found here, not when somebody measures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import micro


@pytest.mark.parametrize("part", micro.PARTS, ids=lambda part: part.name)
def test_every_part_runs(part: micro.Part) -> None:
    result = micro.measure(part, samples=2, seconds=1e-5)
    assert len(result["nanoseconds"]) == 2
    assert result["lowest"] >= 0


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "micro.json"
    assert micro.main(["--quick", "--only", "trie", "--json", str(path)]) == 0
    assert json.loads(path.read_text())["parts"][0]["part"].startswith("trie")
    assert "lowest ns" in capsys.readouterr().out


def test_no_such_part() -> None:
    with pytest.raises(SystemExit, match="no part's name contains 'poetry'"):
        micro.main(["--only", "poetry"])
