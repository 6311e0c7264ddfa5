"""What was measured, in figures and in words: percentiles, a histogram, a curve to draw, sentences."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mesh.cli.floor import Floor

__all__ = ["buckets", "curve", "percentiles", "told_latency", "told_throughput"]

_BARS: Final = 40  # characters
_SHOWN: Final = (50.0, 90.0, 99.0, 99.9)


def percentiles(times: Sequence[float]) -> dict[str, float]:
    """Percentiles (nearest rank), lowest, highest and mean of times in seconds."""
    ordered = sorted(times)
    found = {f"p{at:g}": ordered[max(0, -int(-at * len(ordered) // 100) - 1)] for at in _SHOWN}
    return {"min": ordered[0], **found, "max": ordered[-1], "mean": statistics.fmean(ordered)}


def buckets(times: Sequence[float]) -> list[tuple[float, int]]:
    """A histogram: (upper edge in seconds, how many), edges 1, 2, 5, 10 … microseconds, without empty ends."""
    edges = [step * 10.0**power / 1e6 for power in range(8) for step in (1, 2, 5)]
    counts = [0] * len(edges)
    for taken in times:
        counts[next((n for n, edge in enumerate(edges) if taken <= edge), len(edges) - 1)] += 1
    used = [n for n, count in enumerate(counts) if count]
    return list(zip(edges, counts, strict=True))[used[0] : used[-1] + 1] if used else []


def curve(times: Sequence[float]) -> list[tuple[float, float]]:
    """(1 / (1 - fraction), milliseconds), evenly on the axis of ``percentile_ticks``."""
    ordered = sorted(times)
    steps = [10 ** (step / 8) for step in range(49) if 10 ** (step / 8) <= len(ordered)]
    return [
        (step, ordered[min(len(ordered) - 1, int(len(ordered) * (1 - 1 / step)))] * 1000) for step in steps
    ]


def told_latency(name: str, entry: Mapping[str, Any], bare: Floor) -> str:
    """What ``mesh bench latency`` says of one size, beside what the network takes by itself."""
    head = f"{name}, {entry['size']:,} B: {entry['sent'] - entry['lost']} of {entry['sent']} answered"
    if "percentiles" not in entry:
        return f"{head}\n"
    found = {key: value * 1000 for key, value in entry["percentiles"].items()}
    lines = [head, "  " + "  ".join(f"{key} {value:.3f} ms" for key, value in found.items())]
    most = max(number for _, number in entry["histogram"])
    for edge, number in entry["histogram"]:
        bar = "#" * round(number / most * _BARS)
        lines.append(f"  <= {edge * 1000:9.3f} ms {number:8,}  {bar}".rstrip())
    middle = found["p50"]
    lines.append(
        f"  Half of all requests took at most {middle:.2f} ms, one in a hundred more than {found['p99']:.2f} ms."
    )
    floors = [f"a ping takes {bare.ping * 1000:.2f} ms"] if bare.ping is not None else []
    floors += [f"to open a bare TCP connection {bare.tcp * 1000:.2f} ms"] if bare.tcp is not None else []
    if floors:
        lines.append(
            f"  Between the same two machines {' and '.join(floors)}: "
            f"the rest is encryption, Python and scheduling at both ends."
        )
    return "\n".join(lines) + "\n"


def told_throughput(name: str, entry: Mapping[str, Any]) -> str:
    """What ``mesh bench throughput`` says of one size."""
    megabits = entry["bytes_per_second"] * 8 / 1e6
    share = entry["lost"] / entry["sent"]
    loss = f"{entry['lost']:,} of {entry['sent']:,} lost ({share:.2%})" if entry["lost"] else "nothing lost"
    wire = (
        "near what a 1 Gbit/s link carries"
        if 700 < megabits < 1000
        else "more than a 1 Gbit/s link carries"
        if megabits >= 1000
        else "bound by the programs at both ends, not by a 1 Gbit/s link"
    )
    return (
        f"{name}, {entry['size']:,} B: {entry['rate']:,.0f} messages/s, "
        f"{entry['bytes_per_second'] / 1e6:,.1f} MB/s, {loss}\n"
        f"  {megabits:,.0f} Mbit/s of values: {wire}.\n"
    )
