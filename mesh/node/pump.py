"""Between the sockets and the engine: every input in, every effect out.

transport event → engine → (a batch → the node's ``deliver``; a program's message → the
node's ``dispatch``) → the engine's effects, carried out in order, before the next input.
Nothing here waits and nothing here decides.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import trio

from mesh.core import effects as do
from mesh.core.engine import Engine
from mesh.core.receiver import Delivery
from mesh.core.session import Session
from mesh.core.types import NodeId
from mesh.node.credentials import Change
from mesh.node.outbox import Outbox
from mesh.transport.base import IntroRoute, Transport, Verdict

__all__ = ["Consumer", "Pump"]

log = logging.getLogger("mesh.node")

_LATE: Final = 0.1
"""Seconds by which a timer has to be late to mean that this process was kept from running."""

_AWAY: Final = 1.0
"""Seconds by which a timer has to be late to mean that the whole process was away."""


class Consumer(Protocol):
    """Where a program's messages and the news of peers go."""

    def deliver(self, delivery: Delivery) -> None: ...
    def dispatch(self, session: Session, message: Any, clock: float) -> None: ...
    def deliver_late(self, effect: do.Deliver) -> None: ...
    def lost(self, loss: do.Lost) -> None: ...
    def cut_off(self, cut: do.CutOff) -> None: ...
    def reopened(self) -> None: ...
    def announce(self, tag: bytes, frame: bytes) -> None: ...
    def peer_changed(self, change: do.PeerChanged) -> None: ...
    def ponged(self, peer: NodeId, token: int, rtt: float | None) -> None: ...
    def credentials_changed(self, change: Change) -> None: ...
    def incident(self, incident: do.Incident) -> None: ...
    def progressed(self) -> None: ...


class Pump:
    """The transport's events (``TransportEvents``) and the engine's effects, joined."""

    def __init__(
        self,
        engine: Engine,
        transport: Transport,
        outbox: Outbox,
        consumer: Consumer,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.engine = engine
        self._transport = transport
        self._outbox = outbox
        self._consumer = consumer
        self._wall = wall
        self._dial_of: dict[IntroRoute, int] = {}
        self._route_of: dict[int, IntroRoute] = {}
        self._wake = trio.Event()
        self._due = float("inf")
        self._tags_set = False
        self.rejected_by_transport: dict[str, int] = {}
        self._carry_out: dict[type[Any], Callable[[Any], None]] = {
            do.Dial: self._dial,
            do.SendDialled: self._send_dialled,
            do.HangUp: self._hang_up,
            do.SendIntro: lambda e: transport.send_intro(e.route, e.frame),
            do.CloseIntro: lambda e: transport.close_intro(e.route),
            do.Allow: lambda e: transport.allow(e.peer, e.link_key),
            do.Disallow: lambda e: transport.disallow(e.peer),
            do.OpenLink: self._open_link,
            do.CloseLink: self._close_link,
            do.SendDirect: self._send_direct,
            do.AdmitBroadcast: lambda e: transport.admit_broadcast(e.host),
            do.DismissBroadcast: lambda e: transport.dismiss_broadcast(e.host),
            do.CutSubscriber: lambda e: transport.cut_subscriber(e.peer, e.before),
            do.ConnectBroadcast: lambda e: transport.connect_broadcast(e.peer, e.endpoint),
            do.DisconnectBroadcast: lambda e: transport.disconnect_broadcast(e.peer),
            do.Subscribe: lambda e: transport.subscribe(e.body),
            do.Unsubscribe: lambda e: transport.unsubscribe(e.body),
            do.PublishFrame: lambda e: consumer.announce(e.tag, e.frame),
            do.Deliver: consumer.deliver_late,
            do.Lost: consumer.lost,
            do.CutOff: consumer.cut_off,
            do.Reopened: lambda e: consumer.reopened(),
            do.PeerChanged: consumer.peer_changed,
            do.RevocationsAdopted: consumer.credentials_changed,
            do.CertificateRenewed: consumer.credentials_changed,
            do.Incident: consumer.incident,
        }

    # -- transport events --------------------------------------------------------

    def intro_received(self, route: IntroRoute, frame: bytes, host: str) -> None:
        dial = self._dial_of.get(route)
        if dial is None:
            self.engine.stranger_received(route, frame, host, trio.current_time())
        else:
            self.engine.dial_answered(dial, frame, trio.current_time())
        self.apply()

    def intro_failed(self, route: IntroRoute, reason: str) -> None:
        dial = self._dial_of.get(route)
        if dial is not None:
            self.engine.dial_failed(dial, reason, trio.current_time())
            self.apply()

    def direct_seen(self, sender: NodeId, host: str) -> None:
        self.engine.direct_seen(sender, host)

    def direct_received(self, sender: NodeId, frames: Sequence[bytes]) -> None:
        clock = trio.current_time()
        engine = self.engine
        control = False
        for frame in frames:
            message = engine.direct_received(sender, frame, clock)
            if message is None:
                control = True
            else:
                self._consumer.dispatch(engine.links.sessions[sender], message, clock)
            if engine.pongs:
                pongs, engine.pongs = engine.pongs, []
                for pong in pongs:
                    self._consumer.ponged(*pong)
            self._carry_out_all()
        if control:
            self._reschedule()
        released = engine.receiver.take_released()
        if released:
            self.broadcast_received(released)

    def broadcast_received(self, frames: Sequence[tuple[bytes, bytes]]) -> None:
        clock = trio.current_time()
        changed = False
        receive, deliver = self.engine.broadcast_received, self._consumer.deliver
        for tag, frame in frames:
            delivery = receive(tag, frame, clock)
            if delivery is not None:
                deliver(delivery)
            else:
                # What it left behind (a hole that was filled, say) comes before the next frame's;
                # or it found a hole, which is to be asked for.
                self._carry_out_all()
                changed = True
        if self._carry_out_all() or changed:
            self._reschedule()

    def subscription_received(self, body: bytes) -> Verdict:
        answer = self.engine.subscription_received(body)
        # Barriers are answered in the next tick, when the tag stands on the pipe.
        if not self._tags_set:
            self._tags_set = True
            self._wake.set()
        return Verdict(answer.tag, answer.subscribe, answer.source)

    def rejected(self, plane: str, reason: str, count: int) -> None:
        key = f"{plane}_{reason}"
        self.rejected_by_transport[key] = self.rejected_by_transport.get(key, 0) + count

    # -- effects -----------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def apply(self) -> None:
        """Carry out what the engine wants done, and call it in time."""
        self._carry_out_all()
        self._reschedule()

    def _reschedule(self) -> None:
        if self.engine.next_timer(trio.current_time()) < self._due:
            self._wake.set()

    @trio.lowlevel.enable_ki_protection
    def _carry_out_all(self) -> bool:
        """Whether there was anything."""
        taken = self.engine.take_effects()
        if not taken:
            return False
        while taken:
            for effect in taken:
                self._carry_out[type(effect)](effect)
            taken = self.engine.take_effects()
        self._consumer.progressed()
        return True

    def _dial(self, effect: do.Dial) -> None:
        route = self._transport.dial_intro(effect.endpoint)
        self._dial_of[route] = effect.dial
        self._route_of[effect.dial] = route
        self._transport.send_intro(route, effect.frame)

    def _send_dialled(self, effect: do.SendDialled) -> None:
        route = self._route_of.get(effect.dial)
        if route is not None:
            self._transport.send_intro(route, effect.frame)

    def _hang_up(self, effect: do.HangUp) -> None:
        route = self._route_of.pop(effect.dial, None)
        if route is not None:
            self._dial_of.pop(route, None)
            self._transport.close_intro(route)

    def _open_link(self, effect: do.OpenLink) -> None:
        self._outbox.discard(effect.peer)
        self._transport.open_link(effect.peer, effect.link_key, effect.endpoint)

    def _close_link(self, effect: do.CloseLink) -> None:
        self._outbox.discard(effect.peer)
        self._transport.close_link(effect.peer)

    def _send_direct(self, effect: do.SendDirect) -> None:
        self.send(effect.peer, effect.message)

    def send(self, peer: NodeId, message: Any) -> bool:
        """Encode and queue a message for a peer; False if its queue is full."""
        return self._outbox.send_message(peer, message)

    # -- time ----------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def run_timers(self) -> None:
        """Call the engine when something is due, until cancelled."""
        while True:
            self._wake = trio.Event()
            clock = trio.current_time()
            late = clock - self._due
            if late > _AWAY:
                self.engine.awoke(clock, late)
            elif late > _LATE:
                self.engine.late(late, clock)
            if self._tags_set:
                self._tags_set = False
                self.engine.subscription_set(clock)
            self.engine.handle_timer(clock, self._wall())
            self.apply()
            self._due = self.engine.next_timer(trio.current_time())
            with trio.move_on_at(self._due):
                await self._wake.wait()
