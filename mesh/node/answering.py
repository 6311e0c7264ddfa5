"""Who answers requests on a topic: the responders that peers have told of, as far as a rule lets us ask them."""

from __future__ import annotations

from mesh.core.engine import Engine
from mesh.core.router import Member
from mesh.core.topic import check_topic
from mesh.errors import NoResponders
from mesh.node.message import Peer
from mesh.node.presence import Presence

__all__ = ["one_a_peer", "responders"]


def responders(engine: Engine, presence: Presence, topic: str, to: Peer | str | None) -> tuple[Member, ...]:
    """Those on ``topic``, of one peer alone if ``to`` names it.

    Raises ``NoResponders``, ``TopicError``, ``NotAuthorized``, ``UnknownPeer``.
    """
    engine.access.check("request", check_topic(topic))
    members = engine.router.responders(topic)
    if to is not None:
        node = presence.resolve(to)
        members = tuple(member for member in members if member.peer == node)
    if not members:
        raise NoResponders(topic)
    return members


def one_a_peer(engine: Engine, presence: Presence, topic: str) -> list[Member]:
    """One responder of each peer."""
    return list({member.peer: member for member in responders(engine, presence, topic, None)}.values())
