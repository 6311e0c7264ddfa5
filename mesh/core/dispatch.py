"""Which part of the engine hears which control message of the direct plane: a table.

What is not here is a program's own (a request, a reply, a directed batch) and goes up to the node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from mesh.core.messages import (
    AttachMessage,
    CertificateMessage,
    CertificateWantedMessage,
    GoodbyeMessage,
    GossipMessage,
    InterestsMessage,
    InterestsWantedMessage,
    KeyMessage,
    KeyWantedMessage,
    PingMessage,
    PingRequestMessage,
    PongMessage,
    PositionsMessage,
    RecordMessage,
    RepairedMessage,
    RepairMessage,
    RevocationsMessage,
    VouchMessage,
    WindowMessage,
)
from mesh.core.session import Session

__all__ = ["HANDLERS"]

HANDLERS: Final[dict[type[Any], Callable[[Any, Session, Any, float], None]]] = {
    AttachMessage: lambda engine, *heard: engine.on_attach(*heard),
    GoodbyeMessage: lambda engine, *heard: engine.on_goodbye(*heard),
    PingMessage: lambda engine, session, message, clock: engine.links.heard_ping(
        session, message, engine.load()
    ),
    PongMessage: lambda engine, *heard: engine.on_pong(*heard),
    PingRequestMessage: lambda engine, *heard: engine.suspicion.asked(*heard),
    VouchMessage: lambda engine, session, message, clock: engine.suspicion.vouched(message, clock),
    PositionsMessage: lambda engine, *heard: engine.accounts.positions(*heard),
    RepairMessage: lambda engine, *heard: engine.outgoing.repair(*heard),
    WindowMessage: lambda engine, session, message, clock: engine.windows.heard(session.node, message, clock),
    RepairedMessage: lambda engine, *heard: engine.accounts.repaired(*heard),
    InterestsMessage: lambda engine, *heard: engine.on_interests(*heard),
    InterestsWantedMessage: lambda engine, session, *_: engine.links.tell_interests(session),
    KeyMessage: lambda engine, session, message, clock: engine.receiver.add_key(session, message.key, clock),
    KeyWantedMessage: lambda engine, *heard: engine.on_key_wanted(*heard),
    RecordMessage: lambda engine, session, message, clock: engine.directory.heard_record(
        session, message.record, clock, clock + engine.wall
    ),
    GossipMessage: lambda engine, _, message, clock: engine.directory.heard_gossip(
        message, clock, clock + engine.wall
    ),
    RevocationsMessage: lambda engine, *heard: engine.on_credentials(*heard),
    CertificateWantedMessage: lambda engine, *heard: engine.on_credentials(*heard),
    CertificateMessage: lambda engine, *heard: engine.on_credentials(*heard),
}
