"""Who may connect: a strict ZAP handler (ZMQ RFC 27) for one node's context.

A connection's handshake → libzmq's request on ``inproc://zeromq.zap.01`` → the rule of its
domain → the reply, in which the direct plane's keys become User-Ids.

| domain    | mechanism | let in                                        | otherwise     |
|-----------|-----------|-----------------------------------------------|---------------|
| intro     | CURVE     | any key, at a bounded rate                    | 300 (retry)   |
| direct    | CURVE     | allowed link keys; User-Id = node id in hex   | 400           |
| broadcast | NULL      | admitted addresses; own Unix peers            | 300 (retry)   |
| any other | any       | nobody                                        | 400           |

A 400 reaches the peer as an error and ends its libzmq's tries; a 300 closes the connection without a word
and it tries again later, which is right where the "no" is of the moment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import trio
import zmq

from mesh.config import Limits
from mesh.core.pace import TokenBucket
from mesh.core.types import NodeId
from mesh.transport.base import TransportEvents
from mesh.transport.endpoints import is_own_unix_peer, peer_host, without_zone
from mesh.transport.zmqsocket import ZmqSocket

__all__ = ["BROADCAST", "DIRECT", "INTRO", "Gate"]

INTRO: Final = b"intro"
DIRECT: Final = b"direct"
BROADCAST: Final = b"broadcast"

_ENDPOINT: Final = "inproc://zeromq.zap.01"
_BURST: Final = 64
_SHUT: Final = 256  # addresses remembered
_FIELDS: Final = 8  # routing id, empty, version, request id, domain, address, identity, mechanism


class Gate:
    """The ZAP handler and its lists. ``run`` it before anything else can get in."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._keys: dict[bytes, NodeId] = {}
        self._key_of: dict[NodeId, bytes] = {}
        self._ids: dict[str, NodeId] = {}
        self._hosts: dict[str, None] = {}
        self._host_of: dict[NodeId, str] = {}  # where an allowed peer's latest link came from
        self._shut: dict[str, float] = {}  # addresses that may not subscribe until then
        self._probe: tuple[bytes, Callable[[], None]] | None = None

    # -- the lists -------------------------------------------------------------

    def allow(self, peer: NodeId, link_key: bytes) -> None:
        """Let this key in on the direct plane, as ``peer``; it replaces the peer's earlier key."""
        self.disallow(peer)
        self._keys[link_key] = peer
        self._key_of[peer] = link_key
        self._ids[peer.hex()] = peer

    def disallow(self, peer: NodeId) -> None:
        """Take the peer's key off the list."""
        key = self._key_of.pop(peer, None)
        self._host_of.pop(peer, None)
        if key is not None:
            del self._keys[key], self._ids[peer.hex()]

    def owner(self, user_id: str) -> NodeId | None:
        """The allowed peer whose User-Id this is."""
        return self._ids.get(user_id)

    def is_allowed(self, peer: NodeId) -> bool:
        """Whether the peer's key is on the list."""
        return peer in self._key_of

    def peers_at(self, host: str) -> int:
        """How many allowed peers' links come from this address."""
        return sum(where == host for where in self._host_of.values())

    def admit(self, host: str) -> None:
        """Let this address in on the broadcast plane; the one admitted longest ago makes room."""
        host = without_zone(host)
        self._hosts.pop(host, None)
        self._hosts[host] = None
        if len(self._hosts) > 2 * self._limits.peers:  # each peer once, and where it was before
            del self._hosts[next(iter(self._hosts))]

    def dismiss(self, host: str) -> None:
        """Let nobody else in from this address."""
        self._hosts.pop(without_zone(host), None)

    def shut(self, host: str, until: float) -> None:
        """Let no new connection in from this address on the broadcast plane before ``until`` (monotonic seconds)."""
        if len(self._shut) >= _SHUT:
            self._shut.clear()
        self._shut[without_zone(host)] = until

    def expect_probe(self, key: bytes, refused: Callable[[], None]) -> None:
        """Refuse ``key`` without counting it, and tell (the self-test)."""
        self._probe = key, refused

    # -- the handler -----------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def run(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        events: TransportEvents,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Answer until cancelled. ``started`` is called once the handler is bound."""
        raw: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
        raw.setsockopt(zmq.LINGER, 0)
        zap = ZmqSocket(raw)
        intro_rate = TokenBucket(self._limits.handshakes_per_second, trio.current_time())

        def drain() -> bool:
            for _ in range(_BURST):
                try:
                    request = raw.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    return False
                if len(request) >= _FIELDS:  # anything shorter cannot be answered
                    status, text, user_id = self._judge(request[1:], events, intro_rate)
                    zap.send([request[0], b"", b"1.0", request[3], status, text, user_id, b""])
            return True

        try:
            raw.bind(_ENDPOINT)
            task_status.started()
            await zap.pump(drain)
        finally:
            zap.close()

    def _judge(
        self, request: Sequence[bytes], events: TransportEvents, intro_rate: TokenBucket
    ) -> tuple[bytes, bytes, bytes]:
        """(status code, text, User-Id) for one request."""
        _, version, _, domain, address, _, mechanism, *credentials = request
        where = address.decode("ascii", errors="replace")
        plane = domain.decode() if domain in (INTRO, DIRECT, BROADCAST) else "unknown"
        curve = mechanism == b"CURVE" and len(credentials) == 1 and len(credentials[0]) == 32
        if version != b"1.0":
            events.rejected(plane, "zap_version", 1)
            return b"400", b"unknown ZAP version", b""
        if domain == INTRO and curve:
            if intro_rate.take(trio.current_time()):
                return b"200", b"OK", b""
            events.rejected(plane, "rate", 1)
            return b"300", b"too many handshakes", b""
        if domain == DIRECT and curve:
            peer = self._keys.get(credentials[0])
            if peer is not None:
                self._host_of[peer] = without_zone(peer_host(where))
                events.direct_seen(peer, peer_host(where))
                return b"200", b"OK", peer.hex().encode()
            if self._probe is not None and self._probe[0] == credentials[0]:
                self._probe[1]()
            else:
                events.rejected(plane, "unknown_key", 1)
            return b"400", b"unknown key", b""
        if domain == BROADCAST and mechanism == b"NULL":
            host = without_zone(peer_host(where))
            if host and self._shut.get(host, 0.0) > trio.current_time():
                events.rejected(plane, "misbehaved", 1)
                return b"300", b"not now", b""
            if host in self._hosts or is_own_unix_peer(where):
                return b"200", b"OK", b""
            events.rejected(plane, "unknown_address", 1)
            return b"300", b"unknown address", b""
        events.rejected(plane, "mechanism", 1)
        return b"400", b"no such domain and mechanism", b""
