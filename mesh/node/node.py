"""One running node: what ``open_node`` gives to a program.

Values go down: ``publish`` → ``publisher`` → engine's seal → transport.  Messages come up:
transport → ``pump`` → engine → ``deliver`` → each matching ``Subscription``'s buffer, or ``dispatch`` →
requests, replies, directed batches.  Everything runs in one nursery whose scope ``open`` holds.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import trio

from mesh.config import Config
from mesh.core import effects as do
from mesh.core.codec import decode_batch, encode_batch
from mesh.core.engine import Engine, Papers
from mesh.core.introductions import JoinAnswerer
from mesh.core.messages import (
    Batch,
    CancelMessage,
    CreditMessage,
    DirectedMessage,
    ErrorMessage,
    ReplyMessage,
    RequestMessage,
)
from mesh.core.receiver import Delivery
from mesh.core.router import LOCAL, RESPONDER, SUBSCRIPTION, Member, Route
from mesh.core.session import Session
from mesh.core.topic import check_pattern, check_topic
from mesh.core.types import NodeId, RemoteProtocolError
from mesh.discovery.base import Announcement, Candidate, Discovery, Status
from mesh.discovery.interfaces import advertised, watch
from mesh.errors import (
    ConfigError,
    ForkError,
    MeshError,
    NodeClosed,
    NoResponders,
    PeerGone,
)
from mesh.node.inbox import Inbox, Turns
from mesh.node.message import Peer
from mesh.node.outbox import Outbox
from mesh.node.presence import PeerWatch, Presence
from mesh.node.publisher import Publisher, Publishing, check_headers
from mesh.node.pump import Pump
from mesh.node.request import Caller, Handler, Reply, Responder
from mesh.node.statistics import PeerStatistics, Statistics, SubscriptionStatistics
from mesh.node.subscription import Subscription, check_overflow
from mesh.node.supervise import supervise
from mesh.transport.base import Bound, Transport

__all__ = ["Node"]

_OPEN: weakref.WeakSet[Node] = weakref.WeakSet()


def _after_fork() -> None:
    for node in list(_OPEN):
        node._forked()


os.register_at_fork(after_in_child=_after_fork)


class Node:
    """This process's node in the mesh. Make one with ``mesh.open_node``."""

    def __init__(
        self,
        name: str,
        config: Config,
        papers: Papers,
        member: str,
        link_key: bytes,
        transport: Transport,
    ) -> None:
        self.name = name
        self.config = config
        self._transport = transport
        clock = trio.current_time()
        self._engine = Engine(config, papers, link_key, name, os.urandom, clock, time.time())
        self._pump = Pump(self._engine, transport, self)
        self._publishing = Publishing(self, transport, config)
        self._responder = Responder(self)
        self._caller = Caller(self, self._serve_locally)
        self._caller.connect_local(
            partial(self._responder.cancel, LOCAL), partial(self._responder.credit, LOCAL)
        )
        self._bound = Bound(())
        self._turns = Turns()
        self._inbox = Inbox(self._engine.router, self._turns)
        own = Peer(self._engine.node.hex(), name, member, (), "alive", None)
        self._presence = Presence(self._engine, own, self._peer_left)
        self._closed: MeshError | None = None
        self._heard_of = trio.Event()
        self._discovery: list[Discovery] = []
        self.discovery_status: dict[str, Status] = {}
        self._served = 0

    # -- life ------------------------------------------------------------------

    @asynccontextmanager
    async def run(self, discovery: Sequence[Discovery]) -> AsyncIterator[Node]:
        """Open, settle, hand out, drain, close: what ``open_node`` does once all parts are made."""
        failure: BaseException | None = None
        async with trio.open_nursery() as nursery:
            self._pump.outbox = Outbox(self._transport, self.config.limits, nursery)
            self._bound = await nursery.start(self._transport.run, self._pump)
            self._advertise()
            nursery.start_soon(self._pump.run_timers)
            nursery.start_soon(self._publishing.run)
            nursery.start_soon(self._publishing.airlock.run)
            nursery.start_soon(watch, lambda _: self._advertise())
            _OPEN.add(self)
            try:
                await self._discover(nursery, discovery)
                await self._settle()
                yield self
            except BaseException as error:  # noqa: BLE001
                # Policy: the caller's own exception passes through as it is, not wrapped
                # in the group of the nursery's; it is raised again below.
                failure = error
            finally:
                _OPEN.discard(self)
                with trio.CancelScope(shield=True):
                    await self._leave()
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _discover(self, nursery: trio.Nursery, discovery: Sequence[Discovery]) -> None:
        self._discovery = list(discovery)
        announcement = self._announcement()

        async def start(mechanism: Discovery) -> None:
            self.discovery_status[mechanism.name] = await nursery.start(
                mechanism.run, announcement, self._found
            )

        for mechanism in discovery:
            nursery.start_soon(start, mechanism)
        await trio.lowlevel.checkpoint()

    def _found(self, candidate: Candidate) -> None:
        self._engine.hint(
            candidate.node, candidate.intros, trio.current_time(), permanent=candidate.source == "seeds"
        )
        if candidate.node != self._engine.node:
            self._heard_of.set()
        self._pump.apply()

    async def _settle(self) -> None:
        """Wait, for a bounded time, for those whom discovery reports at once."""
        names = {mechanism.name for mechanism in self._discovery}
        if not names:
            return
        quick = self.config.quick_discovery
        if "mdns" in names and "scout" not in names:
            quick = self.config.quick_discovery_mdns
        with trio.move_on_after(quick):
            await self._heard_of.wait()
        if not self._heard_of.is_set():
            return
        with trio.move_on_after(self.config.settle_timeout):
            while self._engine.unresolved():
                await self._presence.changed.park()

    def _advertise(self) -> None:
        """Our addresses as they are now: into the record, and to discovery."""
        addresses = advertised(self._bound.addresses, limit=self.config.limits.addresses_per_node)
        if addresses == self._engine.record.addresses:
            return
        self._engine.set_addresses(addresses, trio.current_time())
        self._presence.own = replace(self._presence.own, endpoints=tuple(a.intro for a in addresses))
        self._pump.apply()
        announcement = self._announcement()
        for mechanism in self._discovery:
            mechanism.update(announcement)

    def _announcement(self) -> Announcement:
        return Announcement(self._engine.node, tuple(a.intro for a in self._engine.record.addresses))

    async def _leave(self) -> None:
        closed = NodeClosed()
        with trio.move_on_after(self.config.drain_timeout):
            self._publishing.flush()
            await self._publishing.airlock.flush()
            await self._pump_outbox().flush()
        self._closed = self._publishing.refusal = closed
        self._engine.say_goodbye()
        self._pump.apply()
        with trio.move_on_after(min(0.2, self.config.drain_timeout)):
            await self._pump_outbox().flush()
        for subscription in list(self._inbox.subscriptions.values()):
            subscription.close(closed)
        self._caller.close(closed)
        self._presence.close()

    def _pump_outbox(self) -> Outbox:
        outbox = self._pump.outbox
        assert outbox is not None
        return outbox

    def _forked(self) -> None:
        self._closed = self._publishing.refusal = ForkError(os.getppid(), os.getpid())

    def _check_open(self) -> None:
        if self._closed is not None:
            raise self._closed

    # -- who ---------------------------------------------------------------------

    @property
    def id(self) -> str:
        """This node's id: 32 hex digits, new with each start."""
        return self._presence.own.id

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The intro endpoints that others can dial."""
        return self._presence.own.endpoints

    @property
    def peers(self) -> Mapping[str, Peer]:
        """The peers in the mesh now, by id (a read-only snapshot)."""
        return MappingProxyType({peer.id: peer for peer in self._presence.peers.values()})

    def watch_peers(self) -> PeerWatch:
        """An async iterator of ``PeerJoined``, ``PeerSuspected``, ``PeerRecovered``, ``PeerLeft``,
        beginning with the peers that are present."""
        self._check_open()
        return self._presence.watch()

    async def wait_for_peers(self, n: int = 1) -> None:
        """Return when at least ``n`` peers are in the mesh."""
        await trio.lowlevel.checkpoint()
        while len(self._presence.peers) < n:
            self._check_open()
            await self._presence.changed.park()

    async def ping(self, peer: Peer | str, *, timeout: float | None = None) -> float:
        """The round trip to a peer and back, in seconds. Raises ``UnknownPeer``, ``PeerGone``, ``RequestTimeout``."""
        self._check_open()
        patience = self.config.request_timeout if timeout is None else timeout
        node = self._presence.resolve(peer)
        return await self._presence.ping(node, patience, self._pump.apply, lambda: self._closed)

    # -- publish -------------------------------------------------------------------

    async def publish(
        self,
        topic: str,
        value: Any,
        *,
        headers: Mapping[str, str] | None = None,
        to: Peer | str | None = None,
    ) -> None:
        """Publish one value; ``to=`` one peer alone, to its matching subscriptions.

        Raises ``TopicError``, ``ValueEncodingError``, ``MessageTooLarge``, ``UnknownPeer``, ``NodeClosed``.
        """
        self._check_open()
        headers = check_headers(headers, self.config)
        if to is None:
            publishing = self._publishing
            stream = publishing.streams.get(topic) or publishing.stream(check_topic(topic))
            if publishing.airlock.full:
                await publishing.airlock.wait_room()
            if stream.add(value, headers):
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.checkpoint_if_cancelled()
            return
        node = self._presence.resolve(to)
        batch = self._publishing.directed(node, check_topic(topic), value, headers)
        await self.send(node, DirectedMessage("", encode_batch(batch)))

    def publisher(
        self, topic: str, *, reliable: bool = False, history: int = 0, retain: bool = False
    ) -> Publisher:
        """The fast way to publish many values on one topic."""
        self._check_open()
        for key, asked in (("reliable", reliable), ("history", history), ("retain", retain)):
            if asked:
                raise ConfigError("this version does not have it: leave it out", key=key)
        return Publisher(self._publishing.stream(check_topic(topic)), self._publishing)

    # -- subscribe -----------------------------------------------------------------

    def subscribe(
        self,
        pattern: str,
        *,
        buffer: int | None = None,
        overflow: str = "drop_oldest",
        history: int = 0,
        group: str | None = None,
    ) -> Subscription:
        """Subscribe to a pattern: an async context manager and async iterator of ``Message``.

        Entering returns when it is live on every peer known then (for a bounded time).
        ``buffer`` is in messages; ``overflow`` says what happens when it is full. Raises
        ``TopicError``, ``ConfigError``.
        """
        self._check_open()
        size = self.config.buffer if buffer is None else buffer
        if history:
            raise ConfigError("this version does not have it: leave it out", key="history")
        if group is not None and not 0 < len(group) <= 64:
            raise ConfigError(f"{group!r} is not a name of 1 to 64 characters", key="group")
        return Subscription(
            check_pattern(pattern),
            buffer=size,
            overflow=check_overflow(overflow, size),
            group=group or "",
            enter=self._enter,
            leave=self._unsubscribe,
        )

    async def _enter(self, subscription: Subscription) -> None:
        self._check_open()
        if subscription.entry is not None:
            raise RuntimeError("a subscription is entered once; make another")
        if len(self._inbox.subscriptions) >= self.config.limits.subscriptions_per_peer:
            raise ConfigError(f"more than {len(self._inbox.subscriptions)} subscriptions", key="subscribe")
        entry = self._engine.add_interest(
            SUBSCRIPTION, subscription.pattern, trio.current_time(), group=subscription.group
        )
        subscription.entry = entry
        self._inbox.subscriptions[entry.number] = subscription
        self._pump.apply()
        try:
            await self._live()
        except BaseException:
            self._unsubscribe(subscription)
            raise

    async def _live(self) -> None:
        """Wait, for a bounded time, until every peer has what we told last."""
        version = self._engine.subscriber.version
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(self.config.live_timeout):
            while self._engine.subscriber.unconfirmed(version) and self._closed is None:
                await self._presence.changed.park()

    def _unsubscribe(self, subscription: Subscription) -> None:
        entry = subscription.entry
        if entry is None or not self._inbox.end(entry.number):
            return
        if self._closed is None:
            self._engine.remove_interest(entry)
            self._pump.apply()

    # -- request and serve ------------------------------------------------------------

    def _members(self, topic: str, to: Peer | str | None) -> list[Member]:
        members = self._engine.router.responders(check_topic(topic))
        if to is not None:
            node = self._presence.resolve(to)
            members = [member for member in members if member.peer == node]
        if not members:
            raise NoResponders(topic)
        return members

    async def request(
        self,
        topic: str,
        value: Any = None,
        *,
        timeout: float | None = None,
        to: Peer | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Ask the least busy responder; its reply's value.

        ``timeout`` is in seconds. Raises ``NoResponders`` (at once), ``RequestTimeout``,
        ``RemoteError`` (the handler raised), ``PeerGone`` (it died meanwhile: it may or may not have acted).
        """
        self._check_open()
        return await self._caller.request(
            topic,
            value,
            timeout=self.config.request_timeout if timeout is None else timeout,
            members=self._members(topic, to),
            headers=check_headers(headers, self.config),
        )

    def request_many(
        self,
        topic: str,
        value: Any = None,
        *,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AbstractAsyncContextManager[AsyncIterator[Reply]]:
        """Ask every responder; their replies as they come, until all ended or ``timeout`` seconds are over.

        Entering raises ``NoResponders`` if there is none. A reply carries a value or an ``error``.
        """
        self._check_open()
        return self._caller.request_many(
            topic,
            value,
            timeout=self.config.request_timeout if timeout is None else timeout,
            members=self._one_a_peer(topic),
            headers=check_headers(headers, self.config),
        )

    def _one_a_peer(self, topic: str) -> list[Member]:
        return list({member.peer: member for member in self._members(topic, None)}.values())

    async def serve(
        self,
        topic: str,
        handler: Handler,
        *,
        concurrency: int | None = None,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Answer requests on ``topic`` (a pattern will do) until cancelled.

        ``handler(request)`` is an async function whose result is the reply, or an async generator function
        that streams replies; at most ``concurrency`` run at once. What it raises reaches the
        caller as ``RemoteError``. ``task_status.started()`` means that every peer known then has heard.
        """
        self._check_open()
        limit = self.config.serve_concurrency if concurrency is None else concurrency
        if limit < 1:
            raise ConfigError(f"{limit} is not a number above 0", key="concurrency")
        entry = self._engine.add_interest(RESPONDER, check_pattern(topic), trio.current_time())

        async def started() -> None:
            self._pump.apply()
            await self._live()
            task_status.started()

        try:
            await self._responder.serve(entry.number, handler, limit, started)
        finally:
            if self._closed is None:
                self._engine.remove_interest(entry)
                self._pump.apply()

    async def supervise(self, task: Any, *args: Any, **policy: Any) -> None:
        """``mesh.supervise``, here for convenience."""
        await supervise(task, *args, **policy)

    def answer_joins(self, answerer: JoinAnswerer | None) -> None:
        """Let ``answerer`` answer newcomers with a token (None: nobody does)."""
        self._engine.introductions.join_answerer = answerer

    @property
    def refusals(self) -> Mapping[str, str]:
        """Why introductions failed, by endpoint: the latest of each, for ``mesh doctor``."""
        return MappingProxyType(dict(self._engine.introductions.refused_by))

    def add_seed(self, endpoint: str) -> None:
        """Dial this intro endpoint too, now and whenever its peer is lost."""
        self._check_open()
        self._engine.hint(None, [endpoint], trio.current_time(), permanent=True)
        self._pump.apply()

    # -- statistics ------------------------------------------------------------------

    def statistics(self) -> Statistics:
        """A frozen snapshot of everything counted."""
        inbox, subscriptions = self._inbox, list(self._inbox.subscriptions.values())
        engine, outbox = self._engine, self._pump_outbox()
        reasons = dict(engine.rejected)
        for reason, n in self._pump.rejected_by_transport.items():
            reasons[reason] = reasons.get(reason, 0) + n
        for mechanism in self._discovery:
            for reason, n in getattr(mechanism, "rejected", {}).items():
                key = f"{mechanism.name}_{reason}"
                reasons[key] = reasons.get(key, 0) + n
        peers = {}
        for node, peer in self._presence.peers.items():
            session = engine.links.sessions.get(node)
            peers[peer.id] = PeerStatistics(
                peer.id,
                peer.name,
                peer.rtt,
                inbox.received_from[node],
                inbox.lost_from[node],
                outbox.waiting(node),
                outbox.dropped[node],
                {} if session is None else {r.value: n for r, n in session.strikes.counts.items()},
            )
        return Statistics(
            published=self._publishing.published,
            received=inbox.received,
            delivered=inbox.delivered,
            lost=inbox.lost,
            dropped=inbox.dropped,
            repaired=0,
            rejected=sum(reasons.values()),
            rejected_by_reason=MappingProxyType(reasons),
            duplicates=inbox.duplicates,
            queued=sum(s.queued for s in subscriptions),
            congested=self._publishing.airlock.lossy,
            requests_in_flight=self._caller.in_flight,
            requests_served=self._served,
            candidates_dropped=engine.introductions.dialer.dropped,
            peers=MappingProxyType(peers),
            subscriptions=tuple(
                SubscriptionStatistics(
                    s.pattern, s.group, s.received, s.delivered, s.dropped, s.lost, s.queued
                )
                for s in subscriptions
            ),
        )

    # -- what the pump brings (``pump.Consumer``) ----------------------------------------

    def deliver(self, delivery: Delivery) -> None:
        self._inbox.deliver(delivery, self._presence.peer(delivery.session.node))

    def dispatch(self, session: Session, message: Any, clock: float) -> None:
        node = session.node
        match message:
            case RequestMessage():
                self._requested(node, message, _Link(self, node))
            case ReplyMessage() | ErrorMessage():
                session.load = message.load
                self._caller.received(node, message)
            case CancelMessage():
                self._responder.cancel(node, message.number)
            case CreditMessage():
                self._responder.credit(node, message.number, message.replies)
            case DirectedMessage():
                self._directed(session, message, clock)

    def _directed(self, session: Session, message: DirectedMessage, clock: float) -> None:
        try:
            batch = decode_batch(message.batch)
        except RemoteProtocolError as error:
            self._engine.rejected_from(session, error.reason, clock)
            self._pump.apply()
            return
        sender = self._presence.peer(session.node)
        self._inbox.deliver_directed(session.node, message.group, batch, sender)

    def _requested(self, node: NodeId, message: RequestMessage, sink: Any) -> None:
        numbers = [m.number for m in self._engine.router.responders(message.topic) if m.peer == LOCAL]
        refusal = self._responder.received(node, message, sink, numbers)
        if refusal is None:
            self._served += 1
        elif node == LOCAL:
            self._caller.received(LOCAL, refusal)
        else:
            self.send_nowait(node, refusal)
        self._engine.load = self._responder.load

    def _serve_locally(self, message: RequestMessage, sink: Any) -> None:
        self._requested(LOCAL, message, sink)

    def peer_changed(self, change: do.PeerChanged) -> None:
        self._presence.peer_changed(change)

    def _peer_left(self, node: NodeId, peer: Peer) -> None:
        self._caller.peer_gone(node, peer.name)
        self._responder.peer_gone(node)
        self._inbox.forget(node)

    def ponged(self, peer: NodeId, token: int, rtt: float | None) -> None:
        self._presence.ponged(peer, token, rtt)

    def progressed(self) -> None:
        self._presence.changed.unpark_all()

    # -- what publishing and requests need (``publisher.Outlet``, ``request.Network``) -----

    def route(self, topic: str) -> Route:
        return self._engine.router.route(topic)

    def route_generation(self) -> int:
        return self._engine.router.generation

    def deliver_local(self, numbers: tuple[int, ...], batch: Batch) -> None:
        self._inbox.deliver_local(numbers, batch, self._presence.own)

    def seal(self, topic: str, plaintext: bytes) -> tuple[bytes, bytes]:
        tag = self._engine.broadcast.tag(topic)
        return tag, self._engine.broadcast.seal(tag, plaintext, trio.current_time())

    def choose(self, group: str, members: tuple[Member, ...]) -> Member:
        return self._turns.choose(group, members)

    def send_directed(self, peer: NodeId, group: str, batch: Batch) -> None:
        self.send_nowait(peer, DirectedMessage(group, encode_batch(batch)))

    def live_subscribers(self, topic: str) -> int:
        route = self._engine.router.route(topic)
        live = sum(1 for member in route.broadcast if self._engine.audience.is_live(member))
        return len(route.local) + live + sum(len(members) for members in route.groups.values())

    async def subscribers_changed(self) -> None:
        self._check_open()
        await self._presence.changed.park()

    def responders(self, topic: str) -> list[Member]:
        return self._engine.router.responders(topic)

    def peer(self, node: NodeId) -> Peer:
        return self._presence.peer(node)

    def peer_load(self, node: NodeId) -> int:
        if node == LOCAL:
            return self._responder.load
        session = self._engine.links.sessions.get(node)
        return 0 if session is None else session.load

    async def send(self, peer: NodeId, message: Any) -> None:
        """Send over a peer's link, waiting while its queue is full. Raises ``PeerGone``."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._pump.send(peer, message):
            if peer not in self._engine.links.sessions:
                raise PeerGone(peer.hex())
            await self._pump_outbox().wait_room(peer)

    def send_nowait(self, peer: NodeId, message: Any) -> bool:
        return peer in self._engine.links.sessions and self._pump.send(peer, message)


class _Link:
    """Where a handler's replies go: back over the link of the peer that asked."""

    __slots__ = ("_node", "_peer")

    def __init__(self, node: Node, peer: NodeId) -> None:
        self._node = node
        self._peer = peer

    async def send(self, message: ReplyMessage | ErrorMessage) -> None:
        try:
            await self._node.send(self._peer, message)
        except PeerGone:
            pass  # nobody waits for it any more
