"""zeromesh: a brokerless, encrypted peer-to-peer messaging mesh.

import trio, mesh

async def main():
    async with mesh.open_node("kitchen") as node:
        await node.publish("home/kitchen/temperature", 21.5)

        async with node.subscribe("home/*/temperature") as readings:
            async for message in readings:
                print(message.topic, message.value, message.sender.name)

trio.run(main)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mesh import aio as aio
    from mesh import sync as sync
    from mesh import testing as testing
    from mesh.api import open_node, open_vault
    from mesh.config import Config, Limits
    from mesh.core.effects import Incident
    from mesh.core.sealing import SealedValue, Vault
    from mesh.core.topic import Pattern
    from mesh.errors import (
        ConfigError,
        CredentialError,
        CutOff,
        ForkError,
        MeshError,
        MessageTooLarge,
        NodeClosed,
        NoResponders,
        NotAuthorized,
        Overflowed,
        PeerGone,
        ProtocolMismatch,
        RemoteError,
        RequestTimeout,
        TopicError,
        TransportError,
        UnknownPeer,
        ValueEncodingError,
    )
    from mesh.node.inbox import LossWatch
    from mesh.node.incidents import IncidentWatch
    from mesh.node.message import (
        Message,
        MessagesLost,
        Peer,
        PeerEvent,
        PeerJoined,
        PeerLeft,
        PeerRecovered,
        PeerSuspected,
    )
    from mesh.node.node import Node
    from mesh.node.presence import PeerWatch
    from mesh.node.publisher import Publisher
    from mesh.node.request import Reply, Request
    from mesh.node.statistics import Statistics
    from mesh.node.subscription import Subscription
    from mesh.node.supervise import supervise
    from mesh.node.values import decode_cbor, encode_cbor

__version__ = "0.1.0"

__all__ = [
    "Config",
    "ConfigError",
    "CredentialError",
    "CutOff",
    "ForkError",
    "Limits",
    "Incident",
    "IncidentWatch",
    "LossWatch",
    "MeshError",
    "Message",
    "MessageTooLarge",
    "MessagesLost",
    "NoResponders",
    "Node",
    "NodeClosed",
    "NotAuthorized",
    "Overflowed",
    "Pattern",
    "Peer",
    "PeerEvent",
    "PeerGone",
    "PeerJoined",
    "PeerLeft",
    "PeerRecovered",
    "PeerSuspected",
    "ProtocolMismatch",
    "PeerWatch",
    "Publisher",
    "RemoteError",
    "Reply",
    "Request",
    "RequestTimeout",
    "SealedValue",
    "Statistics",
    "Subscription",
    "TopicError",
    "TransportError",
    "UnknownPeer",
    "ValueEncodingError",
    "Vault",
    "decode_cbor",
    "encode_cbor",
    "open_node",
    "open_vault",
    "supervise",
]

# Where each name lives. They are imported when they are first asked for: the whole of the mesh takes half a
# second, which `mesh --help` and a mistyped option should not cost.
_PLACES = {
    "mesh.api": (
        "open_node",
        "open_vault",
    ),
    "mesh.config": (
        "Config",
        "Limits",
    ),
    "mesh.core.sealing": (
        "SealedValue",
        "Vault",
    ),
    "mesh.core.topic": ("Pattern",),
    "mesh.errors": (
        "ConfigError",
        "CredentialError",
        "CutOff",
        "ForkError",
        "MeshError",
        "MessageTooLarge",
        "NoResponders",
        "NodeClosed",
        "NotAuthorized",
        "Overflowed",
        "PeerGone",
        "ProtocolMismatch",
        "RemoteError",
        "RequestTimeout",
        "TopicError",
        "TransportError",
        "UnknownPeer",
        "ValueEncodingError",
    ),
    "mesh.core.effects": ("Incident",),
    "mesh.node.inbox": ("LossWatch",),
    "mesh.node.incidents": ("IncidentWatch",),
    "mesh.node.message": (
        "Message",
        "MessagesLost",
        "Peer",
        "PeerEvent",
        "PeerJoined",
        "PeerLeft",
        "PeerRecovered",
        "PeerSuspected",
    ),
    "mesh.node.node": ("Node",),
    "mesh.node.presence": ("PeerWatch",),
    "mesh.node.publisher": ("Publisher",),
    "mesh.node.request": (
        "Reply",
        "Request",
    ),
    "mesh.node.statistics": ("Statistics",),
    "mesh.node.subscription": ("Subscription",),
    "mesh.node.supervise": ("supervise",),
    "mesh.node.values": ("decode_cbor", "encode_cbor"),
}
_MODULE_OF = {name: module for module, names in _PLACES.items() for name in names}
_SUBMODULES = ("aio", "api", "config", "errors", "sync", "testing")

if not TYPE_CHECKING:  # a checker would take it for every name

    def __getattr__(name: str) -> Any:
        if name in _MODULE_OF:
            value = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
            return value
        if name in _SUBMODULES:
            return import_module(f"mesh.{name}")
        raise AttributeError(f"module 'mesh' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *_SUBMODULES})
