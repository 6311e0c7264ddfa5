"""``bench``: measure the LAN between this machine and a peer, through the mesh as programs use it.

A node for the time of the command → requests to the peer's daemon, or messages that it counts (``daemon.measuring``) →
percentiles and a histogram, beside what the bare network takes → words, JSON, a picture.

One request is under way at a time: these are the times of who asks one thing after another.
"""

from __future__ import annotations

import json as json_module
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from mesh.cli.base import ConnectOption, HomeOption, VerboseOption, guarded, run, set_up_logging, usage
from mesh.cli.measured import buckets, curve, percentiles, told_latency, told_throughput
from mesh.cli.output import say, table, write

if TYPE_CHECKING:
    import mesh

__all__ = ["register"]

_BARS: Final = 40  # characters
_CHECK: Final = 64  # messages between two looks at the clock

PeerArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[PEER]", help="Its name or id (default: the only one there is).", show_default=False
    ),
]
SizeOption = Annotated[str, typer.Option("--size", metavar="N,N", help="Bytes of a value.")]
JsonFileOption = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE", help="Write the result as JSON (- is standard output).", show_default=False
    ),
]
PlotOption = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE", help="Draw a picture: FILE.svg or FILE.png.", show_default=False),
]


def register(app: typer.Typer) -> None:
    family = typer.Typer(
        no_args_is_help=True, help="Measure the network between this machine and a peer whose daemon runs."
    )
    family.command("latency")(guarded(latency))
    family.command("throughput")(guarded(throughput))
    app.add_typer(family, name="bench")


def latency(
    peer: PeerArgument = None,
    size: SizeOption = "64,1024,65536",
    count: Annotated[int, typer.Option("--count", metavar="N", min=1, help="Requests of each size.")] = 500,
    every: Annotated[
        bool, typer.Option("--all", help="Every daemon to every other one: a matrix, at the first size.")
    ] = False,
    json: JsonFileOption = None,
    plot: PlotOption = None,
    connect: ConnectOption = None,
    home: HomeOption = None,
    verbose: VerboseOption = 0,
) -> int:
    """Ask the peer's daemon again and again: percentiles and a histogram of the round trip.

    \b
    Examples:
      mesh bench latency cellar
      mesh bench latency cellar --size 64,65536 --count 5000 --plot latency.svg
      mesh bench latency --json - | jq '.sizes[0].percentiles'
      mesh bench latency --all
    """
    set_up_logging(verbose)
    sizes = _sizes(size)
    _check_plot(plot)
    if every:
        if peer is not None or plot is not None or count > 1000:
            usage("--all takes no peer, no --plot and a --count of at most 1000")
        return run(lambda: _matrix(sizes[0], count, json, connect, home))
    return run(lambda: _latency(peer, sizes, count, json, plot, connect, home))


def throughput(
    peer: PeerArgument = None,
    size: SizeOption = "64,1024,65536",
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="S", min=0.1, max=60, help="For each size.")
    ] = 2.0,
    json: JsonFileOption = None,
    plot: PlotOption = None,
    connect: ConnectOption = None,
    home: HomeOption = None,
    verbose: VerboseOption = 0,
) -> int:
    """Publish as fast as this machine can, and let the peer's daemon count what arrives.

    \b
    Examples:
      mesh bench throughput cellar
      mesh bench throughput cellar --size 16,256,4096 --seconds 5 --json rates.json
    """
    set_up_logging(verbose)
    sizes = _sizes(size)
    _check_plot(plot)
    return run(lambda: _throughput(peer, sizes, seconds, json, plot, connect, home))


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        usage(f"--size {text}: expected numbers of bytes, as in 64,1024")
    if not all(0 <= size <= 1 << 20 for size in sizes):
        usage(f"--size {text}: a value has 0 to {1 << 20} bytes")
    return sizes


def _check_plot(plot: Path | None) -> None:
    from mesh.cli.picture import why_not

    if plot is not None and (reason := why_not(plot)):
        usage(f"--plot {plot}: {reason}")


# -- the peer -----------------------------------------------------------------------------------


@asynccontextmanager
async def _beside(
    wanted: str | None, connect: list[str] | None, home: Path | None
) -> AsyncIterator[tuple[mesh.Node, mesh.Peer]]:
    """A node, and the peer to measure with: one that answers."""
    from mesh.cli.nodes import joined, peer_named, wait_for_company
    from mesh.errors import UnknownPeer

    async with joined(home, connect=connect) as node:
        if wanted is None:
            await wait_for_company(node)
            peers = list(node.peers.values())
        else:
            peers = await peer_named(node, wanted)
        answering = await _answering(node, peers)
        if not answering:
            reason = (
                "no daemon of this mesh answers there"
                if peers
                else "no peers; `mesh doctor` looks for the reason"
            )
            raise UnknownPeer(wanted or "any", reason)
        if len(answering) > 1:
            names = ", ".join(sorted(peer.name for peer in answering))
            raise UnknownPeer(wanted or "any", f"several answer, name one: {names}")
        yield node, answering[0]


async def _answering(node: mesh.Node, peers: Sequence[mesh.Peer]) -> list[mesh.Peer]:
    """Those whose daemon answers measurements."""
    from mesh.cli.nodes import patiently
    from mesh.daemon.measuring import ECHO
    from mesh.errors import NoResponders, PeerGone

    answering = []
    for peer in peers:
        try:
            await patiently(lambda peer=peer: node.request(ECHO, b"", to=peer))  # type: ignore[misc]
        except (NoResponders, PeerGone):
            continue
        answering.append(peer)
    return answering


# -- latency ------------------------------------------------------------------------------------


async def _latency(
    wanted: str | None,
    sizes: list[int],
    count: int,
    json: Path | None,
    plot: Path | None,
    connect: list[str] | None,
    home: Path | None,
) -> int:
    from mesh.cli.floor import floor
    from mesh.daemon.measuring import round_trips

    quiet = str(json) == "-"
    async with _beside(wanted, connect, home) as (node, peer):
        bare = await floor(peer.endpoints)
        result: dict[str, Any] = {
            **_head("latency", node, peer),
            "tcp_connect": bare.tcp,
            "icmp_echo": bare.ping,
            "sizes": [],
        }
        for size in sizes:
            times, lost = await round_trips(node, peer, size, count, _progress(f"{size} B", count))
            entry: dict[str, Any] = {"size": size, "sent": count, "lost": lost}
            if times:
                entry |= {"percentiles": percentiles(times), "histogram": buckets(times)}
            result["sizes"].append(entry)
            if not quiet:
                write(told_latency(peer.name, entry, bare))
            if times:
                entry["times"] = times
    if plot is not None:
        from mesh.cli.chart import line_chart, percentile_ticks

        series = {
            f"{entry['size']:,} B": curve(entry["times"]) for entry in result["sizes"] if "times" in entry
        }
        title = f"Round trip to {peer.name} by percentile"
        ticks = percentile_ticks()
        _save(plot, line_chart(title, "percentile", "ms", series, x_ticks=ticks, log_x=True, log_y=True))
    _report(json, result)
    return 0 if all("percentiles" in entry for entry in result["sizes"]) else 1


async def _matrix(
    size: int, count: int, json: Path | None, connect: list[str] | None, home: Path | None
) -> int:
    """Let every daemon measure to every other one; their medians as a table."""
    from mesh.cli.nodes import joined, wait_for_company
    from mesh.daemon.measuring import ASK
    from mesh.errors import MeshError

    async with joined(home, connect=connect) as node:
        await wait_for_company(node)
        answering = sorted(await _answering(node, list(node.peers.values())), key=lambda peer: peer.name)
        if len(answering) < 2:
            say("mesh: a matrix takes two daemons at least, and fewer answer")
            return 1
        pairs = [(a, b) for a in answering for b in answering if a.id != b.id]
        progress = _progress(f"{len(pairs)} pairs", len(pairs))
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for number, (a, b) in enumerate(pairs):
            entry: dict[str, Any] = {"from": a.name, "to": b.name}
            try:
                wanted = {"peer": b.id, "size": size, "count": count}
                told = await node.request(ASK, wanted, to=a, timeout=120)
                entry |= (
                    {"lost": told["lost"], "percentiles": percentiles(told["times"])} if told["times"] else {}
                )
            except MeshError as error:
                entry["error"] = str(error)
            found[a.id, b.id] = entry
            progress(number + 1)
        result = {**_head("latency", node, None), "size": size, "count": count, "pairs": list(found.values())}
    _report(json, result)

    def cell(a: mesh.Peer, b: mesh.Peer) -> str:
        entry = found.get((a.id, b.id), {})
        return f"{entry['percentiles']['p50'] * 1000:.3f}" if "percentiles" in entry else "-"

    if str(json) != "-":
        rows = [[a.name, *(cell(a, b) for b in answering)] for a in answering]
        write(table(("p50 in ms, from / to", *(peer.name for peer in answering)), rows))
    return 0 if all("percentiles" in entry for entry in found.values()) else 1


# -- throughput ---------------------------------------------------------------------------------


async def _throughput(
    wanted: str | None,
    sizes: list[int],
    seconds: float,
    json: Path | None,
    plot: Path | None,
    connect: list[str] | None,
    home: Path | None,
) -> int:
    quiet = str(json) == "-"
    async with _beside(wanted, connect, home) as (node, peer):
        result: dict[str, Any] = {**_head("throughput", node, peer), "seconds": seconds, "sizes": []}
        for size in sizes:
            entry = await _flow(node, peer, size, seconds, _progress(f"{size} B", int(seconds * 1000)))
            result["sizes"].append(entry)
            if not quiet:
                write(told_throughput(peer.name, entry))
    if plot is not None:
        from mesh.cli.chart import line_chart

        rates = [(float(entry["size"] or 1), entry["rate"]) for entry in result["sizes"]]
        title = f"One way to {peer.name}: messages a second by size"
        _save(plot, line_chart(title, "bytes", "messages/s", {peer.name: rates}, log_x=True, log_y=True))
    _report(json, result)
    return 0 if all(entry["received"] for entry in result["sizes"]) else 1


async def _flow(
    node: mesh.Node, peer: mesh.Peer, size: int, seconds: float, progress: Callable[[int], None]
) -> dict[str, Any]:
    from mesh.daemon.measuring import FLOW

    name, data, sent = secrets.token_hex(8), secrets.token_bytes(size), 0
    await node.request(FLOW, {"open": name}, to=peer, timeout=10)
    async with node.publisher(f"{FLOW}/{name}") as publisher:
        await publisher.wait_for_subscribers(1)
        began = time.perf_counter()
        while True:
            for _ in range(_CHECK):
                await publisher.publish(data)
            sent += _CHECK
            passed = time.perf_counter() - began
            progress(int(min(passed, seconds) * 1000))
            if passed >= seconds:
                break
        await publisher.flush()
    told = await node.request(FLOW, {"close": name, "sent": sent}, to=peer, timeout=60)
    taken = told["seconds"]
    rate = (told["received"] - 1) / taken if taken else 0.0
    return {
        "size": size,
        "sent": sent,
        "received": told["received"],
        "lost": sent - told["received"],
        "rate": rate,
        "bytes_per_second": rate * size,
    }


# -- output -------------------------------------------------------------------------------------


def _head(kind: str, node: mesh.Node, peer: mesh.Peer | None) -> dict[str, Any]:
    from mesh import __version__

    return {
        "bench": kind,
        "version": __version__,
        "time": time.time(),
        "from": node.name,
        **({} if peer is None else {"peer": peer.name, "id": peer.id}),
    }


def _progress(what: str, total: int) -> Callable[[int], None]:
    """Show a bar on a terminal, a few times a second."""
    if not sys.stderr.isatty():
        return lambda done: None
    shown = 0.0

    def show(done: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if done < total and now - shown < 0.2:
            return
        shown = now
        filled = round(done / total * _BARS)
        bar = f"\r{what} [{'#' * filled}{' ' * (_BARS - filled)}]"
        sys.stderr.write("\r\x1b[K" if done >= total else bar)
        sys.stderr.flush()

    return show


def _save(path: Path, chart: str) -> None:
    from mesh.cli.picture import save

    save(path, chart)
    say(f"picture: {path}")


def _report(json: Path | None, result: dict[str, Any]) -> None:
    if json is None:
        return
    text = json_module.dumps(result) + "\n"
    if str(json) == "-":
        write(text)
    else:
        json.write_text(text, encoding="utf-8")
