"""Peers and their changes, as clients see them: the same members as ``mesh peers --json`` has."""

from __future__ import annotations

from typing import Any, Final

import mesh

__all__ = ["event_fields", "peer_fields"]

_CHANGES: Final[dict[type[mesh.PeerEvent], str]] = {
    mesh.PeerJoined: "joined",
    mesh.PeerSuspected: "suspected",
    mesh.PeerRecovered: "recovered",
    mesh.PeerLeft: "left",
}


def peer_fields(peer: mesh.Peer) -> dict[str, Any]:
    return {
        "id": peer.id,
        "name": peer.name,
        "member": peer.member,
        "endpoints": list(peer.endpoints),
        "state": peer.state,
        "rtt": peer.rtt,
    }


def event_fields(event: mesh.PeerEvent) -> dict[str, Any]:
    return {"change": _CHANGES[type(event)], "peer": peer_fields(event.peer)}
