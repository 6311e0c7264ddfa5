"""Which goals a result shows to hold, and its pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks import compare, peers
from benchmarks.goals import GOALS, judge, wanted
from benchmarks.pictures import draw


def entry(workload: str, system: str, **figures: float) -> dict[str, Any]:
    values = {
        name: {"median": value, "min": value, "max": value, "spread": 0.0} for name, value in figures.items()
    }
    return {"workload": workload, "system": system, "rounds": 1, "figures": values, "trouble": []}


def run(workload: str, system: str, times: list[int]) -> dict[str, Any]:
    roles = {"client": {"times": times}, "server": {}}
    return {"workload": workload, "system": system, "status": "ok", "roles": roles}


RESULT: dict[str, Any] = {
    "date": "2026-01-01T00:00:00+00:00",
    "commit": None,
    "summary": [
        entry("oneway-64", "zeromesh", rate=500_000, publisher_cpu_us=1, subscriber_cpu_us=2),
        entry("oneway-256", "zeromesh", rate=300_000),
        entry("oneway-64", "pyzmq", rate=400_000, publisher_cpu_us=1, subscriber_cpu_us=1),
        entry("oneway-64", "zenoh", rate=450_000),
        entry("roundtrip-64", "zeromesh", p50=300, p99=900),
        entry("roundtrip-64", "nats", p50=800, p99=1000),
    ],
    "runs": [run("roundtrip-64", "zeromesh", [1000 * n for n in range(1, 500)])],
}


def test_a_goal_holds_or_not_or_was_not_measured() -> None:
    verdicts = {(j.goal.workload, j.goal.system, j.goal.figure): j.holds for j in judge(RESULT, peers.BASE)}
    assert verdicts["oneway-64", "pyzmq", "rate"] is True  # 1.25 of at least 1.1
    assert verdicts["oneway-64", "zenoh", "rate"] is False  # 1.11 of at least 1.25
    assert verdicts["roundtrip-64", "nats", "p50"] is True  # 0.375 of at most 0.4
    assert verdicts["roundtrip-64", "nats", "p99"] is False
    assert verdicts["inflight-64", "nats", "rate"] is None
    assert [j.cpu for j in judge(RESULT, peers.BASE) if j.cpu] == [1.5]


def test_every_goal_is_about_systems_and_work_that_exist() -> None:
    for goal in GOALS:
        assert goal.system in peers.adapters()
        assert wanted(peers.BASE, goal.system, goal.workload)
        assert wanted(peers.BASE, peers.BASE, goal.workload)
    assert not wanted(peers.BASE, "redis", "oneway-65536")


def test_compare_prints_every_goal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(RESULT))
    assert compare.main([str(path)]) == 0
    printed = capsys.readouterr().out
    assert "1.25 ×" in printed
    assert "2 hold, 2 do not" in printed
    assert compare.main([str(path), "--strict"]) == 1
    capsys.readouterr()
    about = {"cpu": "a CPU", "cores": 2, "load_average": [0.5, 1, 2], "system": "Linux", "kernel": "6"}
    path.write_text(
        json.dumps({**RESULT, "machine": about, "packages": {"trio": "1"}, "python": "CPython 3"})
    )
    assert compare.main([str(path), "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(GOALS) + 2
    assert all(line.count("|") == 10 for line in lines[:-2])


@pytest.mark.parametrize("content", ["", "[]", '{"summary": 3}'])
def test_what_is_no_result_is_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(SystemExit, match="not a result"):
        compare.main([str(path)])


def test_pictures_are_well_formed(tmp_path: Path) -> None:
    pictures = draw(RESULT, tmp_path / "result")
    assert [picture.name for picture in pictures] == ["result-rate.svg", "result-roundtrip.svg"]
    for picture in pictures:
        texts = [element.text for element in ET.fromstring(picture.read_text()).iter() if element.text]
        assert "zeromesh" in texts
