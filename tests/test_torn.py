from __future__ import annotations

from pathlib import Path

import coverage
import pytest

from tests.torn import remove_torn


def test_what_was_written_half_goes_and_the_rest_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = coverage.CoverageData(str(tmp_path / ".coverage.whole"))
    whole.add_arcs({"a.py": [(-1, 1)]})
    whole.write()
    whole.close()
    data = (tmp_path / ".coverage.whole").read_bytes()
    (tmp_path / ".coverage.begun").touch()
    (tmp_path / ".coverage.garbage").write_bytes(b"x" * 5000)
    (tmp_path / ".coverage.half").write_bytes(data[: len(data) // 2])
    (tmp_path / ".coveragerc").touch()

    assert remove_torn(tmp_path) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [".coverage.whole", ".coveragerc"]
    coverage.Coverage(data_file=str(tmp_path / ".coverage"), config_file=False).combine(strict=True)
