"""``python -m benchmarks.compare [RESULT.json]``: the ratios to the other systems, and which goals hold."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from benchmarks import peers
from benchmarks.goals import Judged, judge
from benchmarks.report import print_table

__all__ = ["RESULTS", "latest", "main", "print_goals"]

RESULTS = Path(__file__).parent / "results"

_HEADS = ("work", "figure", "against", "ours", "theirs", "ratio", "goal", "holds", "CPU")


def latest() -> Path:
    """The result that was written last. Raises ``SystemExit`` if there is none."""
    results = sorted(RESULTS.glob("*.json"), key=lambda path: path.stat().st_mtime)
    if not results:
        raise SystemExit("benchmarks.compare: no result yet: run python -m benchmarks, or name a file")
    return results[-1]


def _row(judged: Judged) -> list[str]:
    goal = judged.goal

    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:,.0f}{'/s' if goal.at_least else ' µs'}"

    ratio = "-" if judged.ratio is None else f"{judged.ratio:.2f} ×"
    holds = {True: "yes", False: "NO", None: "not measured"}[judged.holds]
    adapter = peers.adapters().get(goal.system)
    against = goal.system if adapter is None else adapter.title
    return [
        goal.workload,
        goal.figure,
        against,
        shown(judged.ours),
        shown(judged.theirs),
        ratio,
        goal.text,
        holds,
        "-" if judged.cpu is None else f"{judged.cpu:.2f} ×",
    ]


def print_goals(result: Mapping[str, Any], out: TextIO | None = None) -> bool:
    """The table. True if every goal that was measured holds."""
    out = sys.stdout if out is None else out
    judged = judge(result, peers.BASE)
    print_table(
        "goals: ours beside theirs, medians of this result", _HEADS, [_row(one) for one in judged], out
    )
    counts = {verdict: sum(one.holds is verdict for one in judged) for verdict in (True, False, None)}
    print(f"\n{counts[True]} hold, {counts[False]} do not, {counts[None]} were not measured", file=out)
    return not counts[False]


def markdown(result: Mapping[str, Any]) -> str:
    """The goals, and under what they were measured, as a document shows them (docs/performance.md)."""
    about, commit = result["machine"], (result["commit"] or {"id": "unknown"})["id"][:10]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(result["packages"].items()))
    rows = [_row(one) for one in judge(result, peers.BASE)]
    lines = ["| " + " | ".join(row) + " |" for row in [_HEADS, ["---"] * len(_HEADS), *rows]]
    load = ", ".join(f"{each:.1f}" for each in about["load_average"])
    return "\n".join(
        [
            *lines,
            "",
            f"{about['cpu']}, {about['cores']} cores (load before the run {load}), {about['system']} {about['kernel']}, "
            f"{result['python']}; {versions}; commit {commit}, {result['date'][:10]}.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """0: printed; 1: with ``--strict``, some goal does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument(
        "result", nargs="?", type=Path, help="a result of python -m benchmarks (default: the latest)"
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a goal does not hold")
    parser.add_argument("--markdown", action="store_true", help="print the table as documents have it")
    options = parser.parse_args(arguments)
    path = options.result or latest()
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if options.markdown:
            print(markdown(result))
            return 0
        held = print_goals(result)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(
            f"benchmarks.compare: {path}: not a result of python -m benchmarks ({error})"
        ) from None
    print(f"from {path.name}, {result['date']}, commit {(result['commit'] or {'id': 'unknown'})['id'][:10]}")
    return 1 if options.strict and not held else 0


if __name__ == "__main__":
    sys.exit(main())
