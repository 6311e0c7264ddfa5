"""zeromesh for asyncio: the names of ``mesh``, to be awaited on an asyncio loop.

    import asyncio, mesh.aio

    async def main():
        async with mesh.aio.open_node("kitchen") as node:
            await node.publish("home/kitchen/temperature", 21.5)

            async with node.subscribe("home/*/temperature") as readings:
                async for message in readings:
                    print(message.topic, message.value, message.sender.name)

    asyncio.run(main())

The node runs in a thread of its own (``mesh.portal``); handlers run on the loop that called ``serve``.
``aio.pyi``, which tools/stubs.py writes, tells type checkers what the classes look like.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from mesh import api
from mesh.node.node import Node as _Node
from mesh.node.presence import PeerWatch as _PeerWatch
from mesh.node.publisher import Publisher as _Publisher
from mesh.node.subscription import Subscription as _Subscription
from mesh.portal.tasks import Asyncio, Opening

__all__ = ["Node", "PeerWatch", "Publisher", "Subscription", "open_node"]

Node = Asyncio.face(_Node)
PeerWatch = Asyncio.face(_PeerWatch)
Publisher = Asyncio.face(_Publisher)
Subscription = Asyncio.face(_Subscription)


@wraps(api.open_node)
def open_node(*args: Any, **named: Any) -> Any:
    return Opening(api.open_node(*args, **named))
