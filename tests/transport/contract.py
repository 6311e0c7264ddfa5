"""What every transport does, the fake and the real ones: one suite for all.

A test module makes a ``World`` fixture and inherits ``TransportContract``.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import trio
import zmq
from zmq.utils import z85

from mesh.config import Config, Limits
from mesh.core.types import Address, MeshId, NodeId, node_id
from mesh.transport.base import Bound, IntroRoute, LinkKey, Transport, Verdict

PIPE = 16
LIMITS = Limits(outbox_peer_bytes=PIPE * (64 << 10), frame_bytes=64 << 10)
CONFIG = Config.local(limits=LIMITS)
MESH = MeshId(b"the mesh's id 16")
OTHER_MESH = MeshId(b"another mesh's 1")


def new_link() -> LinkKey:
    public, secret = zmq.curve_keypair()
    return LinkKey(z85.decode(public), z85.decode(secret))


class Recorder:
    """Transport events, kept. ``until`` waits for what a test wants to see.

    A subscription body is ``who:tag``; that of ``refused`` is refused.
    """

    def __init__(self) -> None:
        self.intro: list[tuple[IntroRoute, bytes, str]] = []
        self.failed: list[tuple[IntroRoute, str]] = []
        self.direct: list[tuple[NodeId, bytes]] = []
        self.seen: list[tuple[NodeId, str]] = []
        self.broadcast: list[tuple[bytes, bytes]] = []
        self.subscriptions: list[bytes] = []
        self.sources: dict[bytes, tuple[NodeId, int]] = {}  # who stands for which peer and token epoch
        self.rejections: Counter[tuple[str, str]] = Counter()
        self._changed = trio.Event()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def until(self, predicate: Callable[[], object], seconds: float = 10.0) -> None:
        with trio.fail_after(seconds):
            while not predicate():
                await self._changed.wait()

    def intro_received(self, route: IntroRoute, frame: bytes, host: str) -> None:
        self.intro.append((route, frame, host))
        self._change()

    def intro_failed(self, route: IntroRoute, reason: str) -> None:
        self.failed.append((route, reason))
        self._change()

    def direct_received(self, sender: NodeId, frames: Sequence[bytes]) -> None:
        self.direct += [(sender, frame) for frame in frames]
        self._change()

    def direct_seen(self, sender: NodeId, host: str) -> None:
        self.seen.append((sender, host))
        self._change()

    def broadcast_received(self, frames: Sequence[tuple[bytes, bytes]]) -> None:
        self.broadcast += frames
        self._change()

    def subscription_received(self, body: bytes) -> Verdict:
        self.subscriptions.append(body)
        self._change()
        who, _, tag = body[1:].partition(b":")
        return Verdict(None if who == b"refused" else tag, body[:1] == b"\1", self.sources.get(who))

    def rejected(self, plane: str, reason: str, count: int) -> None:
        self.rejections[plane, reason] += count
        self._change()


@dataclass
class Node:
    """A transport that runs, and what it was told."""

    transport: Transport
    events: Recorder
    link: LinkKey
    address: Address
    host: str
    stop: Callable[[], None]

    @property
    def id(self) -> NodeId:
        return node_id(self.link.public)


class World(ABC):
    """Where transports of one kind live."""

    @abstractmethod
    def make(self, place: str | None, link: LinkKey, mesh: MeshId, config: Config) -> tuple[Transport, str]:
        """A transport at a place (None: any), and its host as others see it."""

    @abstractmethod
    def place(self) -> str:
        """A place where a node can be, and be again."""

    @abstractmethod
    def stuck_subscriber(
        self, publisher: Node, body: bytes
    ) -> AbstractAsyncContextManager[Callable[[], None]]:
        """Somebody who subscribes and takes nothing, until the function given is called."""

    @asynccontextmanager
    async def node(
        self,
        *,
        place: str | None = None,
        link: LinkKey | None = None,
        mesh: MeshId = MESH,
        config: Config = CONFIG,
    ) -> AsyncIterator[Node]:
        link = link or new_link()
        events = Recorder()
        transport, host = self.make(place, link, mesh, config)
        async with trio.open_nursery() as nursery:
            bound: Bound = await nursery.start(transport.run, events)
            yield Node(transport, events, link, bound.addresses[0], host, nursery.cancel_scope.cancel)
            nursery.cancel_scope.cancel()


def link_up(a: Node, b: Node) -> None:
    """A direct link from a to b."""
    b.transport.allow(a.id, a.link.public)
    a.transport.open_link(b.id, b.link.public, b.address.direct)


def listen_to(subscriber: Node, publisher: Node) -> None:
    """The subscriber's broadcast connection to the publisher."""
    publisher.transport.admit_broadcast(subscriber.host)
    subscriber.transport.connect_broadcast(publisher.id, publisher.address.broadcast)


async def subscribed(publisher: Node, message: bytes) -> None:
    await publisher.events.until(lambda: message in publisher.events.subscriptions)


async def publish(node: Node, tag: bytes, frame: bytes) -> None:
    while not node.transport.publish(tag, frame):
        await node.transport.wait_publishable()


class TransportContract:
    """The suite. ``world`` is a fixture of the inheriting class."""

    # -- intro plane -----------------------------------------------------------

    async def test_an_introduction_goes_both_ways(self, world: World) -> None:
        async with world.node() as a, world.node() as b:
            route = a.transport.dial_intro(b.address.intro)
            a.transport.send_intro(route, b"hello")
            await b.events.until(lambda: b.events.intro)
            theirs, frame, host = b.events.intro[0]
            assert (frame, host) == (b"hello", a.host)
            b.transport.send_intro(theirs, b"welcome")
            b.transport.close_intro(theirs)
            await a.events.until(lambda: a.events.intro)
            assert a.events.intro == [(route, b"welcome", b.host)]
            a.transport.close_intro(route)
            a.transport.close_intro(route)
            a.transport.send_intro(route, b"too late")
            b.transport.send_intro(theirs, b"too late")

    async def test_what_was_sent_before_hanging_up_arrives(self, world: World) -> None:
        async with world.node() as a, world.node() as b:
            route = a.transport.dial_intro(b.address.intro)
            a.transport.send_intro(route, b"refused, sorry")
            a.transport.close_intro(route)
            await b.events.until(lambda: b.events.intro)
            assert b.events.intro[0][1] == b"refused, sorry"

    async def test_two_introductions_at_once_are_told_apart(self, world: World) -> None:
        async with world.node() as a, world.node() as b:
            routes = [a.transport.dial_intro(b.address.intro) for _ in range(2)]
            for number, route in enumerate(routes):
                a.transport.send_intro(route, b"%d" % number)
            await b.events.until(lambda: len(b.events.intro) == 2)
            for theirs, frame, _ in b.events.intro:
                b.transport.send_intro(theirs, frame * 2)
            await a.events.until(lambda: len(a.events.intro) == 2)
            assert {(route, frame) for route, frame, _ in a.events.intro} == {
                (routes[0], b"00"),
                (routes[1], b"11"),
            }

    async def test_another_mesh_cannot_be_introduced_to(self, world: World) -> None:
        async with world.node() as a, world.node(mesh=OTHER_MESH) as b:
            route = a.transport.dial_intro(b.address.intro)
            a.transport.send_intro(route, b"hello")
            await a.events.until(lambda: a.events.failed)
            assert a.events.failed[0][0] == route
            assert "another mesh" in a.events.failed[0][1]
            assert not b.events.intro

    async def test_dialling_where_nobody_listens_fails(self, world: World) -> None:
        async with world.node() as a:
            async with world.node() as b:
                pass
            route = a.transport.dial_intro(b.address.intro)
            a.transport.send_intro(route, b"hello")
            await a.events.until(lambda: a.events.failed)
            assert a.events.failed == [(route, "connection refused")]

    async def test_strangers_who_wait_are_bounded(self, world: World) -> None:
        config = Config.local(limits=Limits(pending_handshakes=2))
        async with world.node() as a, world.node(config=config) as b:
            for number in range(3):
                route = a.transport.dial_intro(b.address.intro)
                a.transport.send_intro(route, b"%d" % number)
                await b.events.until(lambda number=number: len(b.events.intro) == number + 1)
            assert b.events.rejections["intro", "too_many_pending"] == 1
            for theirs, frame, _ in b.events.intro:
                b.transport.send_intro(theirs, frame)
            await a.events.until(lambda: len(a.events.intro) == 2)
            assert sorted(frame for _, frame, _ in a.events.intro) == [b"1", b"2"]

    # -- direct plane ----------------------------------------------------------

    async def test_an_allowed_key_is_its_owner(self, world: World) -> None:
        async with world.node() as a, world.node() as b:
            link_up(a, b)
            assert a.transport.send_direct(b.id, b"hello")
            await b.events.until(lambda: b.events.direct)
            assert b.events.direct == [(a.id, b"hello")]
            assert b.events.seen == [(a.id, a.host)]

    async def test_an_unknown_key_is_refused_until_the_link_is_replaced(self, world: World) -> None:
        async with world.node() as a, world.node() as b:
            a.transport.open_link(b.id, b.link.public, b.address.direct)
            a.transport.send_direct(b.id, b"let me in")
            await b.events.until(lambda: b.events.rejections["direct", "unknown_key"])
            assert not b.events.direct
            link_up(a, b)
            assert a.transport.send_direct(b.id, b"now")
            await b.events.until(lambda: b.events.direct)
            assert b.events.direct == [(a.id, b"now")]

    async def test_a_node_that_is_not_the_one_meant_gets_nothing(self, world: World) -> None:
        async with world.node() as a, world.node() as b:
            b.transport.allow(a.id, a.link.public)
            a.transport.open_link(b.id, new_link().public, b.address.direct)
            a.transport.send_direct(b.id, b"for another")
            link_up(b, a)  # something to wait for meanwhile
            b.transport.send_direct(a.id, b"tick")
            await a.events.until(lambda: a.events.direct)
            assert not b.events.direct
            assert not b.events.seen

    async def test_a_disallowed_peer_is_not_heard(self, world: World) -> None:
        async with world.node() as a, world.node() as b:
            link_up(a, b)
            a.transport.send_direct(b.id, b"before")
            await b.events.until(lambda: b.events.direct)
            b.transport.disallow(a.id)
            b.transport.disallow(a.id)
            a.transport.send_direct(b.id, b"after")
            await b.events.until(lambda: b.events.rejections["direct", "not_allowed"])
            assert b.events.direct == [(a.id, b"before")]

    async def test_ten_thousand_frames_stay_in_order(self, world: World) -> None:
        async with world.node() as a, world.node() as b:
            link_up(a, b)
            for number in range(10_000):
                while not a.transport.send_direct(b.id, b"%d" % number):
                    with trio.fail_after(10):
                        await a.transport.wait_direct_writable(b.id)
            await b.events.until(lambda: len(b.events.direct) == 10_000)
            assert [frame for _, frame in b.events.direct] == [b"%d" % n for n in range(10_000)]

    async def test_many_senders_each_in_order(self, world: World) -> None:
        async with (
            world.node() as a,
            world.node() as b,
            world.node() as c,
            world.node() as d,
            trio.open_nursery() as nursery,
        ):

            async def send(sender: Node) -> None:
                link_up(sender, d)
                for number in range(1000):
                    while not sender.transport.send_direct(d.id, b"%d" % number):
                        await sender.transport.wait_direct_writable(d.id)

            for sender in (a, b, c):
                nursery.start_soon(send, sender)
            await d.events.until(lambda: len(d.events.direct) == 3000)
            for sender in (a, b, c):
                frames = [frame for who, frame in d.events.direct if who == sender.id]
                assert frames == [b"%d" % n for n in range(1000)]

    async def test_a_full_link_says_so_and_wakes_who_waits(self, world: World) -> None:
        place, link = world.place(), new_link()
        async with world.node(place=place, link=link) as b:
            pass
        async with world.node() as a, trio.open_nursery() as nursery:
            a.transport.open_link(b.id, link.public, b.address.direct)
            sent = 0
            while a.transport.send_direct(b.id, b"%d" % sent):
                sent += 1
            assert sent == PIPE
            woken = trio.Event()

            async def wait() -> None:
                await a.transport.wait_direct_writable(b.id)
                woken.set()

            nursery.start_soon(wait)
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert not woken.is_set()
            async with world.node(place=place, link=link) as again:
                again.transport.allow(a.id, a.link.public)
                a.transport.open_link(b.id, link.public, b.address.direct)  # the old one was not let in
                with trio.fail_after(10):
                    await woken.wait()
                assert a.transport.send_direct(b.id, b"go on")
                await again.events.until(lambda: (a.id, b"go on") in again.events.direct)

    async def test_a_full_link_drains_when_the_peer_comes(self, world: World) -> None:
        place, link = world.place(), new_link()
        async with world.node(place=place, link=link) as b:
            pass
        async with world.node() as a:
            a.transport.open_link(b.id, link.public, b.address.direct)
            sent = 0
            while a.transport.send_direct(b.id, b"%d" % sent):
                sent += 1
            transport, _ = world.make(place, link, MESH, CONFIG)
            transport.allow(a.id, a.link.public)  # before it runs: the link tries again at any moment
            events = Recorder()
            async with trio.open_nursery() as nursery:
                await nursery.start(transport.run, events)
                with trio.fail_after(10):
                    await a.transport.wait_direct_writable(b.id)
                assert a.transport.send_direct(b.id, b"%d" % sent)
                await events.until(lambda: len(events.direct) == sent + 1)
                assert [frame for _, frame in events.direct] == [b"%d" % n for n in range(sent + 1)]
                nursery.cancel_scope.cancel()

    async def test_waiting_ends_when_the_link_is_closed(self, world: World) -> None:
        async with world.node() as a, trio.open_nursery() as nursery:
            async with world.node() as b:
                pass
            a.transport.open_link(b.id, b.link.public, b.address.direct)
            while a.transport.send_direct(b.id, b"x"):
                pass
            nursery.start_soon(a.transport.wait_direct_writable, b.id)
            nursery.start_soon(a.transport.wait_direct_writable, b.id)
            await trio.testing.wait_all_tasks_blocked(0.01)
            a.transport.close_link(b.id)
            a.transport.close_link(b.id)
            assert not a.transport.send_direct(b.id, b"x")
            with trio.fail_after(30):
                while nursery.child_tasks:
                    await trio.testing.wait_all_tasks_blocked()

    async def test_without_a_link_one_waits_for_it(self, world: World) -> None:
        async with world.node() as a, world.node() as b, trio.open_nursery() as nursery:
            assert not a.transport.send_direct(b.id, b"x")
            nursery.start_soon(a.transport.wait_direct_writable, b.id)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert nursery.child_tasks
            link_up(a, b)
            with trio.fail_after(30):
                while nursery.child_tasks:
                    await trio.testing.wait_all_tasks_blocked()

    async def test_the_last_word_before_the_end_arrives(self, world: World) -> None:
        async with world.node() as b:
            async with world.node() as a:
                link_up(a, b)
                a.transport.send_direct(b.id, b"hello")
                await b.events.until(lambda: b.events.direct)
                a.transport.send_direct(b.id, b"goodbye")
            await b.events.until(lambda: (a.id, b"goodbye") in b.events.direct)

    # -- broadcast plane -------------------------------------------------------

    async def test_a_subscription_accepted_refused_taken_back(self, world: World) -> None:
        async with world.node() as p, world.node() as s:
            listen_to(s, p)
            s.transport.subscribe(b"refused:bad")
            s.transport.subscribe(b"me:good")
            await subscribed(p, b"\1refused:bad")
            await subscribed(p, b"\1me:good")
            for frame in (b"1", b"2"):
                await publish(p, b"bad", frame)
                await publish(p, b"good", frame)
            await s.events.until(lambda: len(s.events.broadcast) == 2)
            assert s.events.broadcast == [(b"good", b"1"), (b"good", b"2")]
            s.transport.unsubscribe(b"me:good")
            await subscribed(p, b"\0me:good")
            s.transport.subscribe(b"me:end")
            await subscribed(p, b"\1me:end")
            await publish(p, b"good", b"3")
            await publish(p, b"end", b"")
            await s.events.until(lambda: (b"end", b"") in s.events.broadcast)
            assert (b"good", b"3") not in s.events.broadcast

    async def test_the_last_publication_before_the_end_arrives(self, world: World) -> None:
        async with world.node() as s:
            async with world.node() as p:
                s.transport.subscribe(b"me:t")
                listen_to(s, p)
                await subscribed(p, b"\1me:t")
                assert p.transport.publish(b"t", b"last words")
            await s.events.until(lambda: s.events.broadcast)

    async def test_a_tag_is_a_prefix(self, world: World) -> None:
        async with world.node() as p, world.node() as s:
            listen_to(s, p)
            s.transport.subscribe(b"me:Dab")
            await subscribed(p, b"\1me:Dab")
            for tag in (b"D", b"Da", b"Dab", b"Dabc", b"Dac", b"", b"xDab"):
                await publish(p, tag, b"f")
            await publish(p, b"Dab-end", b"f")
            await s.events.until(lambda: (b"Dab-end", b"f") in s.events.broadcast)
            assert [tag for tag, _ in s.events.broadcast] == [b"Dab", b"Dabc", b"Dab-end"]

    async def test_a_barrier_comes_back_after_what_was_subscribed_before(self, world: World) -> None:
        async with world.node() as p, world.node() as s:
            listen_to(s, p)
            await trio.testing.wait_all_tasks_blocked(0.01)
            for number in range(100):
                s.transport.subscribe(b"me:topic%d" % number)
            s.transport.subscribe(b"me:Bbarrier")
            await subscribed(p, b"\1me:Bbarrier")
            await publish(p, b"Bbarrier", b"echo")
            await s.events.until(lambda: (b"Bbarrier", b"echo") in s.events.broadcast)
            for number in range(100):
                await publish(p, b"topic%d" % number, b"")
            await s.events.until(lambda: len(s.events.broadcast) >= 101)

    async def test_subscriptions_reach_publishers_connected_later(self, world: World) -> None:
        async with world.node() as p, world.node() as q, world.node() as s:
            s.transport.subscribe(b"me:t")
            s.transport.subscribe(b"me:gone")
            s.transport.unsubscribe(b"me:gone")
            listen_to(s, p)
            listen_to(s, q)
            for publisher in (p, q):
                await subscribed(publisher, b"\1me:t")
                await publish(publisher, b"t", publisher.id)
                assert b"\1me:gone" not in publisher.events.subscriptions
            await s.events.until(lambda: {f for _, f in s.events.broadcast} == {p.id, q.id})

    async def test_a_restarted_publisher_gets_the_subscriptions_again(self, world: World) -> None:
        place = world.place()
        async with world.node() as s:
            s.transport.subscribe(b"me:t")
            async with world.node(place=place) as p:
                listen_to(s, p)
                await subscribed(p, b"\1me:t")
            async with world.node(place=place) as again:
                again.transport.admit_broadcast(s.host)
                await subscribed(again, b"\1me:t")
                await publish(again, b"t", b"back")
                await s.events.until(lambda: s.events.broadcast)

    async def test_two_peers_at_one_endpoint_are_one_connection(self, world: World) -> None:
        """A node that restarted is a new peer where the old one was."""
        async with world.node() as p, world.node() as s:
            s.transport.subscribe(b"me:t")
            former = node_id(new_link().public)
            p.transport.admit_broadcast(s.host)
            s.transport.connect_broadcast(former, p.address.broadcast)
            await subscribed(p, b"\1me:t")
            listen_to(s, p)
            s.transport.disconnect_broadcast(former)
            s.transport.disconnect_broadcast(former)
            s.transport.subscribe(b"me:u")
            await subscribed(p, b"\1me:u")
            await publish(p, b"u", b"1")
            await publish(p, b"u", b"2")
            await s.events.until(lambda: (b"u", b"2") in s.events.broadcast)

    async def test_a_disconnected_publisher_is_not_heard(self, world: World) -> None:
        async with world.node() as p, world.node() as q, world.node() as s:
            s.transport.subscribe(b"me:t")
            listen_to(s, p)
            listen_to(s, q)
            await subscribed(p, b"\1me:t")
            await subscribed(q, b"\1me:t")
            s.transport.disconnect_broadcast(p.id)
            await publish(p, b"t", b"from p")
            await publish(q, b"t", b"from q")
            await s.events.until(lambda: s.events.broadcast)
            assert s.events.broadcast == [(b"t", b"from q")]

    async def test_ten_thousand_broadcast_frames_stay_in_order(self, world: World) -> None:
        async with world.node() as p, world.node() as s:
            listen_to(s, p)
            s.transport.subscribe(b"me:t")
            await subscribed(p, b"\1me:t")
            with trio.fail_after(20):
                for number in range(10_000):
                    await publish(p, b"t", b"%d" % number)
            await s.events.until(lambda: len(s.events.broadcast) == 10_000)
            assert [frame for _, frame in s.events.broadcast] == [b"%d" % n for n in range(10_000)]

    async def test_a_stuck_subscriber_holds_up_only_itself(self, world: World) -> None:
        config = Config.local(limits=Limits(outbox_peer_bytes=4 * (64 << 10)))
        async with (
            world.node(config=config) as p,
            world.node() as s,
            world.stuck_subscriber(p, b"stuck:t") as release,
        ):
            listen_to(s, p)
            s.transport.subscribe(b"me:t")
            await subscribed(p, b"\1me:t")
            await subscribed(p, b"\1stuck:t")
            frame = bytes(32 << 10)
            sent = 0
            with trio.move_on_after(0.5) as patience:
                while True:
                    if p.transport.publish(b"t", frame):
                        sent += 1
                        patience.deadline = trio.current_time() + 0.5
                    else:
                        await p.transport.wait_publishable()
            assert not p.transport.publish(b"t", frame)
            await s.events.until(lambda: len(s.events.broadcast) == sent)
            for number in range(20):
                p.transport.publish_lossy(b"t", b"%d" % number)
                await s.events.until(lambda number=number: s.events.broadcast[-1][1] == b"%d" % number)
            assert p.transport.publish(b"t", b"it holds nobody up now")
            release()

    async def test_a_publisher_that_waits_is_woken_when_the_subscriber_takes_again(
        self, world: World
    ) -> None:
        async with world.node() as p, world.stuck_subscriber(p, b"stuck:t") as release:
            await subscribed(p, b"\1stuck:t")
            frame = bytes(32 << 10)
            with trio.move_on_after(0.5) as patience:
                while True:
                    if p.transport.publish(b"t", frame):
                        patience.deadline = trio.current_time() + 0.5
                    else:
                        await p.transport.wait_publishable()
            release()
            with trio.fail_after(10):
                for _ in range(100):
                    await publish(p, b"t", frame)

    async def test_a_stranger_gets_no_byte(self, world: World) -> None:
        """An address that is not admitted cannot subscribe; once admitted it can, by itself."""
        async with world.node() as p, world.node() as s:
            s.transport.subscribe(b"me:t")
            s.transport.connect_broadcast(p.id, p.address.broadcast)
            await p.events.until(lambda: p.events.rejections["broadcast", "unknown_address"])
            assert p.transport.publish(b"t", b"secret")
            assert not p.events.subscriptions
            p.transport.admit_broadcast(s.host)
            await subscribed(p, b"\1me:t")
            await publish(p, b"t", b"open")
            await s.events.until(lambda: s.events.broadcast)
            assert s.events.broadcast == [(b"t", b"open")]

    # -- the end ---------------------------------------------------------------

    async def test_a_subscriber_is_cut_by_whose_token_it_subscribed_with(self, world: World) -> None:
        async with world.node() as a, world.node() as b, world.node() as c:
            a.events.sources = {b"b": (b.id, 3), b"c": (c.id, 3)}
            for subscriber, body in ((b, b"b:"), (c, b"c:")):
                listen_to(subscriber, a)
                subscriber.transport.subscribe(body)
                await subscribed(a, b"\1" + body)
            a.transport.cut_subscriber(b.id, 3)  # of an older epoch there is none
            await publish(a, b"1", b"")
            await b.events.until(lambda: b.events.broadcast)
            a.events.subscriptions.clear()
            a.transport.cut_subscriber(b.id, 4)
            await subscribed(a, b"\1b:")  # it comes again, and subscribes again
            await publish(a, b"2", b"")
            for subscriber in (b, c):
                await subscriber.events.until(lambda s=subscriber: (b"2", b"") in s.events.broadcast)
            assert a.events.subscriptions == [b"\1b:"]

    async def test_nothing_happens_when_it_is_over(self, world: World) -> None:
        async with world.node() as b:
            async with world.node() as a:
                link_up(a, b)
                listen_to(a, b)
            transport = a.transport
            route = transport.dial_intro(b.address.intro)
            transport.send_intro(route, b"x")
            transport.close_intro(route)
            transport.open_link(b.id, b.link.public, b.address.direct)
            assert not transport.send_direct(b.id, b"x")
            transport.close_link(b.id)
            transport.connect_broadcast(b.id, b.address.broadcast)
            transport.disconnect_broadcast(b.id)
            transport.subscribe(b"me:t")
            transport.unsubscribe(b"me:t")
            assert transport.publish(b"t", b"x")
            transport.publish_lossy(b"t", b"x")
            transport.allow(b.id, b.link.public)
            transport.disallow(b.id)
            transport.admit_broadcast(b.host)
            assert not b.events.broadcast

    async def test_it_can_be_cancelled_at_any_time(self, world: World) -> None:
        for ticks in itertools.chain(range(8), range(8, 64, 8)):
            transport, _ = world.make(None, new_link(), MESH, CONFIG)
            with trio.fail_after(30):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(transport.run, Recorder())
                    for _ in range(ticks):
                        await trio.lowlevel.checkpoint()
                    nursery.cancel_scope.cancel()
