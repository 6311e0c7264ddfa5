"""A line chart as SVG, without a drawing library: for ``mesh bench --plot`` and the benchmarks' pictures.

series of points → scales (linear or logarithmic) → lines, ticks, labels → one text.  Plain shapes with a
light background, so that it reads the same in a browser, in a document and printed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape

__all__ = ["line_chart", "percentile_ticks"]

_WIDTH: Final = 760
_HEIGHT: Final = 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 78, 190, 44, 58

# Okabe and Ito's palette: told apart by readers who do not see all colours.
_COLOURS: Final = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#999999",
    "#F0E442",
)

_LEAST: Final = 1e-9  # what a logarithmic axis shows: nothing that is measured is smaller

Points = Sequence[tuple[float, float]]
Ticks = Sequence[tuple[float, str]]


def percentile_ticks() -> Ticks:
    """Ticks of an axis of ``1 / (1 - fraction)``, on which each nine takes as much room as the one before."""
    return [
        (1, "0"),
        (2, "50"),
        (10, "90"),
        (100, "99"),
        (1000, "99.9"),
        (10_000, "99.99"),
        (100_000, "99.999"),
    ]


def _decades(low: float, high: float) -> Ticks:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [(10.0**power, _short(10.0**power)) for power in range(first, last + 1)]


def _even(low: float, high: float) -> Ticks:
    step = 10 ** math.floor(math.log10((high - low) / 4 or 1))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)
    first = math.ceil(low / step)
    return [(n * step, _short(n * step)) for n in range(first, int(high / step) + 1)]


def _short(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _scale(values: Sequence[float], ticks: Ticks, log: bool) -> tuple[Callable[[float], float], Ticks]:
    """Values to 0 … 1, and the ticks within."""
    marks = [value for value, _ in ticks]
    low = max((mark for mark in marks if mark <= min(values)), default=min(values))
    high = min((mark for mark in marks if mark >= max(values)), default=max(values))
    if high == low:
        high = low + 1 if not log else low * 10

    def place(value: float) -> float:
        if log:
            return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
        return (value - low) / (high - low)

    return place, [tick for tick in ticks if low <= tick[0] <= high]


def line_chart(
    title: str,
    x_label: str,
    y_label: str,
    series: Mapping[str, Points],
    *,
    x_ticks: Ticks | None = None,
    log_x: bool = False,
    log_y: bool = False,
) -> str:
    """One chart as an SVG document. On a logarithmic axis only points from 1e-9 on are drawn."""
    drawn = {
        name: [(x, y) for x, y in points if (x >= _LEAST or not log_x) and (y >= _LEAST or not log_y)]
        for name, points in series.items()
    }
    drawn = {name: points for name, points in drawn.items() if points}
    every = [point for points in drawn.values() for point in points] or [(1.0, 1.0)]
    xs, ys = [x for x, _ in every], [y for _, y in every]
    if not log_y:
        ys = [0.0, *ys]
    x_place, x_marks = _scale(xs, x_ticks or (_decades if log_x else _even)(min(xs), max(xs) or 1), log_x)
    y_place, y_marks = _scale(ys, (_decades if log_y else _even)(min(ys), max(ys) * 1.05 or 1), log_y)
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        return _LEFT + x_place(x) * wide, _TOP + (1 - y_place(y)) * high

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="24" font-size="15" font-weight="bold">{escape(title)}</text>',
        f'<text x="{_LEFT + wide / 2}" y="{_HEIGHT - 14}" text-anchor="middle">{escape(x_label)}</text>',
        f'<text transform="translate(18 {_TOP + high / 2}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>',
    ]
    for value, text in x_marks:
        x = _LEFT + x_place(value) * wide
        lines.append(f'<path d="M{x:.1f} {_TOP}V{_TOP + high}" stroke="#dddddd"/>')
        lines.append(f'<text x="{x:.1f}" y="{_TOP + high + 18}" text-anchor="middle">{escape(text)}</text>')
    for value, text in y_marks:
        y = _TOP + (1 - y_place(value)) * high
        lines.append(f'<path d="M{_LEFT} {y:.1f}H{_LEFT + wide}" stroke="#dddddd"/>')
        lines.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>')
    for index, (name, points) in enumerate(drawn.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in (at(*point) for point in sorted(points)))
        lines.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if len(points) <= 20:
            for x, y in (at(*point) for point in points):
                lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
        y = _TOP + 8 + index * 18
        lines.append(f'<rect x="{_LEFT + wide + 14}" y="{y - 8}" width="12" height="4" fill="{colour}"/>')
        lines.append(f'<text x="{_LEFT + wide + 32}" y="{y}">{escape(name)}</text>')
    return "\n".join([*lines, "</svg>", ""])
