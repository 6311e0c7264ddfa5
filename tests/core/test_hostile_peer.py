"""A hostile member with a live session sends anything, in any order, at any time; honest peers do not notice.

A Hypothesis state machine over three engines: ``a`` and ``b`` are honest and publish to each other, ``h`` is a member whose engine
attached as it should and whose sender then says what it likes: frames that passed before (whoever's they were), such frames with bits changed,
and every message of the protocol with contents that its form allows.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mesh.config import Config, Limits
from mesh.core.codec import encode_direct, encode_intro
from mesh.core.messages import DIRECT, INTRO
from mesh.core.types import Reason
from tests.core.test_engine_hostile import CANDIDATES, keep, mutate
from tests.core.virtual import VirtualNode, World

LIMITS = Limits(peers=8, candidates=16, subscriptions_per_peer=64, unknown_key_frames=16)
PLANES = ("direct", "intro", "broadcast", "subscription")
INPUTS = {
    "direct_received": ("direct", 1),
    "stranger_received": ("intro", 1),
    "dial_answered": ("intro", 1),
    "broadcast_received": ("broadcast", slice(0, 2)),
    "subscription_received": ("subscription", 0),
}

cuts = st.lists(st.tuples(st.integers(0, 4096), st.integers(0, 255), st.sampled_from("=+-")), max_size=3)
tables = {"direct": DIRECT, "intro": INTRO}


class HostilePeer(RuleBasedStateMachine):
    """``taken`` is every message that ``a`` or ``b`` gave to its program, of the other one."""

    @initialize(seed=st.integers(0, 1 << 16))
    def meet(self, seed: int) -> None:
        self.world = World(seed)
        config = Config.lan(limits=LIMITS)
        self.a, self.b, self.h = (self.world.add(name, config) for name in "abh")
        self.pool: dict[str, list[Any]] = {plane: [] for plane in PLANES}
        for node in self.world.nodes.values():
            for name, (plane, place) in INPUTS.items():
                keep(node.engine, name, self.pool[plane], place)  # type: ignore[arg-type]
        self.world.meet()
        self.kept = self.a.subscribe("x/**"), self.b.subscribe("x/**"), self.h.subscribe("**")
        self.world.run(1.0)
        self.told = {"a": 0, "b": 0}
        self.left: list[tuple[str, str]] = []

    # -- the honest ones ---------------------------------------------------------

    @rule(who=st.sampled_from("ab"), count=st.integers(1, 3))
    def publish(self, who: str, count: int) -> None:
        node = self.world.nodes[who]
        assert node.publish(f"x/{who}", *range(self.told[who], self.told[who] + count))
        self.told[who] += count
        node.carry_out()

    @rule(seconds=st.sampled_from([0.001, 0.05, 0.3, 2.0, 20.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.run(seconds)

    # -- the hostile one ---------------------------------------------------------

    def _say(self, target: VirtualNode, plane: str, frame: Any) -> None:
        engine, clock = target.engine, self.world.clock
        if plane == "direct":
            target.direct(self.h, frame)  # the transport knows by its key whose link this is
        elif plane == "intro":
            engine.stranger_received(77, frame, "h", clock)
            target.__dict__.setdefault("_routes", {})[("h", -1)] = 77
        elif plane == "broadcast":
            target.heard_broadcast(*frame)
        else:
            engine.subscription_received(frame)
        target.carry_out()

    @rule(who=st.sampled_from("ab"), plane=st.sampled_from(PLANES), which=st.integers(0, 1 << 16))
    def replay(self, who: str, plane: str, which: int) -> None:
        """What passed before, in whoever's name."""
        seen = self.pool[plane]
        if seen:
            self._say(self.world.nodes[who], plane, seen[which % len(seen)])

    @rule(who=st.sampled_from("ab"), plane=st.sampled_from(PLANES), which=st.integers(0, 1 << 16), cuts=cuts)
    def change(self, who: str, plane: str, which: int, cuts: list[tuple[int, int, str]]) -> None:
        """The same, a little different."""
        seen = self.pool[plane]
        if not seen:
            return
        frame = seen[which % len(seen)]
        if plane == "broadcast":
            tag, sealed = frame
            made: Any = (
                (tag, bytes(mutate(sealed, cuts))) if which % 2 else (bytes(mutate(tag, cuts)), sealed)
            )
        else:
            made = bytes(mutate(frame, cuts))
        self._say(self.world.nodes[who], plane, made)

    @rule(who=st.sampled_from("ab"), plane=st.sampled_from(["direct", "intro"]), data=st.data())
    def make(self, who: str, plane: str, data: st.DataObject) -> None:
        """Any message of the protocol, at a time of its choice."""
        table: dict[int, Any] = tables[plane]
        kind, forms = table[data.draw(st.sampled_from(sorted(table)))]
        fields = [data.draw(st.sampled_from([each for each in CANDIDATES if form(each)])) for form in forms]
        encode: Any = encode_direct if plane == "direct" else encode_intro
        self._say(self.world.nodes[who], plane, encode(kind._make(fields)))

    @rule(who=st.sampled_from("ab"), times=st.sampled_from([12, 100]), which=st.integers(0, 1 << 16))
    def flood(self, who: str, times: int, which: int) -> None:
        """The same over and over: what counts against its sender."""
        seen = self.pool["direct"]
        if seen:
            for _ in range(times):
                self._say(self.world.nodes[who], "direct", seen[which % len(seen)])

    @rule()
    def come_back(self) -> None:
        """It was cut off, perhaps, and begins anew."""
        self.h.engine.hint(self.a.id, [self.a.addresses[0].intro], self.world.clock)
        self.h.carry_out()

    # -- what holds ----------------------------------------------------------------

    @invariant()
    def honest_peers_stay(self) -> None:
        for one, other in ((self.a, self.b), (self.b, self.a)):
            assert other.name in one.peers
            assert ("left", other.name) not in one.events

    @invariant()
    def nothing_is_taken_twice_or_forged(self) -> None:
        for one, other in ((self.a, self.b), (self.b, self.a)):
            taken = one.given[self.kept[0 if one is self.a else 1].number]
            numbers = [number for topic, number in taken if topic == f"x/{other.name}"]
            assert numbers == sorted(set(numbers))
            assert not numbers or numbers[-1] < self.told[other.name]
            assert {d.publisher for d in one.deliveries if d.batch.topic == f"x/{other.name}"} <= {other.id}

    @invariant()
    def bounds_hold(self) -> None:
        for one in (self.a, self.b):
            engine = one.engine
            assert len(engine.links.sessions) <= LIMITS.peers
            assert len(engine.introductions.dialer) <= LIMITS.candidates + 1
            assert len(engine.receiver._held) <= LIMITS.unknown_key_frames
            assert all(
                len(tags) <= LIMITS.subscriptions_per_peer + 16 for tags in engine.broadcast._seen.values()
            )
            assert all(len(session.barriers) <= 16 for session in engine.links.sessions.values())
            assert set(engine.rejected) <= {reason.value for reason in Reason}

    def teardown(self) -> None:
        """What the honest ones published arrives, whatever was said meanwhile."""
        if not hasattr(self, "kept"):
            return
        self.world.run(2.0)
        for one, other in ((self.a, self.b), (self.b, self.a)):
            taken = one.given[self.kept[0 if one is self.a else 1].number]
            assert [n for topic, n in taken if topic == f"x/{other.name}"] == list(
                range(self.told[other.name])
            )


TestHostilePeer = HostilePeer.TestCase
TestHostilePeer.settings = settings(
    max_examples=12, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
