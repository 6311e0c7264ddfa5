"""From raw numbers to figures: the arithmetic, on numbers that can be checked by hand."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.report import print_table
from benchmarks.summary import figures, over_rounds, percentile, summarise
from benchmarks.workload import Meter, Workload

USAGE = {"wall": 2.0, "cpu": 1.0, "thread_cpu": 0.5}


@given(st.lists(st.integers(0, 1000), min_size=1), st.floats(0, 1))
def test_a_percentile_is_the_smallest_value_that_enough_do_not_exceed(
    values: list[int], fraction: float
) -> None:
    ordered = sorted(values)
    found = percentile(ordered, fraction)
    assert found in ordered
    assert sum(value <= found for value in ordered) >= fraction * len(ordered) - 1e-9
    smaller = [value for value in ordered if value < found]
    assert not smaller or len(smaller) < fraction * len(ordered) + 1e-9


def test_the_rate_is_between_the_first_and_the_last_stamp() -> None:
    workload = Workload("oneway", 100, 1000, 100)
    roles = {
        "publisher": {"sent": 1100, "usage": USAGE},
        "subscriber": {
            "received": 1100,
            "stamps": [[100, 0], [600, 10], [1100, 1_000_000_000]],
            "usage": USAGE,
        },
    }
    found = figures(workload, roles)
    assert found["rate"] == pytest.approx(1000)
    assert found["megabytes"] == pytest.approx(0.1)
    assert found["missing"] == 0
    assert found["publisher_cpu_us"] == pytest.approx(1e6 / 1100)


def test_a_run_without_a_second_stamp_has_no_rate() -> None:
    workload = Workload("oneway", 100, 1000, 100)
    roles = {
        "publisher": {"sent": 1100, "usage": USAGE},
        "subscriber": {"received": 0, "stamps": [], "usage": USAGE},
    }
    found = figures(workload, roles)
    assert "rate" not in found
    assert found["missing"] == 1100


def test_round_trips_become_percentiles_in_microseconds() -> None:
    roles = {
        "client": {"times": [n * 1000 for n in range(100, 0, -1)], "usage": USAGE},
        "server": {"served": 110, "usage": USAGE},
    }
    found = figures(Workload("roundtrip", 64, 100, 10), roles)
    assert (found["p50"], found["p90"], found["p99"], found["max"]) == (50, 90, 99, 100)


def test_spread_is_relative_to_the_median() -> None:
    assert over_rounds([90, 100, 130]) == {"median": 100, "min": 90, "max": 130, "spread": 0.4}


def test_failed_runs_are_told_and_not_counted() -> None:
    workload = Workload("roundtrip", 64, 1, 1)
    good = {
        "workload": workload.name,
        "system": "a",
        "status": "ok",
        "roles": {"client": {"times": [5000], "usage": USAGE}, "server": {"usage": USAGE}},
    }
    bad = {"workload": workload.name, "system": "a", "status": "failed", "reason": "no luck"}
    (entry,) = summarise([workload], [good, bad])
    assert entry["rounds"] == 1
    assert entry["figures"]["p50"]["median"] == 5
    assert entry["trouble"] == ["failed: no luck"]


@given(st.integers(1, 3000), st.integers(0, 300))
def test_a_meter_stops_at_the_last_message(count: int, warmup: int) -> None:
    meter = Meter(Workload("oneway", 1, count, warmup))
    seen, mark = 0, meter.first
    while mark:
        seen += 1
        assert seen <= max(1, warmup) + count
        if seen == mark:
            mark = meter.stamp(seen)
    assert seen == max(warmup + count, 1)
    assert meter.stamps[-1][0] == seen
    assert len(meter.stamps) <= 202


def test_a_table_is_plain_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    print_table("title", ["system", "rate"], [["ours", "10"], ["theirs", "9"]], out)
    assert out.getvalue() == "\ntitle\n  system  rate\n  ours      10\n  theirs     9\n"
