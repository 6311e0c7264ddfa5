"""A bridge as a program of its own, for tests that kill it: ``python -m tests.bridges.bridge_program TABLE …``.

Prints ``live`` when its connection works, and ``leads`` or ``waits`` as that changes.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import trio

import mesh
from bridges.bridge import open_bridge


async def main(table: str, name: str, home: str, seed: str, spool: str) -> None:
    async with (
        mesh.open_node(
            name,
            home=home,
            listen=["tcp://127.0.0.1:0"],
            connect=[seed],
            discovery=(),
            config=mesh.Config.local(),
        ) as node,
        open_bridge(node, json.loads(table), spool_folder=Path(spool)) as bridge,
    ):
        await node.wait_for_peers(1)
        leads: bool | None = None
        while True:
            if bridge.state == "connected" and bridge.leads != leads:
                leads = bridge.leads
                if leads:
                    await bridge.wait_live()
                print("leads" if leads else "waits", flush=True)
            await trio.sleep(0.05)  # a program may poll; it has nothing else to do


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    trio.run(main, *sys.argv[1:])
