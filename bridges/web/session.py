"""One WebSocket client: its operations in, its outbox out, and how it ends.

    ``receive`` (of the WebSocket) → ``wire.read`` → an operation: done at once, or a task of its own (requests,
    subscriptions that must become live) → its answer into the outbox → ``writer``

``end`` cancels all of it and says the code with which the connection closes.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

import trio

import mesh
from bridges.web.access import Access
from bridges.web.bounds import Bounds
from bridges.web.counters import Counters
from bridges.web.encoding import Format, Id, encode
from bridges.web.hub import Hub
from bridges.web.outbox import Feed, Outbox
from bridges.web.pace import Pace
from bridges.web.peers import event_fields
from bridges.web.scopes import Grant
from bridges.web.stream import SharedStream
from bridges.web.wire import (
    Auth,
    Mistake,
    NotTheProtocol,
    Operation,
    Peers,
    Publish,
    Request,
    Subscribe,
    Unsubscribe,
    read,
)
from bridges.web.writer import Writer
from mesh.errors import MeshError, NotAuthorized

__all__ = [
    "GOING_AWAY",
    "NOT_ALLOWED",
    "NOT_AUTHENTICATED",
    "NOT_THE_PROTOCOL",
    "TOO_LARGE",
    "Ending",
    "Session",
]

GOING_AWAY: Final = 1001
NOT_THE_PROTOCOL: Final = 1008
TOO_LARGE: Final = 1009
NOT_AUTHENTICATED: Final = 4401
NOT_ALLOWED: Final = 4403

_log = logging.getLogger("mesh.web")


class Ending(NamedTuple):
    """With which code and words a connection closes (RFC 6455 §7.4)."""

    code: int
    reason: str


class Session:
    """The client's state. ``run`` lasts as long as the client; ``ending`` says why it was over, if we ended it."""

    def __init__(
        self,
        node: mesh.Node,
        hub: Hub,
        access: Access,
        bounds: Bounds,
        counters: Counters,
        *,
        scope: Mapping[str, Any],
        stream: SharedStream,
        form: Format,
        grant: Grant | None,
    ) -> None:
        self.outbox = Outbox(form, bounds.queue_bytes)
        self._out = Writer(self.outbox, stream)
        self.ending: Ending | None = None
        self._node = node
        self._hub = hub
        self._access = access
        self._bounds = bounds
        self._counters = counters
        self._scope = scope
        self._stream = stream
        self._form = form
        self._grant = grant
        self._feeds: dict[Id, Feed] = {}
        self._watches: dict[Id, trio.CancelScope] = {}
        self._requests: dict[Id, trio.CancelScope] = {}
        self._mistakes = 0
        self._pace = Pace(bounds.operations_per_second, bounds.operations_at_once)
        self._opened = self._pinged = trio.current_time()
        self._everything = trio.CancelScope()
        self._nursery: trio.Nursery | None = None

    # -- life ---------------------------------------------------------------------------

    async def run(self, receive: Callable[[], Awaitable[str | bytes | None]]) -> None:
        """Serve the client until it leaves (``receive`` gives None) or ``end`` is called."""
        with self._everything:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._out.run)
                try:
                    if self._grant is not None:
                        self._say_ready()
                    while (data := await receive()) is not None:
                        self._stream.unread = 0
                        await self._take(data)
                finally:
                    for feed in self._feeds.values():
                        self._hub.leave(feed)
                nursery.cancel_scope.cancel()
        self._counters.sent += self.outbox.taken
        self._counters.dropped += self.outbox.dropped
        if self.ending is not None:
            with trio.move_on_after(self._bounds.close_within, shield=True):
                # The client is told why before the connection closes.
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await self._out.flush()

    def end(self, code: int, reason: str) -> None:
        """Close the connection with this code. The first call counts."""
        if self.ending is None:
            self.ending = Ending(code, reason)
            self._everything.cancel()

    def look(self, now: float) -> None:
        """What time brings: called every second or so."""
        bounds = self._bounds
        if self._grant is None:
            if now - self._opened > bounds.auth_within:
                self._reject("auth_timeout")
                self.end(NOT_AUTHENTICATED, "no token came")
        elif not self._access.still(self._grant, self._scope):
            self._reject("token_revoked")
            self.end(NOT_AUTHENTICATED, "the token counts no longer")
        if now - self._stream.heard > bounds.silent_within:
            self._reject("silent")
            self.end(GOING_AWAY, "nothing was heard for too long")
        elif now - self._pinged >= bounds.ping_every:
            self._pinged = now
            self._stream.unread = 0
            self.outbox.answer(b"\x89\x00")  # a ping without payload (RFC 6455 §5.5.2)
            self._out.kick()
        if self._stream.unread > bounds.body_bytes + (128 << 10):
            self._reject("too_large")  # fragments without an end
            self.end(TOO_LARGE, "too large")

    # -- out ------------------------------------------------------------------------------

    def _say(self, op: str, identifier: Id | None = None, **fields: Any) -> None:
        message: dict[str, Any] = {"op": op}
        if identifier is not None:
            message["id"] = identifier
        message.update(fields)
        self.outbox.answer(encode(message, self._form))
        self._out.kick()
        if self.outbox.urgent > self._bounds.answers_bytes:
            self._reject("answers_unread")
            self.end(NOT_THE_PROTOCOL, "answers are not read")

    def _say_ready(self) -> None:
        self._say("ready", node=self._node.name)

    def _say_error(self, identifier: Id | None, name: str, text: str) -> None:
        self._say("error", identifier, error=name, message=text)

    def _reject(self, reason: str) -> None:
        self._counters.rejected[reason] += 1

    # -- in -------------------------------------------------------------------------------

    async def _take(self, data: str | bytes) -> None:
        if len(data) > self._bounds.body_bytes:
            self._reject("too_large")
            return self.end(TOO_LARGE, f"a message has at most {self._bounds.body_bytes} bytes")
        if isinstance(data, str) != (self._form == "json"):
            self._reject("not_the_protocol")
            return self.end(NOT_THE_PROTOCOL, "JSON comes in text frames, CBOR in binary ones")
        await self._wait_for_a_turn()
        try:
            operation = read(data)
        except NotTheProtocol as error:
            self._reject("not_the_protocol")
            self._say_error(None, "ProtocolError", str(error))
            return self.end(NOT_THE_PROTOCOL, str(error))
        except Mistake as mistake:
            return self._mistaken(mistake.id, mistake.detail)
        if self._grant is None and not isinstance(operation, Auth):
            self._reject("not_authenticated")
            self._say_error(getattr(operation, "id", None), "NotAuthenticated", "the first message is auth")
            return self.end(NOT_AUTHENTICATED, "the first message is auth")
        return await self._do(operation)

    async def _wait_for_a_turn(self) -> None:
        """Read no faster than the rate that a client may have, nor than it reads its answers."""
        await self._out.wait_for_answers(self._bounds.answers_pause)
        await self._pace.wait()

    def _mistaken(self, identifier: Id | None, detail: str) -> None:
        self._reject("mistake")
        self._mistakes += 1
        self._say_error(identifier, "ProtocolError", detail)
        if self._mistakes >= self._bounds.mistakes:
            self.end(NOT_THE_PROTOCOL, "too many mistakes")

    def _refuse(self, identifier: Id | None, text: str) -> None:
        self._reject("not_allowed")
        self._say_error(identifier, "NotAuthorized", text)
        self.end(NOT_ALLOWED, text[:100])

    async def _do(self, operation: Operation) -> None:
        match operation:
            case Auth(token):
                self._authenticate(token)
            case Publish():
                await self._publish(operation)
            case Subscribe(identifier, pattern):
                self._subscribe(identifier, pattern)
            case Unsubscribe(identifier):
                self._unsubscribe(identifier)
            case Request():
                self._request(operation)
            case Peers(identifier):
                self._peers(identifier)

    def _authenticate(self, token: str) -> None:
        grant = self._access.grant_token(token)
        if grant is None:
            self._reject("wrong_token")
            return self.end(NOT_AUTHENTICATED, "this token is not known, or counts no longer")
        self._grant = grant
        return self._say_ready()

    def _allows(self, action: str, topic: str) -> bool:
        assert self._grant is not None
        return self._grant.allows(action, topic)

    async def _publish(self, it: Publish) -> None:
        try:
            mesh.Pattern.parse(it.topic)
            # What belongs to the mesh itself nobody may publish: the node says so better.
            if not it.topic.startswith("@") and not self._allows("publish", it.topic):
                return self._refuse(it.id, f"this token does not allow to publish {it.topic!r}")
            await self._node.publish(it.topic, it.value, headers=it.headers)
        except MeshError as error:
            return self._failed(it.id, error)
        self._counters.published += 1
        if it.id is not None:
            self._say("published", it.id)
        return None

    def _failed(self, identifier: Id | None, error: MeshError) -> None:
        if isinstance(error, NotAuthorized):
            self._refuse(identifier, str(error))
        else:
            self._say_error(identifier, type(error).__name__, str(error))

    def _is_taken(self, identifier: Id) -> bool:
        if identifier in self._feeds or identifier in self._watches or identifier in self._requests:
            self._mistaken(identifier, "id: it is in use")
            return True
        return False

    def _start(self, task: Callable[..., Awaitable[None]], *args: Any) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(task, *args)

    # -- subscriptions --------------------------------------------------------------------

    def _subscribe(self, identifier: Id, pattern: str) -> None:
        if self._is_taken(identifier):
            return None
        try:
            mesh.Pattern.parse(pattern)
        except MeshError as error:
            return self._failed(identifier, error)
        assert self._grant is not None
        if not self._grant.allows_pattern(pattern):
            return self._refuse(identifier, f"this token does not allow to subscribe to {pattern!r}")
        if not self._has_room(identifier):
            return None
        feed = self._feeds[identifier] = Feed(identifier, pattern)
        return self._start(self._join, feed)

    def _has_room(self, identifier: Id) -> bool:
        if len(self._feeds) + len(self._watches) < self._bounds.subscriptions:
            return True
        self._reject("too_many_subscriptions")
        self._say_error(
            identifier, "TooMany", f"a client has at most {self._bounds.subscriptions} subscriptions"
        )
        return False

    async def _join(self, feed: Feed) -> None:
        try:
            await self._hub.join(feed, self._out, lambda: self._say("subscribed", feed.id))
        except MeshError as error:
            if self._feeds.get(feed.id) is feed:
                del self._feeds[feed.id]
                self._failed(feed.id, error)

    def _unsubscribe(self, identifier: Id) -> None:
        feed = self._feeds.pop(identifier, None)
        watch = self._watches.pop(identifier, None)
        if feed is not None:
            self._hub.leave(feed)
        elif watch is not None:
            watch.cancel()
        else:
            return self._mistaken(identifier, "id: there is no subscription with it")
        return self._say("unsubscribed", identifier)

    def _peers(self, identifier: Id) -> None:
        if not self._is_taken(identifier) and self._has_room(identifier):
            self._watches[identifier] = trio.CancelScope()
            self._start(self._watch, identifier, self._watches[identifier])

    async def _watch(self, identifier: Id, scope: trio.CancelScope) -> None:
        with scope:
            async for event in self._node.watch_peers():
                self._say("peer", identifier, **event_fields(event))

    # -- requests ---------------------------------------------------------------------------

    def _request(self, it: Request) -> None:
        if self._is_taken(it.id):
            return None
        try:
            mesh.Pattern.parse(it.topic)
        except MeshError as error:
            return self._failed(it.id, error)
        if not self._allows("request", it.topic):
            return self._refuse(it.id, f"this token does not allow to request {it.topic!r}")
        if len(self._requests) >= self._bounds.requests:
            self._reject("too_many_requests")
            return self._say_error(
                it.id, "TooMany", f"{self._bounds.requests} requests are in flight already"
            )
        scope = self._requests[it.id] = trio.CancelScope()
        return self._start(self._ask, it, scope)

    async def _ask(self, it: Request, scope: trio.CancelScope) -> None:
        timeout = min(it.timeout or self._node.config.request_timeout, self._bounds.request_timeout)
        try:
            with scope:
                reply = await self._node.request_one(it.topic, it.value, timeout=timeout, headers=it.headers)
                value = reply.value
                self._say("reply", it.id, value=value, sender=reply.sender.name)
                self._counters.requested += 1
        except MeshError as error:
            self._failed(it.id, error)
        finally:
            self._requests.pop(it.id, None)
