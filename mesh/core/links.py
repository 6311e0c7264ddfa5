"""The direct plane: from an introduction to a live peer, and from there to its departure.

introduced → Allow, OpenLink, Attach … (``session`` draws it) → interests exchanged, barrier seen →
JOINED.  Then: any frame is a keepalive, silence is probed (``membership``), interests travel as
versioned changes and are compared by digest with every ping, known peers are told
to each other.  Gone, goodbye, or too many bad frames → everything of the peer is taken back, LEFT.

``Links`` owns the sessions; what a peer's frames ask for beyond this plane goes up to the engine
as return values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from mesh.config import Config
from mesh.core.addresses import choose_address
from mesh.core.effects import (
    AdmitBroadcast,
    Allow,
    CloseLink,
    ConnectBroadcast,
    CutSubscriber,
    Disallow,
    DisconnectBroadcast,
    DismissBroadcast,
    Effect,
    Incident,
    OpenLink,
    PeerChange,
    PeerChanged,
    SendDirect,
)
from mesh.core.farewell import Farewell
from mesh.core.handshake import Introduced
from mesh.core.interest import InterestSet
from mesh.core.membership import Action, Liveness, LivenessState, LocalHealth, Timing
from mesh.core.messages import AttachMessage, GoodbyeMessage, InterestsWantedMessage, PingMessage, PongMessage
from mesh.core.router import SUBSCRIPTION
from mesh.core.session import Session
from mesh.core.strikes import BACKOFF, Strikes
from mesh.core.types import Address, NodeId, RandomBytes, Reason

__all__ = ["Attached", "Links"]

_ANY_TOKEN: Final = 1 << 64
"""Later than the epoch of any token."""
_DEPARTED: Final = 1024  # tombstones: node ids that said goodbye, so that gossip does not dial them again


class Attached(NamedTuple):
    """What an Attach changed: a new session of the peer (or, within it, a new token), our subscriber
    connected to it."""

    new: bool
    rekeyed: bool
    connected: bool


class Links:
    """Every peer's session. ``clock`` is monotonic seconds."""

    def __init__(
        self,
        config: Config,
        rng: RandomBytes,
        own: NodeId,
        interests: InterestSet,
        attach_messages: Callable[[Session], list[Any]],
        ended: Callable[[Session], None],
        effects: list[Effect],
    ) -> None:
        self._config = config
        self._rng = rng
        self._own = own
        self._interests = interests
        self._attach_messages = attach_messages
        self._ended = ended
        self._effects = effects
        self._timing = Timing(config.probe_after, config.probe_timeout, config.gone_after)
        self.health = LocalHealth(config.probe_timeout)
        self.sessions: dict[NodeId, Session] = {}
        self.departed: dict[NodeId, None] = {}
        self.banned: dict[NodeId, float] = {}
        self.version = 0  # goes up whenever it may have changed who is to be dialled
        self._next_token = 1

    # -- beginning -------------------------------------------------------------

    def introduce(self, who: Introduced, intro: str, host: str, clock: float) -> bool:
        """Somebody was introduced. False: no room, or not wanted now."""
        self.version += 1
        node = who.record.node
        if node == self._own:
            return True
        if self.banned.get(node, 0) > clock:
            return False
        session = self.sessions.get(node)
        if session is None:
            if not self._room_for(who):
                return False
            session = Session(who, Liveness(self._timing, clock), self._config.limits.subscriptions_per_peer)
            session.attach_deadline = clock + self._config.attach_timeout
            self.sessions[node] = session
            self._effects.append(Allow(node, who.record.link_key))
        elif who.record.version >= session.introduced.record.version:
            self.renew(session, who, clock)
        if intro:
            address = choose_address(who.record.addresses, intro=intro)
            dead = session.doubted or session.liveness.state is LivenessState.SUSPECT
            if address is not None and (dead or not session.link_open):
                self._open(session, address, clock)
        elif not session.joined:
            session.expected = choose_address(who.record.addresses, host=host) is not None
        return True

    def _room_for(self, who: Introduced) -> bool:
        limits, key = self._config.limits, who.certificate.public_key
        of_it = sum(each.introduced.certificate.public_key == key for each in self.sessions.values())
        return len(self.sessions) < limits.peers and of_it < limits.nodes_per_member

    def renew(self, session: Session, who: Introduced, clock: float) -> None:
        """The peer's newest record. An address that we use and that is gone from it is worth a doubt."""
        gone = session.introduced.record.addresses
        session.introduced = who
        session.encoded = who.encoded
        if session.address in gone and session.address not in who.record.addresses:
            session.address = None
            if session.joined:
                self.doubt(session, clock)

    def doubt(self, session: Session, clock: float) -> None:
        """Our link to it may be dead, though neither end was told: an address at one of them went."""
        self.version += 1
        session.doubted = self.ping(session, clock)

    def _open(self, session: Session, address: Address, clock: float) -> None:
        self.version += 1
        session.doubted = 0
        session.address = address
        session.begin_link(self._rng(8))
        session.attach_deadline = clock + self._config.attach_timeout
        self._effects.append(OpenLink(session.node, session.introduced.record.link_key, address.direct))
        self.attach(session)
        self.tell_interests(session)

    def attach(self, session: Session) -> None:
        """Our first word on a link, or again what changed of it since."""
        self._effects += [SendDirect(session.node, message) for message in self._attach_messages(session)]
        session.answered_theirs = session.theirs

    def heard_attach(self, session: Session, message: AttachMessage, clock: float) -> Attached:
        """The peer's word on its own link to us."""
        self.version += 1
        forgot = session.theirs is not None and session.answered
        new, rekeyed = session.heard_attach(message)
        if new and forgot:
            # It forgot us (it gave us up, or reopened its link): so does our side of the link.
            session.link_open = False
        if not session.link_open:
            addresses = session.introduced.record.addresses
            # Where its own link comes from it is now; it may have moved since we opened ours.
            address = choose_address(addresses, host=session.host) if session.host else session.address
            address = address or session.address or choose_address(addresses)
            if address is not None:
                self._open(session, address, clock)
            # else dialling its intro endpoints will find one that works
        elif session.must_answer(message):
            self.attach(session)
        if session.host:
            self._effects.append(AdmitBroadcast(session.host))
        if new and session.broadcast_connected:
            session.broadcast_connected = False
            self._effects.append(DisconnectBroadcast(session.node))
        # Not before it has answered: then it holds our token, and refuses none of our subscriptions.
        connected = session.rekeying is None and self.reconnect_broadcast(session)
        return Attached(new, rekeyed, connected)

    def reconnect_broadcast(self, session: Session) -> bool:
        """It has our new token: subscribe afresh."""
        session.rekeying = None
        if not session.answered or session.broadcast_connected or session.address is None:
            return False
        session.broadcast_connected = True
        self._effects.append(ConnectBroadcast(session.node, session.address.broadcast))
        return True

    def progress(self, session: Session, clock: float, *, without_broadcast: bool = False) -> bool:
        """Has it joined with this step? Then say so. True if it did."""
        self.version += 1
        if not session.attached or (session.live < 0 and not without_broadcast):
            return False
        session.attach_deadline = float("inf")
        session.attach_tries = 0
        if session.joined:
            return False  # its link was opened anew; nobody else noticed
        session.joined = True
        session.liveness = Liveness(self._timing, clock)
        self._effects.append(PeerChanged(session.node, PeerChange.JOINED, "introduced and attached"))
        return True

    # -- keeping ---------------------------------------------------------------

    def heard(self, session: Session, clock: float) -> None:
        """Something authentic arrived from it."""
        if session.farewell is not None:
            self.version += 1
            session.farewell.heard(clock)
        session.replaced = False
        if session.liveness.heard(clock) and session.joined:
            self.version += 1
            self._effects.append(PeerChanged(session.node, PeerChange.RECOVERED, "heard again"))

    def tell_interests(self, session: Session) -> None:
        """Tell a peer all of our interests."""
        self._effects += [SendDirect(session.node, page) for page in self._interests.snapshot()]

    def ping(self, session: Session, clock: float) -> int:
        """Ask it; the token that its answer will carry."""
        token = self._next_token
        self._next_token += 1
        if len(session.probe_sent) >= 64:  # answers that never came
            session.probe_sent.pop(next(iter(session.probe_sent)))
        session.probe_sent[token] = clock
        self._effects.append(
            SendDirect(session.node, PingMessage(token, self._interests.version, self._interests.digest()))
        )
        return token

    def heard_ping(self, session: Session, message: PingMessage, load: int) -> None:
        pong = PongMessage(message.token, self._interests.version, self._interests.digest(), load)
        self._effects.append(SendDirect(session.node, pong))
        self._compare(session, message)

    def heard_pong(self, session: Session, message: PongMessage, clock: float) -> float | None:
        """The round trip in seconds, if we asked."""
        session.load = message.load
        self._compare(session, message)
        sent = session.probe_sent.pop(message.token, None)
        if sent is None:
            return None
        if 0 < session.doubted <= message.token:
            self.version += 1
            session.doubted = 0
        rtt = clock - sent
        # Smoothed as TCP does it (RFC 6298, alpha = 1/8).
        session.rtt = rtt if session.rtt is None else session.rtt + (rtt - session.rtt) / 8
        return rtt

    def _compare(self, session: Session, message: PingMessage | PongMessage) -> None:
        known = session.interests
        if session.theirs is None:
            return
        if known.version < message.interests or (
            known.version == message.interests and known.digest() != message.digest
        ):
            self._effects.append(SendDirect(session.node, InterestsWantedMessage(known.version)))

    def timer(
        self, clock: float, redial: Callable[[Session], None], ask_others: Callable[[Session], None]
    ) -> None:
        """Everything that is due for any peer."""
        if clock < self.deadline():
            return
        for session in list(self.sessions.values()):
            if session.farewell is not None and session.farewell.due <= clock:
                self.version += 1
                if session.farewell.over(clock):
                    self._left(session, clock)
                continue
            if session.attach_deadline <= clock:
                self._attach_late(session, clock, redial)
            if session.node not in self.sessions or not session.joined:
                continue
            action = session.liveness.poll(clock, self._config.probe_early, self.health.stretch(clock))
            if action is Action.PROBE:
                self.ping(session, clock)
            elif action is Action.ASK:
                self.ping(session, clock)
                ask_others(session)
            elif action is Action.ACCUSE and session.replaced:
                self.end(session, "restarted", clock)
            elif action is Action.ACCUSE:
                self.version += 1
                self.ping(session, clock)
                ask_others(session)
                self._effects.append(
                    PeerChanged(session.node, PeerChange.SUSPECTED, "silent, and a probe is unanswered")
                )
                redial(session)  # another of its addresses may still work
            elif action is Action.BURY:
                self.end(session, "silent for too long", clock)

    def _attach_late(self, session: Session, clock: float, redial: Callable[[Session], None]) -> None:
        self.version += 1
        session.attach_tries += 1
        if session.attached:
            if session.attach_tries < 3:  # its barrier is repeated until it arrives
                session.attach_deadline = clock + self._config.attach_timeout
                return
            self.progress(session, clock, without_broadcast=True)
            self._effects.append(
                Incident(
                    "broadcast path not proven",
                    f"{session.name}: no barrier of it arrived; published messages may not reach it",
                )
            )
        elif session.attach_tries >= 4:
            self.end(session, "it never attached", clock)
        elif session.address is not None and session.link_open:
            self._open(session, session.address, clock)
        else:
            session.attach_deadline = clock + self._config.attach_timeout
            redial(session)

    def deadline(self) -> float:
        soonest = float("inf")
        for session in self.sessions.values():
            if session.attach_deadline < soonest:
                soonest = session.attach_deadline
            if session.farewell is not None and session.farewell.due < soonest:
                soonest = session.farewell.due
            if session.joined:
                due = session.liveness.due
                if due < soonest:
                    soonest = due
        return soonest

    # -- ending ----------------------------------------------------------------

    def strike(self, session: Session, reason: Reason, clock: float) -> None:
        """A bad frame of an authenticated peer."""
        policy = session.strikes.add(reason, clock)
        if policy is None:
            return
        self._effects.append(Incident("peer cut off", f"{session.name}: {reason.value}"))
        self.ban(session.node, clock, BACKOFF)
        self._effects.append(SendDirect(session.node, GoodbyeMessage(False, f"cut off: {reason.value}")))
        session.strikes = Strikes()
        self.cut_off(session, f"cut off: {reason.value}", clock)

    def cut_off(self, session: Session, why: str, clock: float, *, for_good: bool = False) -> None:
        """End it and whatever it has connected to us. ``for_good``: this node is not met again."""
        self.end(session, why, clock, departed=for_good)
        self._effects.append(CutSubscriber(session.node, _ANY_TOKEN))

    def ban(self, node: NodeId, clock: float, seconds: float) -> None:
        """Do not let it in again for a while."""
        self.banned = {who: until for who, until in self.banned.items() if until > clock}
        self.banned[node] = clock + seconds

    def say_farewell(self, session: Session, clock: float) -> None:
        """It leaves, as soon as its last publications have arrived."""
        if session.finished:
            self._left(session, clock)
        elif session.farewell is None:
            self.version += 1
            listening = any(each.kind == SUBSCRIPTION and not each.group for each in self._interests)
            session.farewell = Farewell(clock, awaited=listening and session.confirmed >= 0)

    def heard_last(self, session: Session, clock: float) -> None:
        """All that it published has arrived. Its goodbye, which goes another way, is here or on its way."""
        session.finished = True
        if session.farewell is not None:
            self._left(session, clock)

    def _left(self, session: Session, clock: float) -> None:
        self.end(session, "said goodbye", clock, departed=True)

    def end(self, session: Session, why: str, clock: float, *, departed: bool = False) -> None:
        """Take back everything of the peer."""
        self.version += 1
        node = session.node
        self.sessions.pop(node, None)
        if departed:
            self.departed[node] = None
            while len(self.departed) > _DEPARTED:
                self.departed.pop(next(iter(self.departed)))
        self._effects.append(Disallow(node))
        self._effects.append(CloseLink(node))
        self._effects.append(DisconnectBroadcast(node))
        if session.host and all(session.host != other.host for other in self.sessions.values()):
            self._effects.append(DismissBroadcast(session.host))
        self._ended(session)
        if session.joined:
            session.joined = False
            self._effects.append(PeerChanged(node, PeerChange.LEFT, why))

    def send_all(self, messages: Iterable[Any]) -> None:
        """To every peer with a link, but for those that are leaving: nobody is there to take it."""
        some = list(messages)
        for session in self.sessions.values():
            if session.link_open and session.farewell is None:
                self._effects += [SendDirect(session.node, message) for message in some]
