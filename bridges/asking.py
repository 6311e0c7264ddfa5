"""Requests across a bridge, both ways.

    a mesh request → ``session.request`` → a worker at the broker → its reply → the caller      (``Asked``)
    a broker's request (``reply_to``) → ``node.request`` → a mesh responder → ``session.reply``  (``Asking``)

Errors travel as replies with the header ``mesh-error`` (the type's name) and the text as value; back in the mesh
they are ``RemoteError`` again.  Every connected bridge of a route takes part: the mesh and the broker share requests
out by themselves, each to one.
"""

from __future__ import annotations

from typing import Any, Final

import trio

import mesh
from bridges.base import BrokerRejected, BrokerUnavailable, Delivery, Receiver, Session
from bridges.counters import RouteCounters
from bridges.crossing import Inward, Looped, Outward
from bridges.messages import ERROR, BrokerMessage
from bridges.settings import ExportRoute, ImportRoute
from bridges.values import Unmappable, encode, from_broker

__all__ = ["Asked", "Asking", "BridgedError"]

_AT_ONCE: Final = 64
"""Requests of a broker's clients that wait for the mesh at once; the others wait at the broker."""


class BridgedError(Exception):
    """What a worker at the broker answered instead of a value; the caller has it as ``RemoteError``."""


class Asked:
    """An export route of requests: the bridge serves its pattern, and asks at the broker."""

    def __init__(self, route: ExportRoute, outward: Outward, counters: RouteCounters) -> None:
        self.route = route
        self.counters = counters
        self._outward = outward

    async def run(self, node: mesh.Node, session: Session) -> None:
        """Serve for as long as the connection lasts: without one, nobody is there to answer."""

        async def handle(request: mesh.Request) -> Any:
            return await self._handle(session, request)

        await node.serve(self.route.pattern, handle)

    async def _handle(self, session: Session, request: mesh.Request) -> Any:
        try:
            message = self._outward.request(request)
            reply = await session.request(self.route, message, self.route.timeout)
            value = from_broker(reply.data, reply.content_type, self.route.format)
        except Looped:
            self.counters.looped += 1
            raise BridgedError("the request has passed this bridge before") from None
        except (Unmappable, BrokerRejected) as error:
            self.counters.rejected(error.reason, error.detail)
            if error.reason == "unroutable":
                raise mesh.NoResponders(request.topic) from None
            raise BridgedError(str(error)) from None
        except BrokerUnavailable as error:
            self.counters.dropped("away", 1)
            raise BridgedError(str(error)) from None
        except trio.TooSlowError:
            self.counters.dropped("no reply", 1)
            raise BridgedError(f"no reply from the broker within {self.route.timeout:g} s") from None
        self.counters.moved += 1
        failed = reply.headers.get(ERROR)
        if failed is not None:
            raise BridgedError(f"{failed}: {value}")
        return value


class Asking:
    """An import route of requests: what clients of the broker ask, the mesh answers."""

    def __init__(self, node: mesh.Node, route: ImportRoute, inward: Inward, counters: RouteCounters) -> None:
        self.route = route
        self.counters = counters
        self.live = trio.Event()  # the broker gives us what comes now
        self._node = node
        self._inward = inward

    async def run(self, session: Session) -> None:
        """Answer for as long as the connection lasts. Raises ``BrokerUnavailable``, ``BrokerRejected``."""
        limiter = trio.CapacityLimiter(_AT_ONCE)
        settling = trio.Lock()
        async with session.receive(self.route) as receiver, trio.open_nursery() as nursery:
            self.live.set()
            try:
                while True:
                    for delivery in await receiver.receive():
                        # Taken here, given back by the task: what is not begun yet waits at the broker.
                        token = object()
                        await limiter.acquire_on_behalf_of(token)
                        nursery.start_soon(self._one, session, receiver, delivery, settling, limiter, token)
            finally:
                self.live = trio.Event()

    async def _one(
        self,
        session: Session,
        receiver: Receiver,
        delivery: Delivery,
        settling: trio.Lock,
        limiter: trio.CapacityLimiter,
        token: object,
    ) -> None:
        try:
            request = delivery.message
            why = ""
            if request.reply_to:
                try:
                    await session.reply(request, await self._answer(request))
                    self.counters.moved += 1
                except BrokerRejected as error:  # whoever asked is gone
                    self.counters.rejected(error.reason, error.detail)
            else:
                why = "no reply-to"
                self.counters.rejected(why, f"a request to {request.destination!r}")
            async with settling:
                await (receiver.reject(delivery, why) if why else receiver.acknowledge([delivery]))
        finally:
            limiter.release_on_behalf_of(token)

    async def _answer(self, request: BrokerMessage) -> BrokerMessage:
        route = self.route
        headers: dict[str, str] = {}
        try:
            taken = self._inward.take(request)
            value = await self._node.request(
                taken.topic, taken.value, timeout=route.timeout, headers=taken.headers
            )
            data, content_type = encode(value, route.format)
        except Looped:
            self.counters.looped += 1
            headers[ERROR] = "Looped"
            data, content_type = encode("the request has passed this bridge before", route.format)
        except (mesh.MeshError, Unmappable) as error:
            headers[ERROR] = error.type_name if isinstance(error, mesh.RemoteError) else type(error).__name__
            text = error.text if isinstance(error, mesh.RemoteError) else str(error)
            self.counters.rejected(headers[ERROR], text)
            data, content_type = encode(text, route.format)
        return BrokerMessage("", data, headers=headers, content_type=content_type)
