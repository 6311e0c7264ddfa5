"""One node of ``mesh demo``, in a process of its own: this machine's telemetry into the mesh.

stdout   one JSON line when it is up: name, id, endpoints
stdin    ``connect ENDPOINT`` adds a seed; the end of it ends the node, so that none outlives the demo
topics   demo/<name>/<what>, ten times a second; ``cpu`` also answers requests on demo/uptime
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import psutil
import trio

import mesh
from mesh.cli import stdin
from mesh.cli.base import described, set_up_logging
from mesh.cli.output import OutputClosed, say, write

__all__ = ["NAMES", "SERVICE", "main"]

PERIOD: Final = 0.1  # seconds between two readings
SERVICE: Final = "demo/uptime"


def _cpu() -> Mapping[str, Any]:
    return {
        "load": [round(each, 2) for each in os.getloadavg()],
        "percent": psutil.cpu_percent(),
        "cores": psutil.cpu_count(),
    }


def _storage() -> Mapping[str, Any]:
    memory, disk = psutil.virtual_memory(), psutil.disk_usage("/")
    return {
        "memory": {"used": memory.total - memory.available, "total": memory.total},
        "disk": {"used": disk.used, "total": disk.total},
    }


def _network() -> Mapping[str, Any]:
    counters = psutil.net_io_counters()
    sent, received = (0, 0) if counters is None else (counters.bytes_sent, counters.bytes_recv)
    return {"sent": sent, "received": received}


_READINGS: Final[dict[str, Callable[[], Mapping[str, Any]]]] = {
    "cpu": _cpu,
    "storage": _storage,
    "network": _network,
}
NAMES: Final = tuple(_READINGS)


async def _uptime(request: Any) -> Mapping[str, Any]:
    return {"seconds": round(time.time() - psutil.boot_time()), "processes": len(psutil.pids())}


async def _publish(node: mesh.Node) -> None:
    reading = _READINGS[node.name]
    while True:
        for what, value in reading().items():
            await node.publish(f"demo/{node.name}/{what}", value)
        await trio.sleep(PERIOD)


async def _run(home: str, name: str) -> None:
    async with mesh.open_node(name, home=home, discovery=("mdns",)) as node, trio.open_nursery() as nursery:
        nursery.start_soon(_publish, node)
        if name == NAMES[0]:
            nursery.start_soon(node.serve, SERVICE, _uptime)
        write(json.dumps({"name": name, "id": node.id, "endpoints": node.endpoints}) + "\n")
        async for line in stdin.lines():
            command, _, endpoint = line.decode(errors="replace").partition(" ")
            if command == "connect":
                node.add_seed(endpoint)
        nursery.cancel_scope.cancel()


def main() -> None:
    """``python -m mesh.cli.demo_node HOME NAME``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us
    set_up_logging(0)
    home, name = sys.argv[1:]
    try:
        trio.run(_run, home, name)
    except OutputClosed:
        pass  # the parent is gone
    except (mesh.MeshError, OSError) as error:
        say(described(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
