"""zeromesh for plain threads: the names of ``mesh``, without async and await.

    import mesh.sync

    with mesh.sync.open_node("kitchen") as node:
        node.publish("home/kitchen/temperature", 21.5)

        with node.subscribe("home/*/temperature") as readings:
            for message in readings:
                print(message.topic, message.value, message.sender.name)

Every call may be made from any thread.  The node runs in a thread of its own (``mesh.portal``); handlers
run in worker threads, while ``serve`` blocks its caller until Ctrl-C or until the node is closed.
``sync.pyi``, which tools/stubs.py writes, tells type checkers what the classes look like.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from mesh import api
from mesh.node.node import Node as _Node
from mesh.node.presence import PeerWatch as _PeerWatch
from mesh.node.publisher import Publisher as _Publisher
from mesh.node.subscription import Subscription as _Subscription
from mesh.portal.threads import Opening, Threads

__all__ = ["Node", "PeerWatch", "Publisher", "Subscription", "open_node"]

Node = Threads.face(_Node)
PeerWatch = Threads.face(_PeerWatch)
Publisher = Threads.face(_Publisher)
Subscription = Threads.face(_Subscription)


@wraps(api.open_node)
def open_node(*args: Any, **named: Any) -> Any:
    return Opening(api.open_node(*args, **named))
