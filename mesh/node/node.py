"""One running node: what ``open_node`` gives to a program.

This is the face, and the life behind it: everything runs in one nursery that ``run`` holds open around the
program's block.  What the calls do is in the rooms that the ``switchboard`` connects.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from types import MappingProxyType
from typing import Any

import trio

from mesh.config import Config
from mesh.core.codec import encode_batch
from mesh.core.handshake import Papers
from mesh.core.introductions import JoinAnswerer
from mesh.core.keys import derive
from mesh.core.messages import DirectedMessage
from mesh.core.sealing import Vault
from mesh.core.topic import check_pattern, check_program_pattern, check_program_topic
from mesh.core.types import RandomBytes
from mesh.discovery.base import Discovery, Status
from mesh.errors import ConfigError, ForkError, NodeClosed
from mesh.node.answering import one_a_peer, responders
from mesh.node.background import background
from mesh.node.draining import leave
from mesh.node.headers import check_headers
from mesh.node.inbox import LossWatch
from mesh.node.incidents import IncidentWatch
from mesh.node.keeping import keep
from mesh.node.lookout import Lookout
from mesh.node.message import Peer
from mesh.node.presence import PeerWatch
from mesh.node.publisher import Publisher
from mesh.node.reports import Reports
from mesh.node.request import Handler, Reply
from mesh.node.statistics import Statistics, collect
from mesh.node.subscription import Subscription, check_subscription
from mesh.node.supervise import supervise
from mesh.node.switchboard import Switchboard
from mesh.transport.base import Transport

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
        *,
        rng: RandomBytes = os.urandom,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.config = config
        self._transport = transport
        board = self._board = Switchboard(name, config, papers, member, link_key, transport, rng, wall)
        self._engine, self._pump, self._presence = board.engine, board.pump, board.presence
        self._publishing, self._caller = board.publishing, board.caller
        self.credentials = board.credentials
        self._lookout = Lookout(board.engine, board.presence, config, board.pump.apply)
        self._mesh = papers.mesh
        self._reports = Reports()

    # -- life ------------------------------------------------------------------

    @asynccontextmanager
    async def run(
        self, discovery: Sequence[Discovery], *beside: Callable[[], Awaitable[None]]
    ) -> AsyncIterator[Node]:
        """Open, settle, hand out, drain, close: what ``open_node`` does once all parts are made.

        ``beside`` are functions that run for as long as the node does.
        """
        board = self._board
        async with background() as nursery:
            await nursery.start(board.outbox.run)
            bound = await nursery.start(self._transport.run, board.pump)
            _OPEN.add(self)
            for task in (board.pump.run_timers, *board.publishing.tasks, board.caller.run, *beside):
                nursery.start_soon(task)
            try:
                await nursery.start(self._lookout.run, bound, discovery)
                await self._lookout.settle()
                yield self
            finally:
                _OPEN.discard(self)
                with trio.CancelScope(shield=True):
                    await self._leave(drain=not nursery.cancel_scope.cancel_called)

    async def _leave(self, *, drain: bool) -> None:
        board = self._board
        if board.closed is not None:  # forked: the sockets are the parent's
            drain = False
        else:
            board.close(NodeClosed())
        await leave(board, drain=drain)

    def _forked(self) -> None:
        self._board.close(ForkError(os.getppid(), os.getpid()))

    def _check_open(self) -> None:
        self._board.check_open()

    @property
    def discovery_status(self) -> Mapping[str, Status]:
        """Which mechanisms work here, by name, and why the others do not."""
        return MappingProxyType(self._lookout.status)

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
        return MappingProxyType(self._presence.now())

    def watch_peers(self) -> PeerWatch:
        """An async iterator of ``PeerJoined``, ``PeerSuspected``, ``PeerRecovered``, ``PeerLeft``,
        beginning with the peers that are present."""
        self._check_open()
        return self._presence.watch()

    def watch_losses(self) -> LossWatch:
        """An async iterator of ``MessagesLost``: each range of messages that will never come, as it is noticed."""
        self._check_open()
        return self._board.inbox.watch()

    def watch_incidents(self) -> IncidentWatch:
        """An async iterator of ``Incident``: what the log warns of, such as forged frames and denied acts."""
        self._check_open()
        return self._board.incidents.watch()

    async def wait_for_peers(self, n: int = 1) -> None:
        """Return when at least ``n`` peers are in the mesh."""
        self._check_open()
        await trio.lowlevel.checkpoint()
        while len(self._presence.peers) < n:
            await self._presence.changed.park()
            self._check_open()

    async def ping(self, peer: Peer | str, *, timeout: float | None = None) -> float:
        """The round trip to a peer and back, in seconds. Raises ``UnknownPeer``, ``PeerGone``, ``RequestTimeout``."""
        self._check_open()
        patience = self.config.request_timeout if timeout is None else timeout
        node = self._presence.resolve(peer)
        return await self._presence.ping(node, patience, self._pump.apply, lambda: self._board.closed)

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

        Raises ``TopicError``, ``ValueEncodingError``, ``MessageTooLarge``, ``UnknownPeer``, ``NotAuthorized``,
        ``NodeClosed``.
        """
        self._check_open()
        headers = check_headers(headers, self.config)
        if to is None:
            publishing = self._publishing
            stream = publishing.streams.get(topic) or publishing.stream(check_program_topic(topic))
            if publishing.airlock.full or publishing.lanes.full:
                value = await publishing.queues.room(stream.line, value)
            await publishing.pacing.before(stream)
            if stream.add(value, headers):
                await trio.lowlevel.checkpoint()
                await publishing.pacing.after(stream)
            else:
                await trio.lowlevel.checkpoint_if_cancelled()
            return
        node = self._presence.resolve(to)
        self._board.permit(topic)
        self._engine.access.check_reader(node, topic)
        batch = self._publishing.directed(node, check_program_topic(topic), value, headers)
        await self._board.send(node, DirectedMessage("", encode_batch(batch)))

    def publisher(
        self,
        topic: str,
        *,
        reliable: bool = False,
        history: int = 0,
        retain: bool = False,
        ring: int | None = None,
    ) -> Publisher:
        """The fast way to publish much on one topic, and the reliable one.

        With ``reliable`` the latest ``ring`` bytes (None: ``config.ring_bytes``) published here are kept, as long as the
        node is open: subscribers that miss something get it from there, in order and once. The last
        ``history`` messages, or (``retain``) the last one, are for who comes later. Raises ``TopicError``, ``ConfigError``.
        """
        self._check_open()
        stream = self._publishing.stream(check_program_topic(topic))
        kept = self._engine.outgoing
        keep(kept, stream.line, self.config, reliable=reliable, history=history, retain=retain, ring=ring)
        return Publisher(stream, self._publishing)

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
        ``TopicError``, ``ConfigError``, ``NotAuthorized``.
        """
        self._check_open()
        self._engine.access.check("subscribe", check_pattern(pattern), pattern=True)
        size = self.config.buffer if buffer is None else buffer
        return self._board.subscription(
            check_pattern(pattern),
            buffer=size,
            overflow=check_subscription(overflow, size, history, group),
            group=group or "",
            history=history,
        )

    # -- request and serve ------------------------------------------------------------

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
        members = responders(self._engine, self._presence, topic, to)
        return await self._caller.request(topic, value, members=members, **self._asking(timeout, headers))

    async def request_one(
        self,
        topic: str,
        value: Any = None,
        *,
        timeout: float | None = None,
        to: Peer | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """As ``request``, with the reply as a whole: its ``value``, ``sender`` and ``headers``."""
        self._check_open()
        members = responders(self._engine, self._presence, topic, to)
        return await self._caller.request_one(topic, value, members=members, **self._asking(timeout, headers))

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
        members = one_a_peer(self._engine, self._presence, topic)
        return self._caller.request_many(topic, value, members=members, **self._asking(timeout, headers))

    def _asking(self, timeout: float | None, headers: Mapping[str, str] | None) -> Any:
        patience = self.config.request_timeout if timeout is None else timeout
        return {"timeout": patience, "headers": check_headers(headers, self.config)}

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
        if not callable(handler):
            raise ConfigError(f"{handler!r} is not a function", key="handler")
        pattern = check_program_pattern(topic)
        self._engine.access.check("serve", pattern, pattern=True)
        await self._board.serve(pattern, handler, limit, task_status.started)

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

    def derive_key(self, purpose: str) -> bytes:
        """32 bytes that every member of this mesh derives for this purpose, and nobody outside of it.

        They stay the same for as long as the mesh lives, whoever joins it or is removed: good for telling meshes
        apart and for what is no secret from former members. (HKDF-SHA256, RFC 5869, from the mesh id.)
        """
        return derive(self._mesh, b"program " + purpose.encode())

    @property
    def vault(self) -> Vault:
        """Seals values for the members of this mesh, to be kept anywhere, and opens them."""
        return self._engine.broadcast.vault

    def add_seed(self, endpoint: str) -> None:
        """Dial this intro endpoint too, now and whenever its peer is lost."""
        self._check_open()
        self._engine.hint(None, [endpoint], trio.current_time(), permanent=True)
        self._pump.apply()

    # -- statistics ------------------------------------------------------------------

    def statistics(self) -> Statistics:
        """A frozen snapshot of everything counted."""
        return collect(self._board, self._lookout.mechanisms, self._reports.collect())

    def report_bridge(self, name: str, snapshot: Callable[[], object]) -> AbstractContextManager[None]:
        """While the block lasts, ``statistics().bridges[name]`` is what ``snapshot()`` gives. Raises ``ConfigError``."""
        return self._reports.report(name, snapshot)
