"""What commands can ask of a running daemon, over its control socket (``control``).

status                              name, id, process, mesh, endpoints, peers, counters
top {interval}                      what the node counted, again and again (``top``)
peers · watch                       the peers now · each change of them
members                             of the mesh, as this home knows them
invite {uses, lifetime, roles}      a token that names this daemon's endpoints
revoke {member}                     cut a member off, here and at every peer at once
ca · unlock {passphrase} · lock     whether a wrapped CA key can be used here; give it its passphrase; forget it
ping {peer, timeout}                a round trip in seconds
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from mesh.core.fields import check_endpoint
from mesh.core.token import MAX_HINTS, encode_token
from mesh.daemon.top import snapshot
from mesh.discovery.endpoints import is_local
from mesh.errors import ConfigError
from mesh.home import CaLocked, Custody
from mesh.node.message import Peer, PeerEvent, PeerJoined, PeerLeft, PeerRecovered, PeerSuspected

if TYPE_CHECKING:
    import mesh
    from mesh.daemon.control import Operation, Stream
    from mesh.home import Home, Member

__all__ = ["Operations", "control_socket", "event_fields", "hints", "member_fields", "peer_fields"]

_log = logging.getLogger(__name__)

_LEAST_INTERVAL: Final = 0.1  # s between two snapshots: each looks at every topic

_CHANGES: Final[dict[type[PeerEvent], str]] = {
    PeerJoined: "joined",
    PeerSuspected: "suspected",
    PeerRecovered: "recovered",
    PeerLeft: "left",
}


def control_socket(home: Home) -> Path:
    """Where the daemon of this home is asked."""
    return home.path / "daemon.sock"


def peer_fields(peer: Peer) -> dict[str, Any]:
    """A peer as ``mesh peers --json`` shows it."""
    return {
        "id": peer.id,
        "name": peer.name,
        "member": peer.member,
        "endpoints": list(peer.endpoints),
        "state": peer.state,
        "rtt": peer.rtt,
    }


def event_fields(event: PeerEvent) -> dict[str, Any]:
    """A change as ``mesh peers --watch --json`` shows it."""
    return {"change": _CHANGES[type(event)], "why": event.why, "peer": peer_fields(event.peer)}


def member_fields(member: Member) -> dict[str, Any]:
    """A member as ``mesh members --json`` shows it."""
    return {
        "id": member.id.hex(),
        "name": member.name,
        "roles": list(member.roles),
        "expires": member.expires,
        "revoked": member.revoked,
    }


def hints(endpoints: tuple[str, ...]) -> tuple[str, ...]:
    """The endpoints that a token can name: those that mean something on another machine, if there are any."""
    tcp = [
        each
        for each in endpoints
        if each.startswith("tcp://") and "%" not in each and not check_endpoint(each)
    ]
    outside = [each for each in tcp if not is_local(each)]
    return tuple((outside or tcp)[:MAX_HINTS])


class Operations:
    """The operations of one daemon; each takes the request's fields and gives what JSON can carry."""

    def __init__(self, node: mesh.Node, home: Home) -> None:
        self._node = node
        self._home = home

    def single(self) -> dict[str, Operation]:
        return {
            "status": self.status,
            "peers": self.peers,
            "members": self.members,
            "invite": self.invite,
            "revoke": self.revoke,
            "ca": self.ca,
            "unlock": self.unlock,
            "lock": self.lock,
            "ping": self.ping,
        }

    def streams(self) -> dict[str, Stream]:
        return {"watch": self.watch, "top": self.top}

    async def status(self, _: Mapping[str, Any]) -> Any:
        node = self._node
        credentials = self._home.credentials(create=False)
        statistics = node.statistics()
        return {
            "name": node.name,
            "id": node.id,
            "pid": os.getpid(),
            "mesh": credentials.mesh.hex(),
            "mesh_name": credentials.mesh_name,
            "member": credentials.certificate.name,
            "endpoints": list(node.endpoints),
            "peers": [peer_fields(peer) for peer in node.peers.values()],
            "discovery": [asdict(status) for status in node.discovery_status.values()],
            "refusals": dict(node.refusals),
            "bridges": [bridge.plain() for bridge in statistics.bridges.values()],
            "denials": [[*denied, rule] for denied, rule in statistics.denied.items()],
            "counters": {
                key: getattr(statistics, key)
                for key in ("published", "received", "delivered", "lost", "dropped", "repaired", "rejected")
            },
        }

    async def peers(self, _: Mapping[str, Any]) -> Any:
        return [peer_fields(peer) for peer in self._node.peers.values()]

    async def watch(self, _: Mapping[str, Any]) -> AsyncIterator[Any]:
        async for event in self._node.watch_peers():
            yield event_fields(event)

    async def top(self, request: Mapping[str, Any]) -> AsyncIterator[Any]:
        interval = max(_LEAST_INTERVAL, _number(request, "interval"))
        while True:
            yield snapshot(self._node)
            await trio.sleep(interval)

    async def members(self, _: Mapping[str, Any]) -> Any:
        return [member_fields(member) for member in self._home.members()]

    async def invite(self, request: Mapping[str, Any]) -> Any:
        if self._home.custodian.locked:
            raise CaLocked  # rather than a token that nobody could use
        uses, lifetime = _number(request, "uses"), _number(request, "lifetime")
        invitation = self._home.invite(
            uses=int(uses),
            lifetime=float(lifetime),
            roles=_texts(request, "roles"),
            endpoints=hints(self._node.endpoints),
        )
        return {"token": encode_token(invitation)}

    async def revoke(self, request: Mapping[str, Any]) -> Any:
        """``id``, ``name``, and ``told``: how many peers were sent the new list."""
        member = self._home.find_member(_text(request, "member"))
        credentials = await trio.to_thread.run_sync(self._home.revoke, member.id)
        self._node.credentials.adopt_revocations(credentials.revocations_bytes, credentials.secret)
        return {"id": member.id.hex(), "name": member.name, "told": len(self._node.peers)}

    async def ca(self, _: Mapping[str, Any]) -> Any:
        """Whether this process can use the CA key."""
        return {"locked": self._home.custodian.locked}

    async def unlock(self, request: Mapping[str, Any]) -> Any:
        passphrase = _text(request, "passphrase")
        await trio.to_thread.run_sync(Custody(self._home).unlock, passphrase)
        _log.info("the CA key is unlocked")
        return await self.ca(request)

    async def lock(self, request: Mapping[str, Any]) -> Any:
        Custody(self._home).lock()
        _log.info("the CA key is forgotten, if it is a wrapped one")
        return await self.ca(request)

    async def ping(self, request: Mapping[str, Any]) -> Any:
        return await self._node.ping(_text(request, "peer"), timeout=_number(request, "timeout"))


def _text(request: Mapping[str, Any], key: str) -> str:
    value = request.get(key)
    if not isinstance(value, str):
        raise ConfigError("expected text", key=key)
    return value


def _texts(request: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = request.get(key, [])
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ConfigError("expected a list of texts", key=key)
    return tuple(value)


def _number(request: Mapping[str, Any], key: str) -> float:
    value = request.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError("expected a number", key=key)
    return value
