"""Pictures of a result: rate by size, and latency by percentile, as SVG beside the JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.summary import percentile
from mesh.cli.chart import line_chart, percentile_ticks

__all__ = ["draw"]

_KINDS = {
    "roundtrip": "round trip, one after the other",
    "paced": "round trip by a schedule",
    "inflight": "many requests in flight",
}


def draw(result: Mapping[str, Any], beside: Path) -> list[Path]:
    """Write what can be drawn of a result; the files, whose names begin as ``beside`` does."""
    made = []
    rates = _rates(result)
    if any(len(points) > 1 for points in rates.values()):
        chart = line_chart(
            "One way: messages a second by size",
            "bytes a message",
            "messages/s",
            rates,
            log_x=True,
            log_y=True,
        )
        made.append(_write(beside, "rate", chart))
    for kind, title in _KINDS.items():
        times = _times(result, kind)
        if times:
            chart = line_chart(
                f"Latency by percentile: {title}",
                "percentile",
                "microseconds",
                times,
                x_ticks=percentile_ticks(),
                log_x=True,
                log_y=True,
            )
            made.append(_write(beside, kind, chart))
    return made


def _write(beside: Path, what: str, chart: str) -> Path:
    path = beside.with_name(f"{beside.name}-{what}.svg")
    path.write_text(chart, encoding="utf-8")
    return path


def _title(system: str) -> str:
    adapter = peers.adapters().get(system)
    return system if adapter is None else adapter.title.removeprefix("floor: ")


def _rates(result: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for entry in result["summary"]:
        kind, _, size = entry["workload"].partition("-")
        if kind == "oneway" and "rate" in entry["figures"]:
            found.setdefault(_title(entry["system"]), []).append(
                (float(size), entry["figures"]["rate"]["median"])
            )
    return found


def _times(result: Mapping[str, Any], kind: str) -> dict[str, list[tuple[float, float]]]:
    """Every round's times of a system together, at percentiles that lie evenly on the axis."""
    every: dict[str, list[int]] = {}
    for run in result["runs"]:
        if run["workload"].startswith(f"{kind}-") and run["status"] == "ok":
            every.setdefault(_title(run["system"]), []).extend(run["roles"]["client"]["times"])
    found = {}
    for name, times in every.items():
        ordered = sorted(times)
        steps = [10 ** (step / 10) for step in range(51) if 10 ** (step / 10) <= len(ordered)]
        found[name] = [(step, percentile(ordered, 1 - 1 / step) / 1e3) for step in steps]
    return found
