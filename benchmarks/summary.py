"""From raw numbers to a few: a run to its figures, the runs of a system to median and spread.

One way: messages a second between the subscriber's first and last stamp.  Round trip: percentiles of a
run.  Over rounds: the median, the lowest and the highest; *spread* is (highest - lowest) / median.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.workload import ASKED, IN_FLIGHT, Workload

__all__ = ["figures", "over_rounds", "percentile", "summarise"]


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """The smallest value that ``fraction`` of all don't exceed (nearest rank). ``ordered`` is ascending."""
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]


def figures(workload: Workload, roles: dict[str, Any]) -> dict[str, float]:
    """The figures of one run: rates a second, times in microseconds."""
    if workload.kind in ASKED:
        asked = workload.total // IN_FLIGHT * IN_FLIGHT if workload.kind == "inflight" else workload.total
        return (
            _times(sorted(roles["client"]["times"]))
            | {"rate": asked / roles["client"]["usage"]["wall"]}
            | {
                f"{role}_{what}_us": roles[role]["usage"][key] / asked * 1e6
                for role in ("client", "server")
                for what, key in (("cpu", "cpu"), ("thread", "thread_cpu"))
            }
        )
    publisher, subscriber = roles["publisher"], roles["subscriber"]
    stamps = subscriber["stamps"]
    found = {
        "publish_rate": publisher["sent"] / publisher["usage"]["wall"],
        "publisher_cpu_us": publisher["usage"]["cpu"] / publisher["sent"] * 1e6,
        "publisher_thread_us": publisher["usage"]["thread_cpu"] / publisher["sent"] * 1e6,
        "subscriber_cpu_us": subscriber["usage"]["cpu"] / max(1, subscriber["received"]) * 1e6,
        "subscriber_thread_us": subscriber["usage"]["thread_cpu"] / max(1, subscriber["received"]) * 1e6,
        "missing": publisher["sent"] - subscriber["received"],
    }
    if len(stamps) > 1:
        (first, began), (last, ended) = stamps[0], stamps[-1]
        found["rate"] = (last - first) / (ended - began) * 1e9
        found["megabytes"] = found["rate"] * workload.size / 1e6
    return found


def _times(ordered: Sequence[int]) -> dict[str, float]:
    return {
        "p50": percentile(ordered, 0.50) / 1e3,
        "p90": percentile(ordered, 0.90) / 1e3,
        "p99": percentile(ordered, 0.99) / 1e3,
        "p99.9": percentile(ordered, 0.999) / 1e3,
        "max": ordered[-1] / 1e3,
    }


def over_rounds(values: Sequence[float]) -> dict[str, float]:
    """Median and spread of one figure."""
    middle = statistics.median(values)
    low, high = min(values), max(values)
    return {"median": middle, "min": low, "max": high, "spread": (high - low) / middle if middle else 0.0}


def _done(workload: Workload, run: dict[str, Any]) -> Workload:
    """What a run really did of the work: slow systems do a share of it."""
    return replace(
        workload, count=run.get("count", workload.count), warmup=run.get("warmup", workload.warmup)
    )


def summarise(workloads: Iterable[Workload], runs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each workload and system: its figures over all rounds that succeeded, and the failures."""
    by_name = {workload.name: workload for workload in workloads}
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        grouped.setdefault((run["workload"], run["system"]), []).append(run)
    entries = []
    for (name, system), group in grouped.items():
        good = [figures(_done(by_name[name], run), run["roles"]) for run in group if run["status"] == "ok"]
        keys = set.intersection(*(set(each) for each in good)) if good else set()
        entries.append(
            {
                "workload": name,
                "system": system,
                "rounds": len(good),
                "figures": {key: over_rounds([each[key] for each in good]) for key in sorted(keys)},
                "trouble": [f"{run['status']}: {run['reason']}" for run in group if run["status"] != "ok"],
            }
        )
    return entries
