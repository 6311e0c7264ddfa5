"""``peers`` and ``ping``: who is in the mesh, and how far away.

The daemon of this home is asked, if one runs; else a node is opened for the time of the command.
"""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator, Mapping
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
from mesh.cli.output import colour, json_line, say, send, table, write

if TYPE_CHECKING:
    import mesh

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    app.command("peers")(guarded(peers))
    app.command("ping")(guarded(ping))


def peers(
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on, and print each change as it happens.")
    ] = False,
    json: JsonOption = False,
    connect: ConnectOption = None,
    home: HomeOption = None,
    verbose: VerboseOption = 0,
) -> int:
    """List the peers of this machine's node.

    \b
    Examples:
      mesh peers
      mesh peers --json | jq -r '.[].name'
      mesh peers --watch
    """
    set_up_logging(verbose)
    if watch:
        return run(lambda: _watch(json, connect, home), endless=True)
    return run(lambda: _list(json, connect, home))


async def _list(json: bool, connect: list[str] | None, home: Path | None) -> None:
    from mesh.daemon.control import NoDaemon, ask
    from mesh.daemon.operations import control_socket, peer_fields

    where = at_home(home)
    try:
        found = await ask(where.path, control_socket(where), "peers")
    except NoDaemon:
        from mesh.cli.nodes import joined, wait_for_company

        async with joined(home, connect=connect) as node:
            await wait_for_company(node)
            found = [peer_fields(peer) for peer in node.peers.values()]
    if json:
        write(json_line(found))
    elif found:
        write(table(("NAME", "MEMBER", "STATE", "RTT", "ENDPOINT", "ID"), map(_row, found)))
    else:
        say("no peers; `mesh doctor` looks for the reason")


def _row(peer: Mapping[str, Any]) -> tuple[str, ...]:
    rtt = peer["rtt"]
    return (
        peer["name"],
        peer["member"],
        peer["state"],
        "-" if rtt is None else f"{rtt * 1000:.2f} ms",
        next(iter(peer["endpoints"]), "-"),
        peer["id"],
    )


async def _watch(json: bool, connect: list[str] | None, home: Path | None) -> None:
    from mesh.cli.nodes import joined
    from mesh.daemon.control import DaemonError, NoDaemon, listen_to
    from mesh.daemon.operations import control_socket, event_fields

    where = at_home(home)

    async def show(events: AsyncIterator[Mapping[str, Any]]) -> None:
        async for event in events:
            await send(json_line(event) if json else _change(event))

    try:
        await show(listen_to(where.path, control_socket(where), "watch"))
    except NoDaemon:
        async with joined(home, connect=connect) as node:
            await show(event_fields(event) async for event in node.watch_peers())
    else:
        raise DaemonError("NodeClosed", "the daemon ended")


_STYLE = {"joined": "green", "recovered": "green", "suspected": "yellow", "left": "red"}


def _change(event: Mapping[str, Any]) -> str:
    peer = event["peer"]
    change = colour(event["change"].ljust(9), _STYLE[event["change"]])
    why = f"  ({event['why']})" if event["why"] else ""
    return f"{change}  {peer['name']}  {peer['id']}{why}\n"


def ping(
    peer: Annotated[str, typer.Argument(metavar="PEER", help="Its name or id.", show_default=False)],
    count: Annotated[int, typer.Option("--count", metavar="N", min=1, help="How many times.")] = 4,
    interval: Annotated[float, typer.Option("--interval", metavar="S", min=0, help="Seconds between.")] = 0.2,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", min=0.001, help="Seconds to wait.")
    ] = 2.0,
    json: JsonOption = False,
    connect: ConnectOption = None,
    home: HomeOption = None,
    verbose: VerboseOption = 0,
) -> int:
    """Measure the round trip to a peer, over its encrypted link.

    \b
    Examples:
      mesh ping cellar
      mesh ping cellar --count 100 --interval 0 --json
    """
    set_up_logging(verbose)
    return run(lambda: _ping(peer, count, interval, timeout, json, connect, home))


async def _ping(
    wanted: str,
    count: int,
    interval: float,
    timeout: float,
    json: bool,
    connect: list[str] | None,
    home: Path | None,
) -> int:
    from mesh.cli.nodes import joined, peer_named

    answered = True
    async with joined(home, connect=connect) as node:
        for peer in await peer_named(node, wanted):
            times = await _times(node, peer, count, interval, timeout, quiet=json)
            answered = answered and bool(times)
            summary = {
                "peer": peer.name,
                "id": peer.id,
                "sent": count,
                "answered": len(times),
                "min": min(times, default=None),
                "median": statistics.median(times) if times else None,
                "max": max(times, default=None),
            }
            if json:
                write(json_line(summary))
            elif times:
                low, middle, high = (
                    1000 * each for each in (min(times), statistics.median(times), max(times))
                )
                write(
                    f"{peer.name}: {len(times)} of {count} answered, "
                    f"min {low:.3f} ms, median {middle:.3f} ms, max {high:.3f} ms\n"
                )
    if not answered:
        say(f"mesh: {wanted} did not answer")
    return 0 if answered else 1


async def _times(
    node: mesh.Node, peer: mesh.Peer, count: int, interval: float, timeout: float, *, quiet: bool
) -> list[float]:
    """Round trips in seconds; those without an answer in time are left out."""
    import trio

    from mesh.errors import RequestTimeout

    times = []
    for number in range(count):
        if number:
            await trio.sleep(interval)
        try:
            times.append(await node.ping(peer, timeout=timeout))
        except RequestTimeout:
            line = f"{peer.name}: no answer within {timeout:g} s\n"
        else:
            line = f"{peer.name}: {times[-1] * 1000:.3f} ms\n"
        if not quiet:
            await send(line)
    return times
