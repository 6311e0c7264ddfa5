"""The gateway as one task of a program: everything that serves clients, under one nursery.

``Gateway.run`` listens, serves until it is cancelled, tells every WebSocket 1001, and has ended some three seconds
later at the latest.  The daemon runs it (under supervision); any Trio program can, around a node of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import trio

import mesh
from bridges.web.access import Access, Tokens
from bridges.web.bounds import Bounds
from bridges.web.counters import Counters
from bridges.web.edge import Edge
from bridges.web.hub import Hub
from bridges.web.rest import Parts, application
from bridges.web.round_trips import RoundTrips
from bridges.web.server import Listening, Server, listen, tls_context
from bridges.web.traffic import TrafficMeter
from bridges.web.websocket import Sockets

__all__ = ["Gateway", "WebSettings"]

SAMPLE_EVERY: Final = 5.0
"""Seconds between two samples of the round trips to all peers."""

_log = logging.getLogger("mesh.web")


@dataclass(frozen=True, slots=True)
class WebSettings:
    """Where to listen and whom to let in. ``hosts`` are further names that this gateway is reached by;
    ``certificate`` and ``key`` are files in PEM: with a certificate it speaks TLS."""

    host: str = "127.0.0.1"
    port: int = 7480
    origins: Sequence[str] = ()
    hosts: Sequence[str] = ()
    certificate: str = ""
    key: str = ""


class Gateway:
    """One port for WebSocket and HTTP clients of a node."""

    def __init__(
        self,
        node: mesh.Node,
        tokens: Tokens,
        settings: WebSettings | None = None,
        *,
        bounds: Bounds | None = None,
    ) -> None:
        self._settings = settings = settings or WebSettings()
        self._node = node
        self._bounds = bounds = bounds or Bounds()
        self.counters = counters = Counters()
        access = Access(tokens, origins=settings.origins, hosts=(settings.host, *settings.hosts))
        self._hub = hub = Hub(node, bounds)
        self._sockets = sockets = Sockets(node, hub, access, bounds, counters)
        self._traffic = traffic = TrafficMeter(node, bounds)
        self._round_trips = trips = RoundTrips(node, bounds)
        app = application(Parts(node, hub, access, bounds, counters, sockets, traffic, trips))
        self._server = Server(Edge(app, sockets, access, bounds, counters), bounds, counters)
        self._tls = tls_context(settings.certificate, settings.key) if settings.certificate else None
        self._listening: Listening | None = None

    async def bind(self) -> list[str]:
        """Listen; the URLs where. Raises ``TransportError``. (``run`` does it where it was not done.)"""
        port = self._settings.port
        self._listening = await listen(self._settings.host, port, self._tls)
        return self._listening.urls

    async def run(self, *, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; ``task_status`` gets the URLs."""
        if self._listening is None:
            await self.bind()
        listening, self._listening = self._listening, None
        assert listening is not None
        async with trio.open_nursery() as parts:
            # The hub outlives the server's goodbye; the server ends when this task is cancelled.
            await parts.start(self._hub.run)
            parts.start_soon(self._sockets.watch)
            parts.start_soon(self._traffic.run)
            parts.start_soon(self._round_trips.run)
            parts.start_soon(self._sample)
            task_status.started(listening.urls)
            try:
                await self._server.run(listening, self._sockets.close)
            finally:
                parts.cancel_scope.cancel()

    async def _sample(self) -> None:
        """What peers' round trips are, now and then, for the histogram."""
        while True:
            for peer in self._node.peers.values():
                if peer.rtt is not None:
                    self.counters.round_trips.observe(peer.rtt)
            await trio.sleep(SAMPLE_EVERY)
