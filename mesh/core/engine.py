"""The whole protocol of one node, without a socket, a clock or a task.

Inputs are what the node saw: a hint, a frame of one of the three planes, a subscription
seen on the broadcast socket, the time.  Outputs are ``effects`` (``take_effects``), in order, for the
node to carry out at once, and, on the two paths that carry a program's messages, return values,
so that a batch passes through in one call:

    broadcast_received(tag, frame) → Delivery | None      a sealed batch, opened, decoded, accounted
    direct_received(peer, frame)   → message | None       a request, reply, directed batch …
What fills a hole late comes as ``Deliver`` effects, what never comes as ``Lost``.

The parts: ``directory`` (records, hints, gossip; under it the intro plane), ``links`` (direct plane), ``broadcast`` (sealing,
tags), ``subscriber`` (our interests, barriers), ``audience`` (theirs), ``receiver`` (sealed frames in),
``accounts`` (what of them is missing), ``outgoing`` (what we have published), ``windows`` (who is waited for), ``router`` (who wants
what).  This module only passes things between them.

``clock`` is monotonic seconds; ``now`` is wall-clock seconds since the Unix epoch,
which only certificates and timestamps need.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from mesh.config import Config
from mesh.core.access import Access
from mesh.core.accounts import Accounts
from mesh.core.audience import Audience, Subscribed
from mesh.core.broadcast import Broadcast
from mesh.core.codec import decode_direct
from mesh.core.directory import Directory, first_record
from mesh.core.dispatch import HANDLERS
from mesh.core.effects import Effect, Incident, SendDirect
from mesh.core.handshake import Introducer, Papers
from mesh.core.identity import NodeRecord, sign_record
from mesh.core.interest import InterestSet
from mesh.core.links import Links
from mesh.core.membership import LivenessState
from mesh.core.messages import (
    AttachMessage,
    GoodbyeMessage,
    InterestEntry,
    InterestsMessage,
    InterestsWantedMessage,
    KeyMessage,
    KeyWantedMessage,
    PartMessage,
    PongMessage,
    RepairedMessage,
)
from mesh.core.outgoing import Outgoing
from mesh.core.receiver import QUIET, Delivery, Receiver
from mesh.core.router import Router
from mesh.core.rules import Rules
from mesh.core.session import Session
from mesh.core.standing import Standing
from mesh.core.subscriber import Subscriber
from mesh.core.suspicion import Suspicion
from mesh.core.types import Address, NodeId, RandomBytes, Reason, RemoteProtocolError, node_id, printable
from mesh.core.windows import Windows

__all__ = ["Engine"]

SUSPENDED: Final = 5.0
"""Seconds by which the wall clock gains on the monotonic one, which on Linux stands still while a machine is suspended,
before that is taken for the reason. (Somebody setting the clock costs a few pings.)"""


class Engine:
    """The protocol state of one node."""

    def __init__(
        self,
        config: Config,
        papers: Papers,
        link_key: bytes,
        name: str,
        rng: RandomBytes,
        clock: float,
        now: float,
    ) -> None:
        self.config = config
        self.node = node_id(link_key)
        self.wall = now - clock
        self._effects: list[Effect] = []
        self.rejected: Counter[str] = Counter()
        record = first_record(papers.mesh, link_key, name, now)
        self._introducer = Introducer(
            papers.ca_public_key, papers.certificate, sign_record(papers.key, record), papers.revocations
        )
        self.directory = Directory(
            config, rng, papers.key, record, self._introducer, self._reject, self._effects
        )
        self.introductions = self.directory.introductions
        self._interests = InterestSet()
        self.router = Router()
        rules = Rules(config.rules or ())
        self.broadcast = Broadcast(self.node, config, rng, clock, papers.secret, papers.secret_epoch, rules)
        self.links = Links(
            config, rng, self.node, self._interests, self._attach_messages, self._ended, self._effects
        )
        self.suspicion = Suspicion(config, self.links, rng, self._effects)
        self.subscriber = Subscriber(self._interests, self.router, self.broadcast, self.links, self._effects)
        self.outgoing = Outgoing(config, self.broadcast, self.router, self._effects)
        self.audience = Audience(self.broadcast, self.links, self.outgoing, self._effects, self._reject)
        self.windows = Windows(config, self._effects, self.router, self.links.sessions, self.audience.is_live)
        self.accounts = Accounts(config, rng, self.links, self.router, self._effects, self._reject)
        self.access = Access(
            rules, lambda: self.standing.renewal.own, self.links, self._effects, self._reject
        )
        self.router.may = self.access.may if config.rules else None
        self.receiver = Receiver(
            config,
            self.broadcast,
            self.links,
            self.router,
            self.subscriber,
            self.accounts,
            self.access,
            self._effects,
            self.rejected_from,
            clock,
        )
        self.standing = Standing(
            papers.ca_public_key,
            papers.secret,
            papers.revocations_bytes,
            self._introducer,
            self.introductions.dialer,
            self.links,
            self.broadcast,
            self.subscriber,
            self._effects,
            self.router.forget_routes,
        )
        self.directory.connect(self.links, self.suspicion.challenge, clock)
        self._ticked = clock
        self.load: Callable[[], int] = lambda: 0  # requests in our handlers, told to those who ask
        self.pongs: list[tuple[NodeId, int, float | None]] = []  # (peer, token, seconds), for the node

    # -- effects ---------------------------------------------------------------

    def take_effects(self) -> list[Effect]:
        """Everything that is to be done now, in order; the list starts empty again."""
        if not self._effects:
            return []
        taken = self._effects[:]
        self._effects.clear()
        return taken

    def _reject(self, reason: Reason) -> None:
        self.rejected[reason.value] += 1

    # -- who we are ------------------------------------------------------------

    @property
    def record(self) -> NodeRecord:
        return self.directory.record

    def set_addresses(self, addresses: Sequence[Address], clock: float) -> None:
        """Our addresses are now these: sign a new record and tell the peers."""
        self.directory.set_addresses(addresses, clock, clock + self.wall)

    # -- discovery and the intro plane -------------------------------------------

    def hint(
        self, node: NodeId | None, intros: Iterable[str], clock: float, *, permanent: bool = False
    ) -> None:
        """Somebody may be reachable there."""
        self.directory.hint(node, intros, clock, permanent=permanent)

    def dial_answered(self, dial: int, frame: bytes, clock: float) -> None:
        self.introductions.answered(dial, frame, clock, clock + self.wall)

    def dial_failed(self, dial: int, reason: str, clock: float) -> None:
        self.introductions.dial_failed(dial, reason, clock)

    def stranger_received(self, route: int, frame: bytes, host: str, clock: float) -> None:
        self.introductions.stranger(route, frame, host, clock, clock + self.wall)

    # -- the direct plane ---------------------------------------------------------

    def direct_seen(self, peer: NodeId, host: str) -> None:
        """An allowed key's link came up, from ``host``."""
        session = self.links.sessions.get(peer)
        if session is not None:
            session.host = host

    def _attach_messages(self, session: Session) -> list[Any]:
        assert session.mine is not None
        keys = self.broadcast.announcements(session.introduced.certificate)
        attach = AttachMessage(
            session.mine,
            session.theirs,
            self.broadcast.token,
            self.broadcast.token_epoch,
            self.broadcast.secret_epoch,
            self.standing.version,
            self._interests.version,
            list(self.broadcast.announcement()),
        )
        return [attach, *(KeyMessage(list(key)) for key in keys)]

    def direct_received(self, peer: NodeId, frame: bytes, clock: float) -> Any:
        """One frame over a peer's link. What a program asked for is returned; the rest is done here."""
        session = self.links.sessions.get(peer)
        if session is None:
            self._reject(Reason.UNEXPECTED)
            return None
        try:
            if len(frame) > self.config.limits.frame_bytes + 4096:
                raise RemoteProtocolError(Reason.BAD_LENGTH)
            message = decode_direct(frame)
            if session.liveness.state is not LivenessState.ALIVE or clock - session.liveness.heard_at > QUIET:
                self.links.heard(session, clock)
            if type(message) is PartMessage and session.theirs is not None:
                message = self.accounts.parts.take(session.node, message, clock)
            handler = HANDLERS.get(type(message))
            if handler is None:
                if session.theirs is None:
                    # No strike: its link may be older than our knowledge of it. We gave it up and met it
                    # again, and what it had sent meanwhile arrives now, its new Attach behind it.
                    self._reject(Reason.UNEXPECTED)
                    return None
                return message
            if len(frame) > self.config.limits.control_bytes and type(message) is not RepairedMessage:
                raise RemoteProtocolError(Reason.BAD_LENGTH, "control message")
            handler(self, session, message, clock)
        except RemoteProtocolError as error:
            self.rejected_from(session, error.reason, clock)
        return None

    def rejected_from(self, session: Session | None, reason: Reason, clock: float) -> None:
        """A bad frame: counted, and if it is a known peer's, by the table it may end the link."""
        self._reject(reason)
        if session is not None and session.node in self.links.sessions:
            self.links.strike(session, reason, clock)

    def on_attach(self, session: Session, message: AttachMessage, clock: float) -> None:
        attached = self.links.heard_attach(session, message, clock)
        if attached.new:
            self.router.remove_peer(session.node)
            self.accounts.renewed(session.node, clock)
        if attached.new or attached.rekeyed:
            self.broadcast.forget_tags(session.node)
        self.standing.compare(session)
        self.receiver.add_key(session, message.key, clock)
        if not session.link_open:
            # Its own link came through an address its record does not list: find one we can dial.
            self.directory.offer(session.introduced.record, clock)
            self.directory.dial_due(clock)
        if attached.connected:
            self.subscriber.begin_barrier(clock)
        self.directory.welcome(session)
        self._progress(session, clock)

    def _progress(self, session: Session, clock: float) -> None:
        self.audience.answer_barriers(session, clock)
        if self.links.progress(session, clock):
            self.directory.welcome(session)

    def on_goodbye(self, session: Session, message: GoodbyeMessage, clock: float) -> None:
        if message.leaving:
            self.introductions.dialer.forget(session.node)
            self.router.remove_peer(session.node)  # it is asked and told nothing more
            self.links.say_farewell(session, clock)
        else:
            why = printable(message.text)
            self._effects.append(Incident("peer ended the link", f"{session.name}: {why}"))
            self.links.ban(session.node, clock, self.config.redial_max)
            self.links.end(session, why or "ended the link", clock)

    def on_pong(self, session: Session, message: PongMessage, clock: float) -> None:
        self.suspicion.answered(session, message.token)
        self.pongs.append((session.node, message.token, self.links.heard_pong(session, message, clock)))
        if session.rekeying == message.token and self.links.reconnect_broadcast(session):
            self.subscriber.begin_barrier(clock)

    def on_interests(self, session: Session, message: InterestsMessage, clock: float) -> None:
        change = session.interests.apply(message)
        if change is None:
            return
        if change.resync:
            self._effects.append(SendDirect(session.node, InterestsWantedMessage(session.interests.version)))
            return
        if change.removed:
            self.router.remove(session.node, change.removed)
        if change.added:
            self.router.add(session.node, change.added)
            self.access.look_at(session.node, change.added)
        self._progress(session, clock)

    def on_key_wanted(self, session: Session, message: KeyWantedMessage, clock: float) -> None:
        readable = self.broadcast.announcements(session.introduced.certificate)
        for ours in [self.broadcast.announcement(), *readable]:
            if message.key_id == ours.key_id:
                self._effects.append(SendDirect(session.node, KeyMessage(list(ours))))

    def on_credentials(self, session: Session, message: Any, clock: float) -> None:
        self.standing.heard(session, message, clock, clock + self.wall)

    # -- the broadcast plane --------------------------------------------------------

    def subscription_received(self, message: bytes) -> Subscribed:
        """A subscription seen on our broadcast socket."""
        return self.audience.subscription_received(message)

    def subscription_set(self, clock: float) -> None:
        """The verdicts given since the last call are carried out: answer the barriers among them."""
        for session in list(self.links.sessions.values()):
            self.outgoing.settle_for(session, clock)
            if session.barriers:
                self._progress(session, clock)

    def broadcast_received(self, tag: bytes, frame: bytes, clock: float) -> Delivery | None:
        """One sealed frame. None if it was not a batch for a program, or was rejected and counted."""
        return self.receiver.received(tag, frame, clock)

    # -- our interests --------------------------------------------------------------

    def add_interest(
        self, kind: str, pattern: str, clock: float, *, group: str = "", history: int = 0, mode: int = 0
    ) -> InterestEntry:
        """A subscription or responder of ours begins: tell everybody."""
        entry = self.subscriber.add(kind, pattern, clock, group=group, history=history, mode=mode)
        self.accounts.subscribed(entry, self.subscriber.version)
        return entry

    def remove_interest(self, entry: InterestEntry) -> None:
        """It ended."""
        self.subscriber.remove(entry)
        self.accounts.unsubscribed(entry)

    # -- leaving and peers -----------------------------------------------------------

    def say_goodbye(self, clock: float) -> None:
        """Tell every peer that this node leaves; after all that was published."""
        self.audience.say_last(clock)
        self.links.send_all([GoodbyeMessage(True, "")])

    def ping(self, peer: NodeId, clock: float) -> int:
        """Ask a peer; its token comes back in ``pongs``. The peer must have a session."""
        return self.links.ping(self.links.sessions[peer], clock)

    def _ended(self, session: Session) -> None:
        if session.node not in self.links.departed:
            self.introductions.dialer.lost(session.node, self._ticked)
        self.router.remove_peer(session.node)
        self.broadcast.forget(session.node)
        self.accounts.ended(session.node, self._ticked)
        self.subscriber.follow_scopes()
        self.subscriber.end_barrier_if_proven()

    # -- time ------------------------------------------------------------------------

    def handle_timer(self, clock: float, now: float) -> None:
        """Do what is due. ``now`` is the wall clock, which may have been set meanwhile."""
        slept = now - clock - self.wall
        self.wall = now - clock
        self._ticked = clock
        if slept > SUSPENDED:
            self.awoke(clock, slept)
        self.introductions.expire(clock)
        self.links.timer(clock, lambda session: self.directory.redial(session, clock), self.suspicion.ask)
        self.directory.dial_due(clock)
        self.subscriber.timer(clock)
        self.receiver.timer(clock)
        self.accounts.timer(clock)
        self.outgoing.timer(clock)
        self.windows.timer(clock)
        self.directory.timer(clock, now)
        self.standing.renewal.timer(clock, now)

    def late(self, seconds: float, clock: float) -> None:
        """The process was kept from running for a moment: ``handle_timer`` comes so much after its time."""
        self.suspicion.late(seconds, clock)

    def awoke(self, clock: float, away: float) -> None:
        """The whole process was away (suspended, stopped) for so many seconds: nobody's silence meanwhile counts.

        If that was long enough for the others to let us go, each is dialled anew unless it answers at once.
        """
        self.suspicion.excuse(clock)
        if away > self.config.gone_after:
            self.directory.resume(clock)

    def next_timer(self, clock: float) -> float:
        """When to call ``handle_timer`` next."""
        times = (
            self.directory.deadline(),
            self.links.deadline(),
            self.subscriber.barrier_at,
            self.receiver.deadline(),
            self.accounts.deadline(),
            self.outgoing.deadline(),
            self.windows.deadline(),
        )
        return max(clock, min(times))
