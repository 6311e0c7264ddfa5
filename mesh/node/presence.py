"""Who is there, as a program sees it: peers, their events, and round trips asked for.

The engine's ``PeerChanged`` → a fresh ``Peer`` snapshot → the ``peers`` mapping and every watcher.
``changed`` is a place to wait for the next step of anything here (and of the engine).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio
from trio.lowlevel import ParkingLot

from mesh.core.effects import PeerChange, PeerChanged
from mesh.core.engine import Engine
from mesh.core.membership import LivenessState
from mesh.core.router import LOCAL
from mesh.core.types import PROTOCOL_VERSIONS, NodeId
from mesh.errors import MeshError, PeerGone, ProtocolMismatch, RequestTimeout, UnknownPeer
from mesh.node.message import Peer, PeerEvent, PeerJoined, PeerLeft, PeerRecovered, PeerSuspected
from mesh.node.watch import Watch, Watches

__all__ = ["PeerWatch", "Presence"]

_EVENTS: Final[dict[PeerChange, type[PeerEvent]]] = {
    PeerChange.JOINED: PeerJoined,
    PeerChange.SUSPECTED: PeerSuspected,
    PeerChange.RECOVERED: PeerRecovered,
    PeerChange.LEFT: PeerLeft,
}


class PeerWatch(Watch[PeerEvent]):
    """Made by ``node.watch_peers``: an async iterator of events, beginning with those present.

    A watcher that does not read loses the oldest events; ``dropped`` counts them. It ends
    when the node closes.
    """

    async def __anext__(self) -> PeerEvent:
        return await super().__anext__()


class Presence:
    """The peers of one node. ``left`` is called with each that goes."""

    def __init__(self, engine: Engine, own: Peer, left: Callable[[NodeId, Peer], None]) -> None:
        self._engine = engine
        self._left = left
        self.own = own
        self.peers: dict[NodeId, Peer] = {}
        self.changed = ParkingLot()
        self._watches: Watches[PeerEvent] = Watches()
        self._pings: dict[tuple[NodeId, int], trio.Event] = {}

    def watch(self) -> PeerWatch:
        watcher = PeerWatch([PeerJoined(peer, "present") for peer in self.peers.values()])
        self._watches.add(watcher)
        return watcher

    def close(self) -> None:
        """Nobody waits any longer."""
        self._watches.end()
        for arrived in self._pings.values():
            arrived.set()
        self.changed.unpark_all()

    def now(self) -> dict[str, Peer]:
        """The peers by id, with the addresses and round trips that are known by now."""
        for node in self.peers:
            if node in self._engine.links.sessions:
                self.peers[node] = self._snapshot(node)
        return {peer.id: peer for peer in self.peers.values()}

    def peer(self, node: NodeId) -> Peer:
        """A peer as it is now, or as much as is known of one that is not (or no longer) there."""
        if node == LOCAL:
            return self.own
        known = self.peers.get(node)
        if known is not None:
            return known
        if node in self._engine.links.sessions:
            # Its first messages may be quicker than the last step of its joining.
            return self._snapshot(node)
        return Peer(node.hex(), "", "", (), "left", None)

    def resolve(self, peer: Peer | str) -> NodeId:
        """A ``Peer``, an id or a name → the node. Raises ``UnknownPeer``, ``PeerGone``, ``ProtocolMismatch``."""
        wanted = peer.id if isinstance(peer, Peer) else peer
        named = []
        for node, known in self.peers.items():
            if known.id == wanted:
                return node
            if known.name == wanted:
                named.append(node)
        if len(named) == 1:
            return named[0]
        if named:
            raise UnknownPeer(wanted, "several peers have this name, use an id")
        if isinstance(peer, Peer):
            raise PeerGone(peer.id, peer.name)
        for node, theirs in self._engine.introductions.mismatched.items():
            if node.hex() == wanted:
                raise ProtocolMismatch(PROTOCOL_VERSIONS, theirs, wanted)
        raise UnknownPeer(wanted)

    def _snapshot(self, node: NodeId) -> Peer:
        session = self._engine.links.sessions[node]
        introduced = session.introduced
        return Peer(
            node.hex(),
            session.name,
            introduced.certificate.name,
            tuple(address.intro for address in introduced.record.addresses),
            "suspect" if session.liveness.state is LivenessState.SUSPECT else "alive",
            session.rtt,
        )

    def peer_changed(self, change: PeerChanged) -> None:
        """The engine's news."""
        node = change.peer
        if change.change is PeerChange.LEFT:
            known = self.peers.pop(node, None)
            if known is None:
                return
            peer = Peer(known.id, known.name, known.member, known.endpoints, "left", known.rtt)
            self._left(node, peer)
            for (who, _), arrived in self._pings.items():
                if who == node:
                    arrived.set()
        elif node in self._engine.links.sessions:
            peer = self.peers[node] = self._snapshot(node)
        else:
            return  # it has left in the same step, which is the next change told here
        self._watches.feed(_EVENTS[change.change](peer, change.why))

    # -- round trips ---------------------------------------------------------------

    async def ping(
        self, node: NodeId, timeout: float, apply: Callable[[], None], closed: Callable[[], MeshError | None]
    ) -> float:
        """Seconds to the peer and back. Raises ``PeerGone``, ``RequestTimeout``, ``NodeClosed``."""
        began = trio.current_time()
        arrived = trio.Event()
        key = (node, self._engine.ping(node, began))
        self._pings[key] = arrived
        apply()
        try:
            with trio.move_on_after(timeout):
                await arrived.wait()
                took = trio.current_time() - began
                refusal = closed()
                if refusal is not None:
                    raise refusal
                if node not in self.peers:
                    raise PeerGone(node.hex())
                return took
        finally:
            del self._pings[key]
        raise RequestTimeout(f"ping {self.peer(node).name or node.hex()}", timeout)

    def ponged(self, node: NodeId, token: int, rtt: float | None) -> None:
        """An answer to a ping, ours or the engine's own probe."""
        if node in self.peers:
            self.peers[node] = self._snapshot(node)
        arrived = self._pings.get((node, token))
        if arrived is not None:
            arrived.set()
