"""The benchmark of a slow subscriber runs, and says what it found."""

from __future__ import annotations

import pytest

from benchmarks import slow_subscriber


def test_it_prints_both_figures_and_the_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    assert slow_subscriber.main(["--messages", "20", "--rounds", "1"]) in (0, 1)
    latencies, ratio = capsys.readouterr().out.splitlines()
    assert "p99 alone" in latencies and "beside a slow subscriber" in latencies
    assert ratio.startswith("ratio ") and ratio.endswith("cut off 0 times")


def test_p99_leaves_one_in_a_hundred_above() -> None:
    assert slow_subscriber.p99([float(n) for n in range(200, 0, -1)]) == 198.0
