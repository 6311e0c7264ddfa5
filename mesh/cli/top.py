"""``top``: what goes on in the mesh, as the daemon of this home counts it, or a node of the command's own.

snapshots (``mesh.daemon.top``) → the difference of two → a table that is drawn again and again, or JSON lines.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mesh.cli.base import (
    ConnectOption,
    HomeOption,
    JsonOption,
    VerboseOption,
    at_home,
    guarded,
    run,
    set_up_logging,
)
from mesh.cli.output import json_line, send

if TYPE_CHECKING:
    from rich.console import Console, Group

__all__ = ["register"]

_TOPICS = 20  # rows


def register(app: typer.Typer) -> None:
    app.command("top")(guarded(top))


def top(
    interval: Annotated[
        float, typer.Option("--interval", metavar="S", min=0.1, help="Seconds between two looks.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, for the length of the interval.")] = False,
    json: JsonOption = False,
    connect: ConnectOption = None,
    home: HomeOption = None,
    verbose: VerboseOption = 0,
) -> int:
    """Show what goes on: peers, subscriptions, topics and their rates, what was lost or dropped and why.

    What the daemon of this home counts; without one, what a node sees that subscribes to everything.

    \b
    Examples:
      mesh top
      mesh top --once
      mesh top --json --interval 5
    """
    set_up_logging(verbose)
    return run(lambda: _top(interval, once, json, connect, home), endless=not once)


async def _top(interval: float, once: bool, json: bool, connect: list[str] | None, home: Path | None) -> None:
    from mesh.daemon.control import DaemonError, NoDaemon, listen_to
    from mesh.daemon.operations import control_socket

    where = at_home(home)
    try:
        await _show(listen_to(where.path, control_socket(where), "top", interval=interval), once, json)
        if not once:
            raise DaemonError("NodeClosed", "the daemon ended")
    except NoDaemon:
        await _alone(interval, once, json, connect, home)


async def _alone(
    interval: float, once: bool, json: bool, connect: list[str] | None, home: Path | None
) -> None:
    """Without a daemon: what a node of our own sees that subscribes to everything."""
    import trio

    from mesh.cli.nodes import joined, wait_for_company
    from mesh.daemon.top import snapshot

    async with joined(home, connect=connect) as node, node.subscribe("**") as messages:

        async def read() -> None:
            async for _ in messages:
                pass

        async def looks() -> AsyncIterator[Any]:
            while True:
                yield snapshot(node)
                await trio.sleep(interval)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await wait_for_company(node)
            await _show(looks(), once, json)
            nursery.cancel_scope.cancel()


async def _show(snapshots: AsyncIterator[Any], once: bool, json: bool) -> None:
    from contextlib import aclosing

    from rich.console import Console
    from rich.live import Live

    from mesh.daemon.top import rates

    console = Console()
    before: dict[str, Any] | None = None
    async with aclosing(snapshots) as looks:  # type: ignore[type-var]
        if json or once or not console.is_terminal:
            async for now in looks:
                if not (once and before is None):
                    shown = rates(before, now)
                    await send(json_line(shown) if json else _text(console, shown))
                    if once:
                        return
                before = now
            return
        with Live(console=console, screen=True, auto_refresh=False) as live:
            async for now in looks:
                live.update(_tables(rates(before, now)), refresh=True)
                before = now


def _text(console: Console, shown: Mapping[str, Any]) -> str:
    with console.capture() as captured:
        console.print(_tables(shown))
    return captured.get()


def _tables(shown: Mapping[str, Any]) -> Group:
    from rich.console import Group

    counters = shown["counters"]
    head = f"{shown['node']['name']}   " + "   ".join(f"{name} {n}" for name, n in counters.items() if n)
    reasons = {
        f"{kind}: {reason}": n
        for kind in ("lost", "dropped", "rejected")
        for reason, n in shown[f"{kind}_by_{'cause' if kind == 'lost' else 'reason'}"].items()
    }
    peers = (
        (
            each["name"],
            each["state"],
            "-" if each["rtt"] is None else f"{each['rtt'] * 1000:.2f} ms",
            _rate(each["rate"]),
            each["received"],
            each["lost"],
            each["queued_bytes"],
            each["unsent_frames"],
        )
        for each in shown["peers"]
    )
    subscriptions = (
        (
            each["pattern"] + (f" ({each['group']})" if each["group"] else ""),
            *(each[name] for name in ("delivered", "queued", "awaited", "dropped", "lost")),
            ", ".join((*each["lost_by_cause"], *each["dropped_by_reason"])) or "-",
        )
        for each in shown["subscriptions"]
    )
    topics = (
        (each["topic"], _rate(each["rate"]), each["published"], each["publishers"])
        for each in shown["topics"][:_TOPICS]
    )
    return Group(
        head,
        _table(("PEER", "STATE", "RTT", "MSG/S", "RECEIVED", "LOST", "QUEUED B", "UNSENT"), peers),
        _table(("SUBSCRIPTION", "DELIVERED", "QUEUED", "AWAITED", "DROPPED", "LOST", "WHY"), subscriptions),
        _table((f"TOPIC ({shown['topics_known']})", "MSG/S", "MESSAGES", "PUBLISHERS"), topics),
        _table(("LOST, DROPPED, REJECTED", "COUNT"), reasons.items()),
    )


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:,.1f}"


def _table(head: tuple[str, ...], rows: Iterable[Iterable[Any]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    from mesh.cli.output import shown

    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(head):
        table.add_column(name, justify="left" if number == 0 else "right", overflow="ellipsis", no_wrap=True)
    for row in rows:
        # Names and topics are the peers' to choose: nothing in them may steer a terminal.
        table.add_row(*(Text(shown(each) if isinstance(each, str) else str(each)) for each in row))
    return table
