"""A program for tests and benchmarks between hosts: one node that tells what happens to it.

    python -m tests.lan.node NAME HOME [--discovery mdns,scout] [--connect ENDPOINT]… [--listen ENDPOINT]…
                             [--patience SECONDS SECONDS SECONDS] [--log]

It subscribes to ``lab/**`` and says, one JSON object a line with the ``event`` and ``at`` (seconds, monotonic,
the same for all processes of one machine):

    ready          id, endpoints, took (seconds that open_node needed)
    joined, suspected, recovered, left     name, id, why: as ``watch_peers`` reports them
    message        topic, value, sender (name)

Commands on standard input, one a line: ``publish VALUE`` (on ``lab/NAME``), ``count`` answers
``counted`` with CPU seconds, resident bytes, peers and statistics, ``stop`` leaves the mesh. With ``--load RATE`` it publishes
and reads numbered messages (``tests.chaos.load``) from ``begin`` to ``quiet``; ``counted`` says what came.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path

import trio

import mesh
from tests.chaos.load import Load

_EVENTS = {
    mesh.PeerJoined: "joined",
    mesh.PeerSuspected: "suspected",
    mesh.PeerRecovered: "recovered",
    mesh.PeerLeft: "left",
}


def say(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, "at": time.monotonic(), **fields}), flush=True)


def resident() -> int:
    """Bytes of this process in memory now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def watch(node: mesh.Node) -> None:
    async for event in node.watch_peers():
        say(_EVENTS[type(event)], name=event.peer.name, id=event.peer.id, why=event.why)


async def listen(node: mesh.Node, task_status: trio.TaskStatus[None]) -> None:
    async with node.subscribe("lab/**") as messages:
        task_status.started()
        async for message in messages:
            say("message", topic=message.topic, value=message.value, sender=message.sender.name)


async def obey(node: mesh.Node, load: Load | None) -> None:
    """Do what standard input says, until it says stop or ends."""
    async with trio.lowlevel.FdStream(os.dup(0)) as commands:
        rest = b""
        async for chunk in commands:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                word, _, value = line.decode().partition(" ")
                if word == "stop":
                    return
                if word == "publish":
                    await node.publish(f"lab/{node.name}", value)
                elif word == "count":
                    count(node, load)
                elif word in ("begin", "quiet") and load is not None:
                    getattr(load, word)()


def count(node: mesh.Node, load: Load | None) -> None:
    usage, counted = resource.getrusage(resource.RUSAGE_SELF), node.statistics()
    say(
        "counted",
        cpu=usage.ru_utime + usage.ru_stime,
        switches=usage.ru_nvcsw,
        resident=resident(),
        peers={peer.name: peer.state for peer in node.peers.values()},
        known={peer.name: peer.endpoints for peer in node.peers.values()},
        endpoints=node.endpoints,
        rejected=dict(counted.rejected_by_reason),
        lost=counted.lost,
        repaired=counted.repaired,
        descriptors=len(list(Path("/proc/self/fd").iterdir())),
        load=None if load is None else load.told(),
        refusals=dict(node.refusals),
    )


def config(patience: list[float] | None) -> mesh.Config:
    """The LAN preset, perhaps with other times until a silent peer is asked, suspected and gone."""
    if patience is None:
        return mesh.Config.lan()
    asked, suspected, gone = patience
    return mesh.Config.lan(probe_after=asked, probe_timeout=suspected, gone_after=gone, probe_early=asked / 3)


async def run(options: argparse.Namespace) -> None:
    began = time.monotonic()
    async with mesh.open_node(
        options.name,
        home=options.home,
        listen=options.listen,
        connect=options.connect,
        discovery=[name for name in options.discovery.split(",") if name],
        config=config(options.patience),
    ) as node:
        took = time.monotonic() - began
        async with trio.open_nursery() as nursery:
            await nursery.start(listen, node)
            nursery.start_soon(watch, node)
            load = None
            if options.load is not None:
                load = Load(node, options.load, options.size, options.pace)
                await nursery.start(load.run)
            say("ready", id=node.id, endpoints=node.endpoints, took=took)
            await obey(node, load)
            nursery.cancel_scope.cancel()
        say("leaving")
    say("ended")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("home")
    parser.add_argument("--discovery", default="mdns,scout")
    parser.add_argument("--connect", action="append", default=[])
    parser.add_argument("--listen", action="append")
    parser.add_argument("--patience", nargs=3, type=float, metavar="SECONDS")
    parser.add_argument("--load", type=float, metavar="RATE")
    parser.add_argument("--size", type=int, default=100, metavar="BYTES")
    parser.add_argument("--pace", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--log", action="store_true")
    options = parser.parse_args()
    if options.log:
        import logging

        logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    trio.run(run, options)


if __name__ == "__main__":
    main()
