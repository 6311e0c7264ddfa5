"""Who is where: our own record, and everybody else's as we hear of them.

Ours: addresses → a signed record → introductions and peers.  Theirs: hints from discovery, records from
introductions, peers' own news and gossip → targets for the dialer, whose introductions begin links.
Gossip goes to each new peer and, now and then, to a random one, so that one common acquaintance is
enough for a full mesh.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import replace
from typing import Final

from mesh.config import Config
from mesh.core.addresses import choose_address
from mesh.core.effects import Effect, SendDirect
from mesh.core.handshake import Introduced, Introducer
from mesh.core.identity import NodeRecord, SigningKey, sign_record, verify_record
from mesh.core.introductions import Introductions
from mesh.core.links import Links
from mesh.core.membership import LivenessState
from mesh.core.messages import GossipMessage, RecordMessage
from mesh.core.session import Session
from mesh.core.types import (
    PROTOCOL_VERSIONS,
    Address,
    MeshId,
    NodeId,
    RandomBytes,
    Reason,
    RemoteProtocolError,
)

__all__ = ["Directory", "first_record"]

RECORD_LIFETIME: Final = 24 * 3600
"""Seconds for which a node record is valid; it is signed anew at half of it."""

_DOUBT: Final = 0.1  # seconds that a peer has to answer where an address went, before it is dialled anew
_PAIRS: Final = 32  # in one gossip message: about 24 KiB


class _Content(Container[NodeId | None]):
    """Who need not be dialled: ourselves, peers in good health, and those just being attached."""

    def __init__(self, own: NodeId, sessions: Mapping[NodeId, Session]) -> None:
        self._own = own
        self._sessions = sessions

    def __contains__(self, node: object) -> bool:
        session: Session | None = self._sessions.get(node)  # type: ignore[call-overload]
        if session is None:
            return node == self._own
        if session.joined:
            return session.liveness.state is not LivenessState.SUSPECT and not session.doubted
        return session.attach_tries == 0 and (session.link_open or session.expected)


def first_record(mesh: MeshId, link_key: bytes, name: str, now: float) -> NodeRecord:
    """The record of a node that begins now, and has no addresses yet."""
    return NodeRecord(
        mesh=mesh,
        link_key=link_key,
        name=name,
        incarnation=int(now * 1000),
        version=1,
        addresses=(),
        issued=int(now),
        expires=int(now) + RECORD_LIFETIME,
        versions=PROTOCOL_VERSIONS,
    )


class Directory:
    """The addresses of one node's world. ``clock`` is monotonic, ``now`` wall-clock seconds."""

    def __init__(
        self,
        config: Config,
        rng: RandomBytes,
        key: SigningKey,
        record: NodeRecord,
        introducer: Introducer,
        rejected: Callable[[Reason], None],
        effects: list[Effect],
    ) -> None:
        self._config = config
        self._rng = rng
        self._key = key
        self.record = record
        self._introducer = introducer
        self._rejected = rejected
        self._effects = effects
        self.introductions = Introductions(
            config, rng, record.node, introducer, self._introduced, effects, rejected
        )
        self._links: Links
        self._content: _Content
        self.gossip_at = float("inf")
        self._dial_known = float("inf")
        self._dial_known_for = (-1, -1)

    def connect(self, links: Links, challenge: Callable[[Session, float], None], clock: float) -> None:
        """Where introductions lead to; ``challenge`` is for peers that seem to have been replaced."""
        self._links = links
        self._challenge = challenge
        self._content = _Content(self.record.node, links.sessions)
        self.gossip_at = clock + self._config.gossip_interval

    # -- our own record ------------------------------------------------------------

    def set_addresses(self, addresses: Iterable[Address], clock: float, now: float) -> None:
        """Our addresses are now these: sign a new record and tell the peers.

        TCP does not tell that an address went: its connections fall silent for a quarter of an hour.
        So peers are asked, and dialled anew unless they answer at once. A new address is a new chance
        for all whom we could not reach.
        """
        before = set(map(_where, self.record.addresses))
        self._renew(tuple(addresses)[: self._config.limits.addresses_per_node], now)
        after = set(map(_where, self.record.addresses))
        if before - after:
            self._doubt_all(clock)
        if after - before:
            self.introductions.dialer.hurry(clock)

    def _doubt_all(self, clock: float) -> None:
        for session in list(self._links.sessions.values()):
            if session.joined:
                self._links.doubt(session, clock)
                self.redial(session, clock, within=_DOUBT)

    def resume(self, clock: float) -> None:
        """We were away for long: the others may have let us go, and the network may be another."""
        self._doubt_all(clock)
        self.introductions.dialer.hurry(clock)

    def _renew(self, addresses: tuple[Address, ...], now: float) -> None:
        self.record = replace(
            self.record,
            version=self.record.version + 1,
            addresses=addresses,
            issued=int(now),
            expires=int(now) + RECORD_LIFETIME,
        )
        self._introducer.record = sign_record(self._key, self.record)
        self._links.send_all([RecordMessage(self._introducer.record)])

    # -- others ----------------------------------------------------------------------

    def hint(self, node: NodeId | None, intros: Iterable[str], clock: float, *, permanent: bool) -> None:
        """Somebody may be reachable there."""
        if node is not None and (node == self.record.node or node in self._links.departed):
            return
        self.introductions.dialer.offer(node, intros, clock, permanent=permanent)
        self.dial_due(clock)

    def dial_due(self, clock: float) -> None:
        """Begin the dials that are due."""
        if self._dial_at() <= clock:
            self.introductions.dial_due(clock, self._content)

    def _dial_at(self) -> float:
        """When the next dial is due. Asked for at every step, and looked for when something has changed."""
        versions = (self.introductions.dialer.version, self._links.version)
        if versions != self._dial_known_for:
            self._dial_known_for = versions
            self._dial_known = self.introductions.dialer.deadline(self._content)
        return self._dial_known

    def unresolved(self) -> int:
        """How many that were hinted at have neither joined nor failed once."""
        sessions = self._links.sessions
        waiting = sum(1 for s in sessions.values() if not s.joined and s.attach_tries == 0)
        return waiting + self.introductions.unresolved({self.record.node, *sessions})

    def _introduced(self, who: Introduced, intro: str, host: str, clock: float) -> bool:
        node = who.record.node
        if node in self._links.departed:
            return False
        self._bury_ancestor(who, clock)
        if not self._links.introduce(who, intro, host, clock):
            return False
        if node != self.record.node:
            self.offer(who.record, clock, newest=True)
            if not intro and choose_address(who.record.addresses, host=host) is None:
                self.dial_due(clock)
            self.welcome(self._links.sessions[node])
        return True

    def _bury_ancestor(self, who: Introduced, clock: float) -> None:
        """A later process of the same member at all of the same addresses: the earlier one is dead.

        At all of them, because a single one may be another host's too, as on Docker's bridge. At other ports, it
        is only likely to be dead, and has to answer.
        """
        record = who.record
        for session in list(self._links.sessions.values()):
            other = session.introduced
            if (
                other.record.node != record.node
                and other.record.incarnation < record.incarnation
                and other.certificate.member == who.certificate.member
                and record.addresses
            ):
                if set(other.record.addresses) == set(record.addresses):
                    self._links.end(session, "restarted", clock, departed=True)
                elif other.record.name == record.name and _hosts(other.record) == _hosts(record):
                    self._challenge(session, clock)

    def offer(self, record: NodeRecord, clock: float, *, newest: bool = False) -> None:
        """A verified record: its addresses are worth a dial when its node is not a peer."""
        # A peer on this machine can be reached over loopback and Unix sockets; others cannot.
        ours = {_where(a) for a in self.record.addresses if not _local(a)}
        near = any(_where(a) in ours for a in record.addresses)
        only = all(map(_local, record.addresses))
        endpoints = [a.intro for a in record.addresses if near or only or not _local(a)]
        self.introductions.dialer.offer(record.node, endpoints, clock, fresh=False, whole=newest)

    def redial(self, session: Session, clock: float, within: float | None = None) -> None:
        """A peer is in trouble: another of its addresses may still work."""
        self.offer(session.introduced.record, clock)
        self.introductions.dialer.lost(session.node, clock, within)

    def heard_record(self, session: Session, encoded: bytes, clock: float, now: float) -> None:
        """A peer's own new record."""
        record = verify_record(encoded, session.introduced.certificate, now)
        if record.node != session.node:
            raise RemoteProtocolError(Reason.BAD_RECORD, "of another node")
        if record.version > session.introduced.record.version:
            both = (session.encoded[0], encoded)
            self._links.renew(session, session.introduced._replace(record=record, encoded=both), clock)
            self.offer(record, clock, newest=True)
            if session.doubted:
                self.redial(session, clock, within=_DOUBT)

    # -- gossip ------------------------------------------------------------------------

    def heard_gossip(self, message: GossipMessage, clock: float, now: float) -> None:
        """Others that a peer knows."""
        known = {session.encoded[1] for session in self._links.sessions.values()}
        for certificate, encoded in message.nodes:
            if encoded in known:
                continue
            try:
                who = self._introducer.judge(certificate, encoded, PROTOCOL_VERSIONS[1], now)
            except RemoteProtocolError as error:
                # Stale rather than hostile: what the gossiper heard may have expired since.
                self._rejected(error.reason)
                continue
            node = who.record.node
            known_here = node == self.record.node or node in self._links.sessions
            if not known_here and node not in self._links.departed:
                self.offer(who.record, clock)
        self.dial_due(clock)

    def welcome(self, newcomer: Session) -> None:
        """Tell a new peer of all others, as soon as there is a link both ways; once.

        That is behind our own Attach and before all else, so that it has heard of the others by the time
        it joins, and a program that opens a node through one peer finds the whole mesh.
        """
        if newcomer.welcomed or not newcomer.link_open or newcomer.theirs is None:
            return
        newcomer.welcomed = True
        # Also of those that are just being attached: of two that come at once, one hears of the other.
        sessions = self._links.sessions.values()
        others = [s.encoded for s in sessions if s.theirs is not None and s is not newcomer]
        for start in range(0, len(others), _PAIRS):
            self._tell(newcomer, others[start : start + _PAIRS])

    def _tell(self, listener: Session, pairs: list[tuple[bytes, bytes]]) -> None:
        self._effects.append(SendDirect(listener.node, GossipMessage([list(pair) for pair in pairs])))

    def timer(self, clock: float, now: float) -> None:
        """Renew our record, gossip, and forget whom nobody speaks of."""
        if now > (self.record.issued + self.record.expires) / 2:
            self._renew(self.record.addresses, now)
        if clock < self.gossip_at:
            return
        self.gossip_at = clock + self._config.gossip_interval
        joined = [s for s in self._links.sessions.values() if s.joined]
        self.introductions.dialer.expire(clock, [s.node for s in joined])
        if len(joined) > 1:
            order = int.from_bytes(self._rng(4), "big")
            listener = joined[order % len(joined)]
            start = (order // len(joined)) % len(joined)
            others = [s.encoded for s in joined[start:] + joined[:start] if s is not listener]
            self._tell(listener, others[:_PAIRS])

    def deadline(self) -> float:
        return min(self.introductions.deadline(), self._dial_at(), self.gossip_at)


def _where(address: Address) -> str:
    return address.intro.rpartition(":")[0]


def _hosts(record: NodeRecord) -> set[str]:
    return set(map(_where, record.addresses))


def _local(address: Address) -> bool:
    return address.intro.startswith(("ipc://", "tcp://127.", "tcp://[::1]", "tcp://localhost"))
