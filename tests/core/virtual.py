"""A virtual network for engines: no sockets, no tasks, a clock that only ``run`` moves.

Each engine's effects are carried out at once; frames travel through one queue in the order of
their arrival times.  Loss, delay, cuts and pauses are knobs, and every random choice comes from one
seeded generator, so that a run replays exactly.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any

from mesh.config import Config
from mesh.core import effects as do
from mesh.core.chunks import Cutting, Piece
from mesh.core.codec import encode_batch, encode_chunk, encode_direct, encode_value
from mesh.core.engine import Engine
from mesh.core.envelope import BATCH, CHUNK, KEPT, KEPT_CHUNK
from mesh.core.handshake import Papers
from mesh.core.identity import (
    Revocations,
    SigningKey,
    issue_certificate,
    issue_revocations,
    secret_hash,
)
from mesh.core.messages import Batch, Chunk, PartMessage
from mesh.core.parts import place_of
from mesh.core.receiver import Delivery
from mesh.core.reorder import Fresh
from mesh.core.router import SUBSCRIPTION
from mesh.core.types import Address, NodeId, mesh_id

START = 1_800_000_000.0
"""The wall clock's time at clock 0."""


class World:
    """Engines, and what is on its way between them."""

    def __init__(self, seed: int = 0, *, delay: float = 0.001, loss: float = 0.0) -> None:
        self.random = Random(seed)
        self.clock = 0.0
        self.delay = delay
        self.loss = loss
        self.ca = SigningKey.from_seed(self.random.randbytes(32))
        self.secret = self.random.randbytes(32)
        self.nodes: dict[str, VirtualNode] = {}
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._streams: dict[tuple[str, str], deque[tuple[VirtualNode, Callable[[], None]]]] = {}
        self.delays: dict[str, float] = {}  # plane ("direct", "broadcast") → seconds that it is slower by
        self.ways: dict[tuple[str, str], float] = {}
        self.places: dict[str, VirtualNode] = {}  # endpoints of those who live on another's host
        self.cuts: set[tuple[str, str]] = set()  # (from, to): nothing passes

    def add(self, name: str, config: Config | None = None, **papers: Any) -> VirtualNode:
        node = VirtualNode(self, name, config or Config.lan(), **papers)
        self.nodes[name] = node
        return node

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.clock + seconds, next(self._order), act))

    def pass_frame(
        self, source: VirtualNode, target: VirtualNode, act: Callable[[], None], plane: str = ""
    ) -> None:
        """Carry a frame, or lose it. Links keep order: a constant delay."""
        if (source.name, target.name) in self.cuts or self.random.random() < self.loss:
            return

        def arrive() -> None:
            if target.paused:
                target.missed.append(act)
            elif target.running:
                act()
                target.carry_out()

        self.later(self.delay + self.delays.get(plane, 0.0) + self.way(source.name, target.name), arrive)

    def way(self, source: str, target: str) -> float:
        """How much longer it takes from one to the other, in this direction."""
        return self.ways.get((source, target), 0.0)

    def pass_stream(self, source: VirtualNode, target: VirtualNode, act: Callable[[], None]) -> None:
        """As a TCP connection does it: what is lost is sent again, and nothing overtakes."""
        line = self._streams.setdefault((source.name, target.name), deque())
        line.append((target, act))
        if len(line) == 1:
            slow = self.delay + self.way(source.name, target.name)
            self.later(slow, lambda: self._stream_on(source.name, target.name))

    def _stream_on(self, source: str, target: str) -> None:
        line = self._streams[source, target]
        if (source, target) in self.cuts or line[0][0].paused or self.random.random() < self.loss:
            self.later(0.2, lambda: self._stream_on(source, target))
            return
        node, act = line.popleft()
        if node.running:
            act()
            node.carry_out()
        if line:
            self.later(0.0, lambda: self._stream_on(source, target))

    def run(self, seconds: float) -> None:
        """Let that much time pass."""
        end = self.clock + seconds
        for node in self.nodes.values():
            node.due = None  # a test may have done anything to it
        while True:
            due = end
            for node in self.nodes.values():
                if node.running and not node.paused:
                    if node.due is None:
                        node.due = node.engine.next_timer(self.clock)
                    due = min(due, node.due)
            due = max(due, self.clock)
            at = self._queue[0][0] if self._queue else end
            when = min(due, at, end)
            self.clock = max(self.clock, when)
            if at <= self.clock and self._queue and at <= due:
                heapq.heappop(self._queue)[2]()
            elif due <= self.clock < end:
                for node in list(self.nodes.values()):
                    if node.running and not node.paused and node.engine.next_timer(self.clock) <= self.clock:
                        node.tick()
                    node.due = None
                self.clock += 1e-6  # a timer that is due again at once must not stop the clock
            if self.clock >= end and not (self._queue and self._queue[0][0] <= end):
                return

    def revoke(self, version: int, *names: str) -> tuple[bytes, bytes]:
        """The CA's list of that version with these members on it, and the mesh secret that goes with it."""
        secret = Random(version).randbytes(32)
        mesh = mesh_id(self.ca.public)
        members = frozenset(self.nodes[name].member.member_id for name in names)
        listed = Revocations(mesh, version, members, version, secret_hash(secret, version))
        return issue_revocations(self.ca, listed), secret

    def meet(self) -> None:
        """Everybody is told of everybody, and gets to know each other."""
        for node in self.nodes.values():
            for other in self.nodes.values():
                if other is not node:
                    node.engine.hint(other.id, [a.intro for a in other.addresses], self.clock)
            node.carry_out()
        self.run(1.0)


class VirtualNode:
    """One engine with a virtual transport around it."""

    def __init__(
        self,
        world: World,
        name: str,
        config: Config,
        *,
        ca: SigningKey | None = None,
        member: SigningKey | None = None,
        **certificate: Any,
    ) -> None:
        self.world = world
        self.name = name
        self.member = member or SigningKey.from_seed(world.random.randbytes(32))
        signer = ca or world.ca
        encoded = issue_certificate(
            signer,
            public_key=self.member.public,
            name=name,
            roles=certificate.get("roles", ()),
            not_before=certificate.get("not_before", int(START) - 10),
            expires=certificate.get("expires", int(START) + 86400 * 365),
            serial=1,
        )
        papers = Papers(mesh_id(signer.public), signer.public, self.member, encoded, world.secret, 1, None)
        self.engine = Engine(
            config,
            papers,
            world.random.randbytes(32),
            name,
            world.random.randbytes,
            world.clock,
            START + world.clock,
        )
        self.id: NodeId = self.engine.node
        self.addresses = (Address(f"tcp://{name}:1", f"tcp://{name}:2", f"tcp://{name}:3"),)
        self.engine.set_addresses(self.addresses, world.clock)
        self.running, self._paused_at = True, float("inf")
        self.longest_away = 0.0  # seconds that it was paused, at a time
        self.due: float | None = None  # when its engine wants to be called, as far as that is known
        self.skew = 0.0  # seconds by which its wall clock is wrong
        self.missed: list[Callable[[], None]] = []
        self.parted = 0  # messages that went in parts
        self.allowed: set[NodeId] = set()
        self.links: dict[NodeId, str] = {}
        self.dialled: dict[int, str] = {}
        self.upstream: dict[NodeId, str] = {}  # whose broadcasts our subscriber is connected to
        self.bodies: list[bytes] = []
        self.tags: dict[str, Counter[bytes]] = defaultdict(Counter)  # subscriber's name → its tags here
        self.sources: dict[str, tuple[NodeId, int]] = {}  # subscriber's name → as whom, in which epoch
        self.renewed: list[bytes] = []
        self.adopted: list[tuple[bytes, bytes]] = []
        self.events: list[tuple[str, str]] = []
        self.deliveries: list[Delivery] = []
        self.messages: list[tuple[str, Any]] = []
        self.incidents: list[do.Incident] = []
        self.losses: list[do.Lost] = []
        self.repaired = 0
        self.given: dict[int, list[tuple[str, int]]] = defaultdict(list)  # subscription → topics and numbers
        self.carry_out()

    # -- a program's side ---------------------------------------------------------

    def subscribe(self, pattern: str, **options: Any) -> Any:
        entry = self.engine.add_interest(SUBSCRIPTION, pattern, self.world.clock, **options)
        self.carry_out()
        return entry

    def publish(self, topic: str, *values: Any) -> bool:
        """One batch; False if nobody wants it."""
        kind, _ = encode_value(values[0])
        line = self.engine.outgoing.line(topic)
        batch = Batch(topic, line.next, 0, kind, [encode_value(v)[1] for v in values], None)
        encoded = encode_batch(batch)
        line.next += len(values)
        if line.ring is not None:
            line.ring.append(len(values), encoded)
        if not self.engine.router.route(topic).broadcast:
            return False
        tag = self.engine.broadcast.tag(topic)
        for plaintext, kind in self.frames_of(topic, batch.sequence, encoded, kept=line.reliable):
            self.broadcast(tag, self.engine.broadcast.seal(tag, plaintext, self.world.clock, kind))
        if not line.recent:
            self.engine.outgoing.stir(line)
            self.engine.outgoing.settle(self.world.clock)
        return True

    def pieces_of(self, whole: bytes) -> list[Piece]:
        """In one, or as many as it takes."""
        limits = self.engine.config.limits
        cutting = Cutting(
            None, whole, self.engine.config.piece_bytes if len(whole) > limits.whole_bytes else None
        )
        pieces = [cutting.next()]
        while cutting.left:
            pieces.append(cutting.next())
        return pieces

    def frames_of(self, topic: str, number: int, encoded: bytes, *, kept: bool) -> list[tuple[bytes, int]]:
        """The plaintexts of a batch, and their types."""
        pieces = self.pieces_of(encoded)
        if len(pieces) == 1:
            return [(encoded, KEPT if kept else BATCH)]
        kind = KEPT_CHUNK if kept else CHUNK
        return [(encode_chunk(Chunk(topic, number, p.total, p.offset), p.data), kind) for p in pieces]

    def keep(self, topic: str, size: int = 1 << 20, **how: Any) -> None:
        """What is published on it from now on is kept, to be repaired unless it says otherwise."""
        self.engine.outgoing.keep(self.engine.outgoing.line(topic), size, **(how or {"reliable": True}))

    @property
    def peers(self) -> set[str]:
        return {s.name for s in self.engine.links.sessions.values() if s.joined}

    def received(self, topic: str) -> list[bytes]:
        return [v for d in self.deliveries if d.batch.topic == topic for v in d.batch.values[d.skip :]]

    @property
    def lost(self) -> int:
        """Messages that this node knows to be lost."""
        return sum(d.lost for d in self.deliveries) + sum(each.end - each.first for each in self.losses)

    def stop(self) -> None:
        self.engine.say_goodbye(self.world.clock)
        self.carry_out()
        self.running = False

    def kill(self) -> None:
        self.running = False

    @property
    def paused(self) -> bool:
        return self._paused_at < float("inf")

    def pause(self) -> None:
        self._paused_at = self.world.clock

    def resume(self) -> None:
        self.longest_away = max(self.longest_away, self.world.clock - self._paused_at)
        away, self._paused_at = self.world.clock - self._paused_at, float("inf")
        self.engine.awoke(self.world.clock, away)
        self.tick()
        missed, self.missed = self.missed, []
        for act in missed:
            act()
            self.carry_out()

    # -- the transport ---------------------------------------------------------------

    def tick(self) -> None:
        self.engine.subscription_set(self.world.clock)
        self.engine.handle_timer(self.world.clock, START + self.world.clock + self.skew)
        self.carry_out()

    def carry_out(self) -> None:
        self.due = None
        while taken := self.engine.take_effects():
            for effect in taken:
                getattr(self, "_" + type(effect).__name__)(effect)

    def _at(self, endpoint: str) -> VirtualNode | None:
        node = self.world.places.get(endpoint)
        node = node or self.world.nodes.get(endpoint.split("//")[1].split(":")[0])
        return node if node is not None and node.running else None

    def _Dial(self, effect: do.Dial) -> None:
        target = self._at(effect.endpoint)
        self.dialled[effect.dial] = effect.endpoint
        if target is not None:
            target.strangers[effect.dial, self.name] = self
            self._knock(target, effect.dial, effect.frame)

    def _knock(self, target: VirtualNode, dial: int, frame: bytes) -> None:
        route = target.route_of(self.name, dial)
        clock = self.world
        self.world.pass_frame(
            self, target, lambda: target.engine.stranger_received(route, frame, self.name, clock.clock)
        )

    @property
    def strangers(self) -> dict[tuple[int, str], VirtualNode]:
        return self.__dict__.setdefault("_strangers", {})

    def route_of(self, name: str, dial: int) -> int:
        routes = self.__dict__.setdefault("_routes", {})
        return routes.setdefault((name, dial), len(routes) + 1)

    def _SendDialled(self, effect: do.SendDialled) -> None:
        target = self._at(self.dialled.get(effect.dial, "tcp://nobody:1"))
        if target is not None:
            self._knock(target, effect.dial, effect.frame)

    def _HangUp(self, effect: do.HangUp) -> None:
        self.dialled.pop(effect.dial, None)

    def _SendIntro(self, effect: do.SendIntro) -> None:
        routes = self.__dict__["_routes"]
        name, dial = next(key for key, route in routes.items() if route == effect.route)
        target = self.world.nodes.get(name)
        if target is None:
            return
        self.world.pass_frame(
            self, target, lambda: target.engine.dial_answered(dial, effect.frame, self.world.clock)
        )

    def _CloseIntro(self, effect: do.CloseIntro) -> None:
        pass

    def _Allow(self, effect: do.Allow) -> None:
        self.allowed.add(effect.peer)

    def _Disallow(self, effect: do.Disallow) -> None:
        self.allowed.discard(effect.peer)

    def _OpenLink(self, effect: do.OpenLink) -> None:
        self.links[effect.peer] = effect.endpoint
        target = self._at(effect.endpoint)
        if target is not None:
            self.world.pass_frame(self, target, lambda: target.engine.direct_seen(self.id, self.name))

    def _CloseLink(self, effect: do.CloseLink) -> None:
        self.links.pop(effect.peer, None)

    def _SendDirect(self, effect: do.SendDirect) -> None:
        frame = encode_direct(effect.message)
        target = self._at(self.links.get(effect.peer, "tcp://nobody:1"))
        if target is None or target.id != effect.peer:
            return
        for part in self._parts_of(effect.message, frame):
            self.world.pass_frame(
                self, target, lambda part=part, target=target: target.direct(self, part), "direct"
            )  # type: ignore[misc]

    def _parts_of(self, message: Any, frame: bytes) -> list[bytes]:
        pieces, place = self.pieces_of(frame), place_of(message)
        if len(pieces) == 1 or place is None:
            return [frame]
        self.parted += 1
        return [
            encode_direct(PartMessage(self.parted, place.code, place.about, p.total, p.offset, bytes(p.data)))
            for p in pieces
        ]

    def direct(self, source: VirtualNode, frame: bytes) -> None:
        if source.id not in self.allowed:
            return
        message = self.engine.direct_received(source.id, frame, self.world.clock)
        if message is not None:
            self.messages.append((source.name, message))

    def _AdmitBroadcast(self, effect: do.AdmitBroadcast) -> None:
        pass

    def _DismissBroadcast(self, effect: do.DismissBroadcast) -> None:
        pass

    def _CutSubscriber(self, effect: do.CutSubscriber) -> None:
        for name, (peer, epoch) in list(self.sources.items()):
            if peer == effect.peer and epoch < effect.before:
                del self.sources[name]
                self.tags.pop(name, None)
                self.world.nodes[name].reconnect(self)

    def reconnect(self, publisher: VirtualNode) -> None:
        """A connection of ours was cut: libzmq connects anew, and repeats what we subscribe."""
        for endpoint in self.upstream.values():
            if self._at(endpoint) is publisher:
                for body in self.bodies:
                    self._tell(endpoint, b"\1" + body)

    def _CertificateRenewed(self, effect: do.CertificateRenewed) -> None:
        self.renewed.append(effect.encoded)

    def _RevocationsAdopted(self, effect: do.RevocationsAdopted) -> None:
        self.adopted.append((effect.encoded, effect.secret))

    def _ConnectBroadcast(self, effect: do.ConnectBroadcast) -> None:
        self._DisconnectBroadcast(do.DisconnectBroadcast(effect.peer))
        self.upstream[effect.peer] = effect.endpoint
        for body in self.bodies:
            self._tell(effect.endpoint, b"\1" + body)

    def _DisconnectBroadcast(self, effect: do.DisconnectBroadcast) -> None:
        endpoint = self.upstream.pop(effect.peer, None)
        target = None if endpoint is None else self._at(endpoint)
        if target is not None:
            target.tags.pop(self.name, None)

    def _Subscribe(self, effect: do.Subscribe) -> None:
        self.bodies.append(effect.body)
        for endpoint in self.upstream.values():
            self._tell(endpoint, b"\1" + effect.body)

    def _Unsubscribe(self, effect: do.Unsubscribe) -> None:
        self.bodies.remove(effect.body)
        for endpoint in self.upstream.values():
            self._tell(endpoint, b"\0" + effect.body)

    def _tell(self, endpoint: str, message: bytes) -> None:
        target = self._at(endpoint)
        if target is not None:
            self.world.pass_stream(self, target, lambda: target.heard_subscription(self.name, message))

    def heard_subscription(self, subscriber: str, message: bytes) -> None:
        verdict = self.engine.subscription_received(message)
        if verdict.tag is not None and verdict.source is not None:
            self.sources[subscriber] = verdict.source
            self.tags[subscriber][verdict.tag] += 1 if verdict.subscribe else -1
        self.engine.subscription_set(self.world.clock)

    def _PublishFrame(self, effect: do.PublishFrame) -> None:
        self.broadcast(effect.tag, effect.frame)

    def broadcast(self, tag: bytes, frame: bytes) -> None:
        for name, tags in self.tags.items():
            target = self.world.nodes.get(name)
            if (
                target is not None
                and target.running
                and any(tag.startswith(t) for t, n in tags.items() if n > 0)
            ):
                self.world.pass_frame(
                    self, target, lambda t=target: t.heard_broadcast(tag, frame), "broadcast"
                )  # type: ignore[misc]

    def heard_broadcast(self, tag: bytes, frame: bytes) -> None:
        delivery = self.engine.broadcast_received(tag, frame, self.world.clock)
        if delivery is not None:
            self.deliveries.append(delivery)
            self.give(delivery.publisher, delivery.batch, delivery.skip)

    def give(self, publisher: NodeId, batch: Batch, skip: int) -> None:
        """To its subscriptions, as a node's inbox does."""
        catchups = self.engine.accounts.catchups
        for number in self.engine.router.route(batch.topic).local:
            taken = None
            if publisher in catchups.behind:
                taken = catchups.take(number, publisher, batch, self.world.clock)
            for step in [Fresh(batch, skip)] if taken is None else taken.steps:
                if isinstance(step, Fresh):
                    self._give_to(number, *step)

    def _give_to(self, number: int, batch: Batch, skip: int) -> None:
        last = batch.sequence + len(batch.values)
        self.given[number] += [(batch.topic, n) for n in range(batch.sequence + skip, last)]

    def _Deliver(self, effect: do.Deliver) -> None:
        if effect.only:
            self._give_to(effect.only, effect.batch, effect.skip)
            return
        self.deliveries.append(Delivery(effect.peer, effect.batch, effect.skip, 0))
        self.give(effect.peer, effect.batch, effect.skip)
        if effect.repaired:
            self.repaired += len(effect.batch.values) - effect.skip

    def _Lost(self, effect: do.Lost) -> None:
        self.losses.append(effect)

    def _PeerChanged(self, effect: do.PeerChanged) -> None:
        name = next((n.name for n in self.world.nodes.values() if n.id == effect.peer), "?")
        self.events.append((effect.change.value, name))

    def _CutOff(self, effect: do.CutOff) -> None:
        pass  # nobody is waited for in here

    _Reopened = _CutOff  # type: ignore[assignment]

    def _Incident(self, effect: do.Incident) -> None:
        self.incidents.append(effect)
