"""What ``mesh demo`` shows: a live table on a terminal, a line a second elsewhere, or JSON.

``Picture`` is what is known at one moment; the three views only put it into words.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from mesh.cli.output import json_line, shown, write

__all__ = ["NodeRow", "Picture", "View", "view"]


@dataclass(slots=True)
class NodeRow:
    """One node of the demo as the watching node sees it. ``rtt`` in seconds, ``rate`` in messages a second."""

    name: str
    id: str = ""
    state: str = "starting"
    rtt: float | None = None
    messages: int = 0
    rate: float = 0.0
    latest: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Picture:
    """The whole demo at one moment. ``request`` is the round trip of a request to the service, in seconds."""

    elapsed: float
    found_by: str
    nodes: list[NodeRow]
    messages: int
    rate: float
    lost: int
    request: float | None
    uptime: Any


class View(Protocol):
    def show(self, picture: Picture) -> None: ...


@contextmanager
def view(*, json: bool) -> Iterator[View]:
    """The view that fits standard output, for the length of the block."""
    if json:
        yield _Json()
    elif sys.stdout.isatty():
        with _Table() as live:
            yield live
    else:
        yield _Lines()


def milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.2f} ms"


class _Json:
    def show(self, picture: Picture) -> None:
        write(json_line(asdict(picture)))


class _Lines:
    def show(self, picture: Picture) -> None:
        alive = sum(row.state == "alive" for row in picture.nodes)
        trips = ", ".join(f"{row.name} {milliseconds(row.rtt)}" for row in picture.nodes)
        write(
            f"{picture.elapsed:4.0f} s  {alive} peers ({picture.found_by})  {picture.messages} messages  "
            f"{picture.rate:.0f}/s  round trips: {trips}  request: {milliseconds(picture.request)}\n"
        )


class _Table:
    """Redrawn in place by rich."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(), auto_refresh=False, transient=False)

    def __enter__(self) -> _Table:
        self._live.__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        self._live.__exit__(*details)

    def show(self, picture: Picture) -> None:
        self._live.update(_drawn(picture), refresh=True)


def _drawn(picture: Picture) -> Any:
    from rich.table import Table

    table = Table(
        title=f"mesh demo: {len(picture.nodes)} nodes and this one, found by {picture.found_by}",
        caption=(
            f"{picture.elapsed:.0f} s   {picture.messages} messages   {picture.rate:.0f}/s   lost {picture.lost}\n"
            f"uptime of this machine, by request: {_uptime(picture.uptime)} in {milliseconds(picture.request)}\n"
            "Ctrl-C ends"
        ),
    )
    for title, justify in (
        ("node", "left"),
        ("state", "left"),
        ("round trip", "right"),
        ("messages", "right"),
        ("rate", "right"),
        ("latest", "left"),
    ):
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    for row in picture.nodes:
        table.add_row(
            row.name,
            row.state,
            milliseconds(row.rtt),
            str(row.messages),
            f"{row.rate:.0f}/s",
            "   ".join(f"{what} {_reading(value)}" for what, value in sorted(row.latest.items())),
        )
    return table


def _reading(value: Any) -> str:
    if isinstance(value, Mapping) and {"used", "total"} <= value.keys():
        return f"{_bytes(value['used'])} of {_bytes(value['total'])}"
    if isinstance(value, int) and value > 10_000:
        return _bytes(value)
    return shown(value)


def _bytes(n: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} TiB"


def _uptime(answer: Any) -> str:
    if not isinstance(answer, Mapping) or "seconds" not in answer:
        return "-"
    minutes = int(answer["seconds"]) // 60
    days, hours = minutes // 1440, minutes // 60 % 24
    return f"{days} d {hours} h {minutes % 60} min"
