"""A whole mesh of engines on a virtual network, driven by one seed through whatever can happen to it.

``Simulation(seed).run()`` → nodes that publish (plain, reliable, with history) and subscribe, while frames are lost, doubled,
flipped and overtaken, ways are slow or cut in one direction or both, nodes pause, are starved, have a wrong clock, leave, are
killed and begin again → ``heal`` → what must hold then is checked, and what must hold always after every
step.  A seed replays exactly: ``history`` is the same.  ``Simulation(seed, short=True)`` is an episode of it: fewer steps of fewer nodes
with the times of one machine.

What holds after every step: no frame is opened twice; no message of a publisher is delivered twice or behind a later
one; none is both delivered and lost (the account); nothing is remembered that is not there.

    python -m tests.simulation --seeds 500
    python -m tests.simulation --kind engines --first 17 --seeds 1 --trace
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

from mesh.config import Config
from mesh.core import effects as do
from mesh.core.codec import encode_direct
from mesh.core.types import NodeId
from tests.core.virtual import VirtualNode, World

__all__ = ["Broken", "Simulation"]

STEPS: Final = 120
SHORT: Final = 20  # steps of an episode
KINDS: Final = ("plain", "reliable", "history")
ROOM: Final = (
    256 << 10
)  # bytes of a ring: far more than is published in a run, so that nothing reliable may be lost


class Broken(AssertionError):
    """Something that must hold does not."""


class SimulatedNode(VirtualNode):
    """Its direct links are as TCP makes them: in order, and what is lost is sent again, until the link is opened anew.

    What it tells its program is checked as it comes.
    """

    last: dict[tuple[int, NodeId, str], int]
    had: dict[tuple[int, NodeId, str], list[int]]

    def _SendDirect(self, effect: do.SendDirect) -> None:
        frame = encode_direct(effect.message)
        target = self._at(self.links.get(effect.peer, "tcp://nobody:1"))
        if target is None or target.id != effect.peer:
            return
        life = self.lives[effect.peer]

        def arrive() -> None:
            if self.lives[effect.peer] == life:
                target.direct(self, frame)

        self.world.pass_stream(self, target, arrive)

    @property
    def lives(self) -> dict[NodeId, int]:
        lives: dict[NodeId, int] = self.__dict__.setdefault("_lives", defaultdict(int))
        return lives

    def _OpenLink(self, effect: do.OpenLink) -> None:
        self.lives[effect.peer] += 1
        super()._OpenLink(effect)

    def _CloseLink(self, effect: do.CloseLink) -> None:
        self.lives[effect.peer] += 1
        super()._CloseLink(effect)

    def broadcast(self, tag: bytes, frame: bytes) -> None:
        chance = self.world.random
        super().broadcast(tag, frame)
        if self.world.trouble and chance.random() < 0.02:
            super().broadcast(tag, frame)  # twice
        if self.world.trouble and chance.random() < 0.02:
            self.world.later(
                0.01, lambda: super(SimulatedNode, self).broadcast(tag, frame)
            )  # … overtaken by others
        if self.world.trouble and chance.random() < 0.02:
            at = chance.randrange(len(frame))
            flipped = bytes([frame[at] ^ 1 << chance.randrange(8)])
            super().broadcast(tag, frame[:at] + flipped + frame[at + 1 :])

    def heard_broadcast(self, tag: bytes, frame: bytes) -> None:
        before = len(self.deliveries)
        super().heard_broadcast(tag, frame)
        if len(self.deliveries) > before:
            opened: set[bytes] = self.__dict__.setdefault("opened", set())
            if frame in opened:
                raise Broken(f"{self.name} has opened a frame twice")
            opened.add(frame)
            each = self.deliveries[-1]
            first = each.batch.sequence
            self.account(each.publisher, each.batch.topic, first - each.lost, first, "lost")
            self.account(
                each.publisher,
                each.batch.topic,
                first + each.skip,
                first + len(each.batch.values),
                "delivered",
            )

    def account(self, publisher: NodeId, topic: str, first: int, end: int, how: str) -> None:
        """Each message of a publisher has one fate."""
        book: dict[Any, dict[int, str]] = self.__dict__.setdefault("book", defaultdict(dict))
        fates = book[publisher, topic]
        for number in range(first, end):
            if number in fates:
                raise Broken(f"#{number} of {topic} is {how} at {self.name}, and was {fates[number]}")
            fates[number] = how

    def _Lost(self, effect: do.Lost) -> None:
        super()._Lost(effect)
        self.account(effect.peer, effect.topic, effect.first, effect.end, "lost")

    def give(self, publisher: NodeId, batch: Any, skip: int) -> None:
        self.from_publisher = publisher
        super().give(publisher, batch, skip)

    def _Deliver(self, effect: do.Deliver) -> None:
        self.from_publisher = effect.peer
        if not effect.only:
            first = effect.batch.sequence
            last = first + len(effect.batch.values)
            self.account(effect.peer, effect.batch.topic, first + effect.skip, last, "delivered")
        super()._Deliver(effect)

    def _give_to(self, number: int, batch: Any, skip: int) -> None:
        last = self.__dict__.setdefault("last", {})
        key = (number, self.from_publisher, batch.topic)
        first = batch.sequence + skip
        if first <= last.get(key, -1):
            raise Broken(f"{self.name} has #{first} of {batch.topic} twice or late, behind #{last[key]}")
        last[key] = batch.sequence + len(batch.values) - 1
        self.had[key] += range(first, last[key] + 1)
        super()._give_to(number, batch, skip)


class SimulatedWorld(World):
    trouble = False

    def add(self, name: str, config: Config | None = None, **papers: Any) -> SimulatedNode:
        node = SimulatedNode(self, name, config or Config.lan(), **papers)
        node.had = defaultdict(list)
        self.nodes[name] = node
        return node


class Simulation:
    """One run. ``history`` tells what was done, in order."""

    def __init__(
        self, seed: int, trace: Callable[[str], None] = lambda line: None, *, short: bool = False
    ) -> None:
        self.seed = seed
        self.short = short
        self._config = Config.local() if short else Config.lan()
        self.world = SimulatedWorld(seed)
        self.chance = self.world.random
        self.history: list[str] = []
        self._trace = trace
        self._born = 0
        self._alive: list[SimulatedNode] = []
        self._entries: dict[str, list[Any]] = defaultdict(list)

    # -- the run ----------------------------------------------------------------------

    def run(self) -> Simulation:
        for _ in range(self.chance.randrange(2, 4 if self.short else 6)):
            self._birth()
        self.world.meet()
        for _ in range(SHORT if self.short else STEPS):
            chosen = self.chance.choices(self._ACTS, self._WEIGHTS)[0]
            chosen(self)
            seconds = self.chance.choice((0.0, 0.001, 0.01, 0.1, 0.5, 0.2 if self.short else 2.0))
            self.world.run(seconds)
            self._bounds()
        self._heal()
        self._check()
        return self

    @property
    def clock(self) -> float:
        return self.world.clock

    def _note(self, line: str) -> None:
        line = f"{self.world.clock:10.4f} {line}"
        self.history.append(line)
        self._trace(line)

    def digest(self) -> str:
        """What happened, in a few characters: the same for the same seed."""
        told = [f"{node.name} {node.given} {node.losses} {node.events}" for node in self.world.nodes.values()]
        return hashlib.sha256("\n".join(self.history + told).encode()).hexdigest()[:16]

    # -- what happens -------------------------------------------------------------------

    def _any(self) -> SimulatedNode | None:
        return self.chance.choice(self._alive) if self._alive else None

    def _birth(self) -> None:
        if len(self._alive) >= (4 if self.short else 6):
            return
        self._born += 1
        self._begin(self.world.add(f"n{self._born}", self._config))

    def _begin(self, node: SimulatedNode) -> None:
        self._note(f"{node.name} begins")
        node.keep(f"reliable/{node.name}", ROOM)
        node.keep(f"history/{node.name}", ROOM, history=5)
        for other in self._alive:
            node.engine.hint(other.id, [a.intro for a in other.addresses], self.world.clock)
            other.engine.hint(node.id, [a.intro for a in node.addresses], self.world.clock)
            other.carry_out()
        node.carry_out()
        self._alive.append(node)
        self._subscribe(node)

    def _subscribe(self, node: SimulatedNode | None = None) -> None:
        node = node or self._any()
        if node is None or node.paused or len(self._entries[node.name]) >= 6:
            return
        pattern = self.chance.choice(("**", "reliable/*", "plain/*", "history/*", "*/n1"))
        history = self.chance.choice((0, 0, 1, 4))
        self._note(f"{node.name} subscribes to {pattern}, history {history}")
        self._entries[node.name].append(node.subscribe(pattern, history=history))

    def _publish(self) -> None:
        node = self._any()
        if node is not None and not node.paused:
            topic = f"{self.chance.choice(KINDS)}/{node.name}"
            count = self.chance.randrange(1, 5)
            self._note(f"{node.name} publishes {count} on {topic}")
            node.publish(topic, *[b"v"] * count)

    def _lose(self) -> None:
        self.world.trouble = self.chance.random() < 0.5
        self.world.loss = self.chance.choice((0.0, 0.05, 0.1, 0.3)) if self.world.trouble else 0.0
        self._note(f"loss {self.world.loss}")

    def _cut(self) -> None:
        if len(self._alive) < 2:
            return
        one, other = self.chance.sample([node.name for node in self._alive], 2)
        ways = {(one, other)} if self.chance.random() < 0.5 else {(one, other), (other, one)}
        self._note(f"cut {sorted(ways)}")
        self.world.cuts |= ways

    def _mend(self) -> None:
        self._note("cuts healed")
        self.world.cuts.clear()

    def _pause(self) -> None:
        node = self._any()
        if node is not None:
            if node.paused:
                self._note(f"{node.name} goes on")
                node.resume()
            else:
                self._note(f"{node.name} pauses")
                node.pause()

    def _end(self) -> None:
        node = self._any()
        if node is None or node.paused or len(self._alive) < 3:
            return
        self._alive.remove(node)
        if self.chance.random() < 0.5:
            self._note(f"{node.name} leaves")
            node.stop()
        else:
            self._note(f"{node.name} is killed")
            node.kill()

    def _wait(self) -> None:
        seconds = self.chance.choice((1.0, 3.0) if self.short else (5.0, 20.0))
        self._note(f"{seconds} seconds pass")
        self.world.run(seconds)

    def _restart(self) -> None:
        """Killed, and begun again at once: the same member at the same addresses, a later incarnation."""
        node = self._any()
        if node is None or node.paused or len(self._alive) < 3:
            return
        node.kill()
        self._alive.remove(node)
        self._note(f"{node.name} is killed and begins again")
        self.world.nodes[f"{node.name} before {self.world.clock}"] = self.world.nodes.pop(node.name)
        for other in self._alive:  # its connections have ended
            other.tags.pop(node.name, None)
            other.sources.pop(node.name, None)
        self.world.run(0.002)  # incarnations are told apart by milliseconds
        self._entries[node.name].clear()
        again = self.world.add(node.name, self._config, member=node.member)
        self._begin(again)
        for other in self._alive:
            if other is not again:
                other.reconnect(again)  # as libzmq does by itself

    def _starve(self) -> None:
        node = self._any()
        if node is not None and not node.paused:
            seconds = self.chance.choice((0.15, 0.4, 0.9))
            self._note(f"{node.name} does not run for {seconds} s")
            node.engine.late(seconds, self.world.clock)
            node.carry_out()

    def _wrong_clock(self) -> None:
        node = self._any()
        if node is not None:
            node.skew = self.chance.choice((0.0, -30.0, 30.0, 3600.0))
            self._note(f"{node.name}'s clock is wrong by {node.skew} s")

    def _slow(self) -> None:
        if len(self._alive) >= 2:
            one, other = self.chance.sample([node.name for node in self._alive], 2)
            self.world.ways[one, other] = self.chance.choice((0.0, 0.02, 0.2))
            self._note(f"{one} to {other} takes {self.world.ways[one, other]} s more")

    _ACTS: Final = (
        _publish, _subscribe, _lose, _cut, _mend, _pause, _end, _birth, _wait, _restart, _starve, _wrong_clock, _slow,
    )  # fmt: skip
    _WEIGHTS: Final = (60, 3, 6, 5, 6, 5, 1, 1, 4, 2, 2, 1, 3)

    # -- what must hold -------------------------------------------------------------------

    def _heal(self) -> None:
        self.world.trouble = False
        self.world.loss = 0.0
        self.world.cuts.clear()
        self.world.ways.clear()
        self._note("everything heals")
        for node in self._alive:
            if node.paused:
                node.resume()
        self.world.run(20.0 if self.short else 90.0)
        for node in self._alive:
            for kind in KINDS:
                node.publish(f"{kind}/{node.name}", b"last")
        self.world.run(4.0 if self.short else 10.0)

    def _bounds(self) -> None:
        """After every step: nothing grows beyond what there is to remember."""
        for node in self._alive:
            engine = node.engine
            if (
                len(engine.links.sessions) > len(self.world.nodes)
                or len(engine.accounts._repairs.waiting) > 500
            ):
                raise Broken(f"{node.name} remembers more than there is")

    def _check(self) -> None:
        names = {node.name for node in self._alive}
        for node in self._alive:
            if node.peers != names - {node.name}:
                raise Broken(f"{node.name} sees {sorted(node.peers)} of {sorted(names)}")
            accounts = node.engine.accounts
            there = {each.id for each in self._alive}  # the dead are waited for until patience is over
            waiting = [key for key in accounts._repairs.waiting if key.node in there]
            if accounts.catchups.behind & there or waiting:
                raise Broken(f"{node.name} still waits: {waiting}")
            for publisher in self._alive:
                if publisher is not node:
                    for kind in KINDS:
                        self._account(node, publisher, f"{kind}/{publisher.name}")

    def _account(self, node: SimulatedNode, publisher: SimulatedNode, topic: str) -> None:
        """Each message from some number on was delivered or is known to be lost, and once."""
        if not node.engine.router.route(topic).local:
            return
        delivered: list[int] = []
        lost: list[int] = []
        for each in node.deliveries:
            if each.publisher == publisher.id and each.batch.topic == topic:
                first = each.batch.sequence
                delivered += range(first + each.skip, first + len(each.batch.values))
                lost += range(first - each.lost, first)
        for loss in node.losses:
            if loss.peer == publisher.id and loss.topic == topic:
                lost += range(loss.first, loss.end)
        numbers = sorted(delivered + lost)
        end = publisher.engine.outgoing.lines[topic].next
        if numbers != list(range(numbers[0] if numbers else end, end)):
            raise Broken(
                f"{node.name} of {topic}, {end} published: {sorted(delivered)} delivered, {sorted(lost)} lost"
            )
        # Who was away for longer than holes are kept open has been given up, rightly; and said so.
        given_up = {loss.cause for loss in node.losses if loss.topic == topic} <= {
            do.LossCause.PUBLISHER_GONE
        }
        excused = given_up and publisher.longest_away > node.engine.config.repair_patience
        if topic.startswith("reliable/") and lost and not excused:
            raise Broken(f"{node.name} lost {lost} of {topic}")
        if topic.startswith("reliable/") and not lost:
            self._unbroken(node, publisher, topic, end)

    def _unbroken(self, node: SimulatedNode, publisher: SimulatedNode, topic: str, end: int) -> None:
        """Each subscription has an unbroken sequence of a reliable publisher, up to its end."""
        for number in node.engine.router.route(topic).local:
            got = node.had[number, publisher.id, topic]
            if got != list(range(got[0] if got else end, end)):
                raise Broken(f"subscription {number} of {node.name} has {got} of {end} of {topic}")
