"""The result as a table for people: rich on a terminal, plain text elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from benchmarks.adapter import Adapter
from benchmarks.workload import Workload

__all__ = ["print_result", "print_table", "ratio"]

Cell = Callable[[Mapping[str, Any], Mapping[str, Any]], str]
"""(figures of a system, figures of ours) → text."""


def _median(figures: Mapping[str, Any], key: str) -> float | None:
    return figures[key]["median"] if key in figures else None


def _number(key: str, form: str, scale: float = 1.0) -> Cell:
    def cell(figures: Mapping[str, Any], _: Mapping[str, Any]) -> str:
        value = _median(figures, key)
        if value is None:
            return "-"
        return format(value * scale, form if value * scale >= 10 else ".2f")

    return cell


def _missing(figures: Mapping[str, Any], _: Mapping[str, Any]) -> str:
    return format(figures["missing"]["median"], ",.0f") if "missing" in figures else "-"


def _spread(key: str) -> Cell:
    def cell(figures: Mapping[str, Any], _: Mapping[str, Any]) -> str:
        return format(figures[key]["spread"], ".0%") if key in figures else "-"

    return cell


def ratio(key: str) -> Cell:
    """Ours ÷ theirs: for a rate above 1 is better, for a time below 1."""

    def cell(figures: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
        mine, theirs = _median(ours, key), _median(figures, key)
        return f"{mine / theirs:.2f} ×" if mine and theirs else "-"

    return cell


_COLUMNS: dict[str, list[tuple[str, Cell]]] = {
    "oneway": [
        ("kmsg/s", _number("rate", ",.0f", 1e-3)),
        ("spread", _spread("rate")),
        ("MB/s", _number("megabytes", ",.1f")),
        ("ours ÷ it", ratio("rate")),
        ("missing", _missing),
        ("pub CPU µs/msg", _number("publisher_cpu_us", ".2f")),
        ("of it Python", _number("publisher_thread_us", ".2f")),
        ("sub CPU µs/msg", _number("subscriber_cpu_us", ".2f")),
        ("of it Python", _number("subscriber_thread_us", ".2f")),
    ],
    "roundtrip": [
        ("p50 µs", _number("p50", ",.0f")),
        ("spread", _spread("p50")),
        ("p90 µs", _number("p90", ",.0f")),
        ("p99 µs", _number("p99", ",.0f")),
        ("ours ÷ it (p50)", ratio("p50")),
        ("(p99)", ratio("p99")),
        ("client CPU µs", _number("client_cpu_us", ".0f")),
        ("of it Python", _number("client_thread_us", ".0f")),
        ("server CPU µs", _number("server_cpu_us", ".0f")),
        ("of it Python", _number("server_thread_us", ".0f")),
    ],
}


_COLUMNS["paced"] = [
    *_COLUMNS["roundtrip"][:4],
    ("p99.9 µs", _number("p99.9", ",.0f")),
    *_COLUMNS["roundtrip"][4:],
]
_COLUMNS["inflight"] = [
    ("kreq/s", _number("rate", ",.1f", 1e-3)),
    ("spread", _spread("rate")),
    ("ours ÷ it", ratio("rate")),
    ("p50 µs", _number("p50", ",.0f")),
    ("p99 µs", _number("p99", ",.0f")),
    *_COLUMNS["roundtrip"][6:],
]


def print_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], out: TextIO) -> None:
    """One table. The first column is text, the others are numbers."""
    if out.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(title=title, title_justify="left", title_style="bold")
        for index, head in enumerate(heads):
            table.add_column(head, justify="left" if index == 0 else "right")
        for row in rows:
            table.add_row(*row)
        Console(file=out).print(table)
        return
    widths = [max(len(row[index]) for row in [heads, *rows]) for index in range(len(heads))]
    print(f"\n{title}", file=out)
    for row in [heads, *rows]:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)),
        ]
        print("  " + "  ".join(cells).rstrip(), file=out)


def print_result(
    result: Mapping[str, Any],
    workloads: Sequence[Workload],
    adapters: Mapping[str, Adapter],
    base: str,
    out: TextIO | None = None,
) -> None:
    """Every table of a result, and what failed."""
    out = sys.stdout if out is None else out
    machine = result["machine"]
    memory = f"{machine['memory_bytes'] / 2**30:.1f} GiB" if machine["memory_bytes"] else "memory unknown"
    print(
        f"{machine['cpu']}, {machine['cores']} cores, {memory}, {machine['system']} {machine['kernel']}, "
        f"{result['python']}, {result['settings']['rounds']} rounds",
        file=out,
    )
    for workload in workloads:
        entries = {e["system"]: e for e in result["summary"] if e["workload"] == workload.name}
        ours = entries.get(base, {"figures": {}})["figures"]
        columns = _COLUMNS[workload.kind]
        heads = ["system", "sealed", *(head for head, _ in columns)]
        rows = [
            [
                adapters[name].title,
                "yes" if adapters[name].sealed else "no",
                *(cell(entries[name]["figures"], ours) for _, cell in columns),
            ]
            for name in adapters
            if name in entries
        ]
        print_table(workload.title, heads, rows, out)
        for name, entry in entries.items():
            for trouble in entry["trouble"]:
                print(f"  {name}: {trouble}", file=out)
