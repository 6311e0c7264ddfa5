"""What this mesh is to reach beside each system, and whether a result shows it.

A goal compares one figure of ours with the same figure of a system, both medians over the interleaved rounds of one
result.  Ours is sealed and authenticated; theirs is what its name says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["GOALS", "Goal", "Judged", "judge", "wanted"]


@dataclass(frozen=True, slots=True)
class Goal:
    """``at_least``: for rates. Otherwise at most: for times."""

    workload: str
    figure: str
    system: str
    factor: float
    at_least: bool

    @property
    def text(self) -> str:
        return f"{'at least' if self.at_least else 'at most'} {self.factor:g} ×"


@dataclass(frozen=True, slots=True)
class Judged:
    """A goal beside what a result shows; None where it was not measured."""

    goal: Goal
    ours: float | None
    theirs: float | None
    cpu: float | None = None
    """Our CPU time a message over theirs, both ends together: it varies less than rates do on a busy machine."""

    @property
    def ratio(self) -> float | None:
        return self.ours / self.theirs if self.ours and self.theirs else None

    @property
    def holds(self) -> bool | None:
        if self.ratio is None:
            return None
        return self.ratio >= self.goal.factor if self.goal.at_least else self.ratio <= self.goal.factor


def _rates(workload: str, **factors: float) -> list[Goal]:
    return [
        Goal(workload, "rate", name.replace("_", "-"), factor, at_least=True)
        for name, factor in factors.items()
    ]


def _times(workload: str, **factors: float) -> list[Goal]:
    return [
        Goal(workload, figure, name.replace("_", "-"), factor, at_least=False)
        for name, factor in factors.items()
        for figure in ("p50", "p99")
    ]


GOALS = [
    *_rates("oneway-64", zenoh=1.25, pyzmq=1.1, nats=5, redis=5, pynng=5),
    *_rates("oneway-16", zenoh=1.1),
    *_rates("oneway-256", zenoh=1.1),
    *_rates("oneway-1024", zenoh_tls=1.1),
    *_rates("oneway-65536", pyzmq_curve=1.3, pyzmq=0.6),
    *_rates("oneway-1048576", pyzmq_curve=1.3, pyzmq=0.6),
    *_times("roundtrip-64", zenoh=0.8, nats=0.4, trio_zmq_curve=1.3),
    *_rates("inflight-64", nats=1.25),
]

_ENDS = {True: ("publisher", "subscriber"), False: ("client", "server")}

_SHOWN_TOO = {("paced-64", system) for system in ("zenoh", "nats", "trio-zmq-curve")} | {
    ("inflight-64", "zenoh")
}


def wanted(base: str, system: str, workload: str) -> bool:
    """Whether the short form measures this system at this work: what some goal needs, and a few beside it."""
    pairs = {(goal.workload, goal.system) for goal in GOALS} | _SHOWN_TOO
    return (workload, system) in pairs or (system == base and workload in {name for name, _ in pairs})


def judge(result: Mapping[str, Any], base: str) -> list[Judged]:
    """Every goal beside a result's medians."""
    medians = {
        (entry["workload"], entry["system"], figure): values["median"]
        for entry in result["summary"]
        for figure, values in entry["figures"].items()
    }

    def cpu(workload: str, system: str) -> float | None:
        ends = [
            medians.get((workload, system, f"{role}_cpu_us")) for role in _ENDS[workload.startswith("oneway")]
        ]
        return None if None in ends else sum(each for each in ends if each is not None)

    def judged(goal: Goal) -> Judged:
        ours, theirs = cpu(goal.workload, base), cpu(goal.workload, goal.system)
        return Judged(
            goal,
            medians.get((goal.workload, base, goal.figure)),
            medians.get((goal.workload, goal.system, goal.figure)),
            ours / theirs if ours and theirs else None,
        )

    return [judged(goal) for goal in GOALS]
