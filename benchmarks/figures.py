"""What the commands that measure a mesh have in common: their options, the result's head, tables, the JSON file."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import trio

from benchmarks import machine
from benchmarks.summary import percentile

__all__ = ["DISTRIBUTIONS", "milliseconds", "parser", "quantiles", "run"]

DISTRIBUTIONS = ("zeromesh", "pyzmq", "trio", "zeroconf", "cbor2", "cryptography")

_FORMAT = 1
"""Of the JSON result; goes up when a reader of an older one would misread it."""


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser with the option that all have."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    made.add_argument("--json", type=Path, metavar="FILE", help="write the result here too")
    return made


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Median, 90th percentile (nearest rank), lowest and highest, and how many there were."""
    ordered = sorted(values)
    if not ordered:
        return {"count": 0, "p50": math.nan, "p90": math.nan, "min": math.nan, "max": math.nan}
    return {
        "count": len(ordered),
        "p50": percentile(ordered, 0.5),
        "p90": percentile(ordered, 0.9),
        "min": ordered[0],
        "max": ordered[-1],
    }


def milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None or math.isnan(seconds) else f"{seconds * 1000:,.1f}"


def run(
    options: argparse.Namespace,
    measure: Callable[[argparse.Namespace], Coroutine[Any, Any, Mapping[str, Any]]],
    show: Callable[[Mapping[str, Any]], None],
) -> int:
    """Measure, show, write. ``measure`` gives the result's own part, among it ``met``: claim → held or not.

    0: everything held; 1: some claim did not.
    """
    result = {
        "format": _FORMAT,
        **machine.describe(DISTRIBUTIONS),
        "settings": {key: str(value) for key, value in vars(options).items() if key != "json"},
    }
    result |= trio.run(measure, options)
    about = result["machine"]
    print(f"{about['cpu']}, {about['cores']} cores, {about['system']} {about['kernel']}, {result['python']}")
    show(result)
    print()
    for claim, held in result["met"].items():
        print(f"{'met    ' if held else 'NOT MET'}  {claim}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.stdout.flush()
    return 0 if all(result["met"].values()) else 1
