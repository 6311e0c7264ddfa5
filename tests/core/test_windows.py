"""Windows and receipts, told the time: what is ahead of whom, who is asked, who is cut off."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mesh.config import Config
from mesh.core.effects import CutOff, Incident, Reopened, SendDirect
from mesh.core.messages import CutOffMessage, InterestEntry, WindowMessage, WindowWantedMessage
from mesh.core.outgoing import Line
from mesh.core.receipts import Receipts
from mesh.core.ring import Ring
from mesh.core.router import LOCAL, Member, Route, Router
from mesh.core.types import NodeId
from mesh.core.windows import Windows

PEER, OTHER, OWN = NodeId(b"p" * 16), NodeId(b"q" * 16), NodeId(b"o" * 16)
PATIENCE = 5.0


class Publisher:
    """A publishing node with nothing but windows."""

    def __init__(self, **limits: int) -> None:
        self.effects: list[Any] = []
        self.live = True
        sessions = {
            peer: SimpleNamespace(
                name=name, introduced=SimpleNamespace(certificate=SimpleNamespace(member=b"m"))
            )
            for peer, name in ((PEER, "slow"), (OTHER, "other"))
        }
        config = Config.lan(backpressure_patience=PATIENCE)
        if limits:
            config = Config.lan(limits=type(config.limits)(**limits))
        self.windows = Windows(config, self.effects, Router(), sessions, lambda member: self.live)  # type: ignore[arg-type]
        self.lines: dict[str, Line] = {}

    def subscribe(self, number: int, messages: int, peer: NodeId = PEER, group: str = "") -> None:
        self.windows.begin(peer, [InterestEntry(number, "s", "**", group, 0, messages)])

    def line(self, topic: str) -> Line:
        return self.lines.setdefault(topic, Line(topic))

    def of(self, *numbers: int, peer: NodeId = PEER) -> Any:
        return self.windows.of(Route((), tuple(Member(peer, number) for number in numbers), {}))

    def publish(self, topic: str = "t", count: int = 1, size: int = 0, peer: NodeId = PEER) -> bool:
        """Whether it has to wait now."""
        line, windows = self.line(topic), self.of(1, 2, peer=peer)
        self.windows.sent(windows, topic, line.next, line.next + count, size)
        line.next += count
        return self.windows.shut(windows, line) is not None

    def hears(self, number: int, messages: int, *taken: tuple[str, int], clock: float = 0.0) -> None:
        told = WindowMessage(number, messages, 1 << 20, [list(each) for each in taken])
        self.windows.heard(PEER, told, clock)

    def take(self, kind: type[Any]) -> list[Any]:
        found = [e.message if isinstance(e, SendDirect) else e for e in self.effects]
        self.effects.clear()
        return [each for each in found if isinstance(each, kind)]


def test_a_window_is_shut_when_it_is_full_and_opens_with_what_is_taken() -> None:
    it = Publisher()
    it.subscribe(1, 3)
    assert [it.publish("a"), it.publish("b"), it.publish("a")] == [False, False, True]
    it.hears(1, 3, ("b", 1))
    assert not it.windows.shut(it.of(1), it.line("a"))
    assert it.publish("b")
    it.hears(1, 3, ("b", 1), ("unknown", 9))  # again, and what was never sent
    assert it.windows.shut(it.of(1), it.line("a"))
    it.hears(1, 2, ("a", 1 << 60), ("b", 1 << 60))  # more than there is
    assert not it.windows.shut(it.of(1), it.line("a"))
    (window,) = it.windows
    assert (window.ahead, window.size, window.flows) == (0, 0, {})
    assert it.publish("a", 2)  # the window is two wide from now on


def test_bytes_shut_it_too_and_so_does_what_a_ring_can_keep() -> None:
    it = Publisher()
    it.subscribe(1, 1000)
    assert not it.publish(size=255 << 10)
    assert it.publish(size=1 << 10)
    it.hears(1, 1000, ("t", 2))
    line = it.line("kept")
    line.ring, line.reliable = Ring(64 << 10, 0), True
    assert not it.publish("kept", size=31 << 10)
    assert it.publish("kept", size=1 << 10)


def test_what_does_not_reach_it_yet_does_not_count() -> None:
    it = Publisher()
    it.live = False
    it.subscribe(1, 1)
    assert not it.publish(count=10)
    it.live = True
    assert it.publish()


def test_a_group_and_a_responder_have_no_window() -> None:
    it = Publisher()
    it.subscribe(1, 1, group="g")
    it.windows.begin(PEER, [InterestEntry(2, "r", "**", "", 0, 1)])
    assert not list(it.windows)


def test_it_is_asked_while_somebody_waits_and_cut_off_when_it_stands_still() -> None:
    it = Publisher()
    it.subscribe(1, 1)
    assert it.publish()
    assert it.windows.deadline() == float("inf")  # nobody waits
    (window,) = it.of(1)
    it.windows.wait(window, 10.0)
    asked = []
    while not window.cut:
        clock = it.windows.deadline()
        it.windows.timer(clock)
        asked += [clock for _ in it.take(WindowWantedMessage)]
        assert len(asked) < 100
    assert clock == 10.0 + PATIENCE
    assert asked[0] < 10.05
    assert asked == sorted(asked)
    assert 5 < len(asked) < 12
    assert it.windows.cut_off == 1
    assert it.windows.shut(it.of(1), it.line("t")) is None


def test_the_end_is_told_on_both_sides() -> None:
    it = Publisher()
    it.subscribe(1, 1)
    it.publish()
    it.windows.wait(it.of(1)[0], 0.0)
    it.windows.timer(PATIENCE)
    kinds = [type(e.message if isinstance(e, SendDirect) else e) for e in it.effects]
    assert kinds == [CutOffMessage, Incident, Reopened]
    assert "slow's subscription to '**'" in it.effects[1].detail


def test_patience_begins_anew_with_whatever_is_taken() -> None:
    it = Publisher()
    it.subscribe(1, 2)
    it.publish(count=40)
    (window,) = it.of(1)
    it.windows.wait(window, 0.0)
    for number in range(1, 30):
        it.windows.timer(number * 4.0)
        it.hears(1, 2, ("t", number), clock=number * 4.0)
    assert not window.cut


def test_looking_again_does_not_renew_patience() -> None:
    """Another subscription opens its window, and the publisher finds this one still shut."""
    it = Publisher()
    it.subscribe(1, 1)
    it.publish()
    (window,) = it.of(1)
    clock = 0.0
    while not window.cut:
        it.windows.wait(window, clock)
        clock += 0.5
        it.windows.timer(clock)
        it.windows.done(window, clock)
        clock += 100.0  # nobody waits
        assert clock < 2000
    assert it.windows.cut_off == 1


def test_who_begins_anew_is_waited_for_again() -> None:
    it = Publisher()
    it.subscribe(1, 1)
    it.publish()
    it.windows.wait(it.of(1)[0], 0.0)
    it.windows.timer(PATIENCE)
    it.windows.done(it.of(1)[0], PATIENCE)
    it.hears(1, 1, ("t", 1))  # it was on its way when the publisher gave up
    assert not it.publish()
    it.hears(1, 2)
    assert not it.publish()
    assert it.publish()


def test_nobody_holds_a_publisher_up_by_subscribing_again_and_again() -> None:
    it = Publisher()
    clock = held = 0.0
    for number in range(10, 2000):
        it.windows.begin(OTHER if number % 2 else PEER, [InterestEntry(number, "s", "**", "", 0, 1)])
        windows = it.of(number, peer=OTHER if number % 2 else PEER)
        it.windows.sent(windows, "t", number, number + 1, 1)
        it.windows.wait(windows[0], clock)
        before = clock
        while not windows[0].cut:
            clock = max(clock, it.windows.deadline())
            it.windows.timer(clock)
        held += clock - before
        clock += 0.1
        it.windows.end(windows[0].member.peer, [InterestEntry(number, "s", "**", "", 0, 1)])
    assert held < 3 * PATIENCE + 0.11 * clock
    assert not list(it.windows)
    assert not it.windows._waited


def test_windows_have_a_bound() -> None:
    it = Publisher(windows=2)
    for number in (1, 2, 3):
        it.subscribe(number, 1)
    assert len(list(it.windows)) == 2
    assert it.take(CutOffMessage) == [CutOffMessage(3)]
    it.windows.end(PEER, [InterestEntry(1, "s", "**", "", 0, 1)])
    it.subscribe(4, 1)
    assert len(list(it.windows)) == 2


def test_a_window_of_this_node_ends_likewise() -> None:
    it = Publisher()
    it.subscribe(1, 1, peer=LOCAL)
    windows = it.windows.of(Route((1,), (), {}))
    it.windows.sent(windows, "t", 0, 1, 1)
    it.windows.wait(windows[0], 0.0)
    it.windows.timer(PATIENCE)
    assert it.take(CutOff) == [CutOff(LOCAL, 1)]


def test_many_batches_are_counted_in_bounded_room() -> None:
    it = Publisher()
    it.subscribe(1, 65536)
    for _ in range(5000):
        it.publish(size=3)
    (window,) = it.of(1)
    assert window.size == 15000
    assert len(window.flows["t"].marks) <= 256
    it.hears(1, 65536, ("t", 5000))
    assert (window.ahead, window.size) == (0, 0)


# -- receipts ----------------------------------------------------------------------------


def test_it_is_told_by_quarters_and_when_somebody_asks() -> None:
    it = Receipts(7, 100, 64 << 20, OWN)
    told = [it.took(PEER, "t", number + 1, 1, 10) for number in range(60)]
    assert [index for index, each in enumerate(told) if each] == [24, 49]
    assert told[24] == WindowMessage(7, 100, 8 << 20, [["t", 25]])
    assert it.wanted(PEER) == WindowMessage(7, 100, 8 << 20, [["t", 60]])
    assert it.wanted(PEER) is None  # nothing new
    assert it.took(PEER, "t", 61, 1, 10) == WindowMessage(7, 100, 8 << 20, [["t", 61]])
    assert it.took(PEER, "t", 62, 1, 10) is None


def test_publishers_share_the_room() -> None:
    it = Receipts(7, 100, 64 << 20, OWN)
    it.took(PEER, "t", 1, 1, 0)
    it.took(OTHER, "t", 1, 1, 0)
    assert it.begin(PEER) == WindowMessage(7, 50, 8 << 20, [])
    it.forget(OTHER)
    assert it.begin(PEER) == WindowMessage(7, 100, 8 << 20, [])


@given(
    width=st.integers(1, 40),
    steps=st.lists(
        st.tuples(st.sampled_from(["publish", "take", "lose", "ask"]), st.sampled_from("abc")), max_size=200
    ),
)
def test_the_two_sides_agree(width: int, steps: list[tuple[str, str]]) -> None:
    """Whatever is taken, lost or asked: who is ahead is within the window, and all taken means all free."""
    it = Publisher()
    it.subscribe(1, width)
    receipts = Receipts(1, width, 64 << 20, OWN)
    queue: list[tuple[str, int]] = []

    def hear(told: WindowMessage | None) -> None:
        if told is not None:
            it.windows.heard(PEER, told, 0.0)

    def take(count: int) -> None:
        for topic, number in queue[:count]:
            hear(receipts.took(PEER, topic, number + 1, 1, 1))
        del queue[:count]

    for what, topic in steps:
        (window,) = it.of(1)
        if what == "publish" and not window.full:
            queue.append((topic, it.line(topic).next))
            it.publish(topic, size=1)
        elif what in ("take", "lose"):  # a loss is known when what was before it is taken
            take(1)
        elif what == "ask":
            hear(receipts.wanted(PEER))
        assert len(queue) <= window.ahead <= width
    take(len(queue))
    hear(receipts.wanted(PEER))
    assert (window.ahead if steps else 0) == 0
