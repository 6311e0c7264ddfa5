"""The parts of one node, and the calls between them.

Up:   pump → ``deliver`` (batches) → inbox → subscriptions;  pump → ``dispatch`` (a program's messages of the
      direct plane) → caller, responder or inbox;  pump → ``peer_changed`` → presence → caller, responder.
Down: publishing, caller and responder → ``send`` or the engine's seal → pump → transport.

Nothing here is public: ``Node`` is the face of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import trio

from mesh.config import Config
from mesh.core import effects as do
from mesh.core.codec import decode_batch, encode_batch
from mesh.core.engine import Engine
from mesh.core.handshake import Papers
from mesh.core.messages import (
    Batch,
    CancelMessage,
    CreditMessage,
    CutOffMessage,
    DirectedMessage,
    ErrorMessage,
    InterestEntry,
    ReplyMessage,
    RequestMessage,
    WindowMessage,
    WindowWantedMessage,
)
from mesh.core.outgoing import Line
from mesh.core.receiver import Delivery
from mesh.core.router import LOCAL, RESPONDER, SUBSCRIPTION, Member, Route
from mesh.core.session import Session
from mesh.core.topic import is_valid_topic
from mesh.core.types import NodeId, RandomBytes, RemoteProtocolError
from mesh.errors import ConfigError, MeshError, PeerGone
from mesh.node.caller import Caller
from mesh.node.credentials import Change, NodeCredentials
from mesh.node.draining import Unsent
from mesh.node.inbox import Inbox, Turns
from mesh.node.incidents import Incidents
from mesh.node.message import Peer
from mesh.node.outbox import Outbox
from mesh.node.paced import make_subscription
from mesh.node.pacing import Pacing
from mesh.node.presence import Presence
from mesh.node.publisher import Publishing
from mesh.node.pump import Pump
from mesh.node.replies import ReplyLink, Shortcut
from mesh.node.request import NOT_ALLOWED, Handler
from mesh.node.responder import Responder
from mesh.node.subscription import Subscription
from mesh.transport.base import Transport

__all__ = ["Switchboard"]


class Switchboard:
    """Everything of one node but its nursery."""

    def __init__(
        self,
        name: str,
        config: Config,
        papers: Papers,
        member: str,
        link_key: bytes,
        transport: Transport,
        rng: RandomBytes = os.urandom,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self.engine = Engine(config, papers, link_key, name, rng, trio.current_time(), wall())
        self.outbox = Outbox(transport, config)
        self.pump = Pump(self.engine, transport, self.outbox, self, wall)
        self._pacing = Pacing(self.engine.windows, self.pump.apply, lambda: self.closed is not None)
        self.publishing = Publishing(self, transport, config, self._pacing)
        self.publishing.airlock.passed_over = self._passed_over
        self.reopened = self._pacing.reopened
        self.responder = Responder(self)
        self.engine.load = lambda: self.responder.load
        self.caller = Caller(self, self)
        self._turns = Turns()
        self.inbox = Inbox(self.engine.router, self._turns, self.engine.accounts.catchups)
        own = Peer(self.engine.node.hex(), name, member, (), "alive", None)
        self.presence = Presence(self.engine, own, self._peer_left)
        self.closed: MeshError | None = None
        self.unsent = Unsent()  # once it has left
        self.credentials = NodeCredentials(self.engine.standing, self.pump.apply)
        self.incidents = Incidents()

    def close(self, reason: MeshError) -> None:
        """From now on everything is refused; who waits for something is told in ``release``."""
        self.closed = self.publishing.refusal = reason
        self.reopened()

    def check_open(self) -> None:
        """Raises what ``close`` was given."""
        if self.closed is not None:
            raise self.closed.with_traceback(None)

    def release(self) -> None:
        """Nothing comes and goes any more: tell everybody who waits."""
        assert self.closed is not None
        for subscription in list(self.inbox.subscriptions.values()):
            subscription.close(self.closed)
        self.caller.close(self.closed)
        self.responder.close(self.closed)
        self.publishing.close()
        self.outbox.close()
        self.presence.close()
        self.incidents.close()
        self.inbox.losses.end()

    # -- subscriptions and responders of ours -----------------------------------------

    def subscription(self, pattern: str, **named: Any) -> Subscription:
        """One that was asked for, and judged; not entered yet."""
        named |= {
            "most_bytes": self.config.limits.subscription_bytes,
            "enter": self.enter,
            "leave": self.leave,
        }
        return make_subscription(pattern, tell=self._tell_window, own=self.engine.node, **named)

    async def enter(self, subscription: Subscription) -> None:
        """Subscribe; returns when it is live on every peer known now, or after a bounded time."""
        self.check_open()
        if subscription.entry is not None:
            raise RuntimeError("a subscription is entered once; make another")
        if len(self.inbox.subscriptions) >= self.config.limits.subscriptions_per_peer:
            raise ConfigError(f"more than {len(self.inbox.subscriptions)} subscriptions", key="subscribe")
        entry = self.engine.add_interest(
            SUBSCRIPTION,
            subscription.pattern,
            trio.current_time(),
            group=subscription.group,
            history=subscription.history,
            mode=subscription.window,
        )
        subscription.entry = entry
        self.inbox.subscriptions[entry.number] = subscription
        for batch, skip in self.engine.outgoing.catch_up(entry.number, subscription.history):
            self.inbox.deliver_to(entry.number, batch, skip, self.presence.own)
        self.pump.apply()
        try:
            await self._live(settled=subscription.history > 0)
            self.check_open()
            self._check_history(entry)
        except BaseException:
            self.leave(subscription)
            raise

    def leave(self, subscription: Subscription) -> None:
        """It ends. Idempotent."""
        entry = subscription.entry
        if entry is not None and self.inbox.end(entry.number):
            self._remove(entry)

    async def serve(
        self, pattern: str, handler: Handler, concurrency: int, started: Callable[[], None]
    ) -> None:
        """Announce a responder and answer as such until cancelled, or until the node closes."""
        entry = self.engine.add_interest(RESPONDER, pattern, trio.current_time())

        async def ready() -> None:
            self.pump.apply()
            await self._live()
            started()

        try:
            await self.responder.serve(entry.number, handler, concurrency, ready)
        finally:
            self._remove(entry)

    def _remove(self, entry: InterestEntry) -> None:
        self.engine.remove_interest(entry)
        if self.closed is None:
            self.pump.apply()

    def _check_history(self, entry: InterestEntry) -> None:
        """A subscription to one topic that asked for what its publisher does not keep is a mistake."""
        asked = self.engine.accounts.catchups.kept_nothing.get(entry.number)
        if entry.history and asked is not None and is_valid_topic(entry.pattern):
            publisher, topic = self.presence.peer(asked[0]), asked[1]
            raise ConfigError(f"{publisher.name or publisher.id} keeps nothing of {topic!r}", key="history")

    async def _live(self, *, settled: bool = False) -> None:
        """Wait, for a bounded time, until every peer has what we told last, and (``settled``) has said what it keeps."""
        version = self.engine.subscriber.version
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(self.config.live_timeout):
            while self.closed is None and (
                self.engine.subscriber.unconfirmed(version)
                or (settled and self.engine.accounts.unsettled(version))
            ):
                await self.presence.changed.park()

    # -- what the pump brings (``pump.Consumer``) ----------------------------------------

    def deliver(self, delivery: Delivery) -> None:
        self.inbox.deliver(delivery, self.presence.peer(delivery.publisher))

    def deliver_late(self, effect: do.Deliver) -> None:
        if effect.only:
            self.inbox.deliver_to(effect.only, effect.batch, effect.skip, self.presence.peer(effect.peer))
            return
        if effect.repaired:
            self.inbox.repaired += len(effect.batch.values) - effect.skip
        self.deliver(Delivery(effect.peer, effect.batch, effect.skip, 0))

    def lost(self, loss: do.Lost) -> None:
        self.inbox.count_lost(loss, self.presence.peer(loss.peer))

    def cut_off(self, cut: do.CutOff) -> None:
        self.inbox.cut_off(cut.number, self.presence.peer(cut.peer))

    def _tell_window(self, publisher: NodeId, message: WindowMessage) -> None:
        if publisher != self.engine.node:
            self.send_nowait(publisher, message)
        elif self.closed is None:
            self.engine.windows.heard(LOCAL, message, trio.current_time())
            self.pump.apply()

    def announce(self, tag: bytes, frame: bytes) -> None:
        self.publishing.airlock.send(tag, frame)

    def dispatch(self, session: Session, message: Any, clock: float) -> None:
        node = session.node
        match message:
            case RequestMessage():
                self._requested(node, message)
            case ReplyMessage() | ErrorMessage():
                session.load = message.load
                self.caller.received(node, message)
            case CancelMessage():
                self.responder.cancel(node, message.number)
            case CreditMessage():
                self.responder.credit(node, message.number, message.replies)
            case DirectedMessage():
                self._directed(session, message, clock)
            case WindowWantedMessage():
                self.inbox.wanted(message.number, node)
            case CutOffMessage():
                self.cut_off(do.CutOff(node, message.number))

    def _directed(self, session: Session, message: DirectedMessage, clock: float) -> None:
        try:
            batch = decode_batch(message.batch)
        except RemoteProtocolError as error:
            self.engine.rejected_from(session, error.reason, clock)
            self.pump.apply()
            return
        if self.engine.access.denial("publish", session.node, batch.topic) is not None:
            self.pump.apply()
            return
        sender = self.presence.peer(session.node)
        self.inbox.deliver_directed(session.node, message.group, batch, sender)

    def _own_responders(self, topic: str) -> list[int]:
        return [member.number for member in self.engine.router.responders(topic) if member.peer == LOCAL]

    def _requested(self, node: NodeId, message: RequestMessage) -> None:
        why = self.engine.access.denial("request", node, message.topic)
        if why is not None:
            self.send_nowait(node, ErrorMessage(message.number, NOT_ALLOWED, why, self.responder.load))
            self.pump.apply()
            return
        own = self._own_responders(message.topic)
        refusal = self.responder.received(node, message, ReplyLink(self, node), own)
        if refusal is not None:
            self.send_nowait(node, refusal)

    def peer_changed(self, change: do.PeerChanged) -> None:
        self.presence.peer_changed(change)

    def _peer_left(self, node: NodeId, peer: Peer) -> None:
        self.caller.peer_gone(node, peer.name)
        self.responder.peer_gone(node)
        self.inbox.forget(node)
        self.publishing.forget(node)
        self.outbox.forget(node)

    def incident(self, incident: do.Incident) -> None:
        self.incidents.happened(incident)

    def credentials_changed(self, change: Change) -> None:
        self.credentials.changed(change)

    def ponged(self, peer: NodeId, token: int, rtt: float | None) -> None:
        self.presence.ponged(peer, token, rtt)

    def progressed(self) -> None:
        self.presence.changed.unpark_all()

    # -- what publishing needs (``publisher.Outlet``) ---------------------------------------

    def route(self, topic: str) -> Route:
        return self.engine.router.route(topic)

    def route_generation(self) -> int:
        return self.engine.router.generation

    def deliver_local(self, numbers: tuple[int, ...], batch: Batch) -> None:
        self.inbox.deliver_local(numbers, batch, self.presence.own)

    def seal(self, topic: str, plaintext: bytes, kind: int) -> tuple[bytes, bytes]:
        tag = self.engine.broadcast.tag(topic)
        return tag, self.engine.broadcast.seal(tag, plaintext, trio.current_time(), kind)

    def line(self, topic: str) -> Line:
        return self.engine.outgoing.line(topic)

    def stir(self, line: Line) -> None:
        self.engine.outgoing.stir(line)

    def settle(self) -> None:
        if self.engine.outgoing.stirred:
            self.engine.outgoing.settle(trio.current_time())
            self.pump.apply()

    def _passed_over(self, tag: bytes) -> None:
        self.engine.outgoing.passed_over(tag, trio.current_time())
        self.pump.apply()

    def permit(self, topic: str) -> None:
        self.engine.access.check("publish", topic)

    def choose(self, group: str, members: tuple[Member, ...]) -> Member:
        return self._turns.choose(group, members)

    def send_directed(self, peer: NodeId, group: str, batch: Batch) -> None:
        self.send_nowait(peer, DirectedMessage(group, encode_batch(batch)))

    def live_subscribers(self, topic: str) -> int:
        route = self.engine.router.route(topic)
        grouped = [member for members in route.groups.values() for member in members]
        live = [m for m in (*route.broadcast, *grouped) if m.peer == LOCAL or self.engine.audience.is_live(m)]
        return len(route.local) + len(live)

    async def subscribers_changed(self) -> None:
        await self.presence.changed.park()

    # -- what requests need (``request.Network``, ``caller.OwnResponder``) -------------------

    def peer(self, node: NodeId) -> Peer:
        return self.presence.peer(node)

    def peer_load(self, node: NodeId) -> int:
        if node == LOCAL:
            return self.responder.load
        session = self.engine.links.sessions.get(node)
        return 0 if session is None else session.load

    async def send(self, peer: NodeId, message: Any) -> None:
        """Send over a peer's link, waiting while its queue is full. Raises ``PeerGone``, ``NodeClosed``."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            if peer not in self.engine.links.sessions:
                raise PeerGone(peer.hex())
            self.check_open()
            if self.pump.send(peer, message):
                return
            await self.outbox.wait_room()

    def send_nowait(self, peer: NodeId, message: Any) -> bool:
        """The same without waiting; False if it was not sent."""
        return peer in self.engine.links.sessions and self.pump.send(peer, message)

    def serve_locally(self, message: RequestMessage, reply: Callable[[Any], None]) -> None:
        own = self._own_responders(message.topic)
        refusal = self.responder.received(LOCAL, message, Shortcut(reply), own)
        if refusal is not None:
            reply(refusal)

    def cancel(self, peer: NodeId, number: int) -> None:
        self.responder.cancel(peer, number)

    def credit(self, peer: NodeId, number: int, replies: int) -> None:
        self.responder.credit(peer, number, replies)
