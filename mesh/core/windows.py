"""Windows: how far we may be ahead of the subscriptions of others that ask publishers to wait for them.

An interest with a ``mode`` → a ``Window`` of so many messages → each batch that is sent to it counts (``sent``) until the
subscriber says that its program has taken it (``heard``: positions, so that what is lost or comes twice does not
upset the account).  While a window is shut, publishers wait for it (``wait`` … ``done``): then it is asked how far it has
come, now and then, and cut off when ``backpressure_patience`` is over.  One that is cut off is not waited for, until it begins
anew; and a member whose subscriptions were cut off has less patience to spend for a while.

Windows of this node's own subscriptions are like those of others, under ``LOCAL``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from mesh.config import Config
from mesh.core.effects import CutOff, Effect, Incident, Reopened, SendDirect
from mesh.core.messages import CutOffMessage, InterestEntry, WindowMessage, WindowWantedMessage
from mesh.core.outgoing import Line
from mesh.core.router import LOCAL, SUBSCRIPTION, Member, Route, Router
from mesh.core.session import Session
from mesh.core.types import NodeId

__all__ = ["FIRST_BYTES", "MOST_MESSAGES", "Window", "Windows"]

MOST_MESSAGES: Final = 65536
"""Messages of the widest window: a subscription's buffer by default."""

FIRST_BYTES: Final = 256 << 10
"""Bytes of a window whose subscriber has not yet said how many it has room for: four full batches."""

_RESERVE: Final = 64
"""Messages that may be sent past a shut window: a message is sent first and waited for then, so that nobody else gets it
later; so many tasks that publish at once can do so."""

_RESERVE_BYTES: Final = 64 << 10  # likewise: a full batch

_MARKS: Final = 256
"""Batches of a topic whose bytes are counted each for itself; what is more is counted together."""

_ASK: Final = 0.02
"""Seconds for which a publisher waits before it asks: a subscriber that is merely busy opens the window by itself."""

_ASK_AGAIN: Final = 0.1  # … then twice as long each time
_ASK_MOST: Final = 1.0

_CUTS: Final = 3
"""Times that patience with a member's subscriptions may run out before there is less of it: its other nodes are not to
blame for one that is stuck …"""

_RECOVERS: Final = 0.1
"""… and seconds of patience that it then regains in each second: however often it subscribes anew, it holds nobody up for
more than a tenth of the time."""

_REMEMBERED: Final = 1024  # members that were cut off


class _Name(NamedTuple):
    node: str
    member: bytes


class _Flow:
    """One topic of a window. Numbers from ``taken`` up to ``sent`` are on their way or wait to be taken."""

    __slots__ = ("marks", "sent", "size", "taken")

    def __init__(self, first: int) -> None:
        self.taken = self.sent = first
        self.marks: deque[tuple[int, int]] = deque()  # (number behind a batch, its bytes)
        self.size = 0

    def add(self, end: int, size: int) -> None:
        self.sent = end
        self.size += size
        if len(self.marks) >= _MARKS:
            size += self.marks.pop()[1]
        self.marks.append((end, size))

    def take(self, end: int) -> tuple[int, int]:
        """Everything below ``end`` is taken: how many messages and bytes that sets free."""
        end = min(end, self.sent)
        messages, before = max(0, end - self.taken), self.size
        self.taken += messages
        while self.marks and self.marks[0][0] <= end:
            self.size -= self.marks.popleft()[1]
        return messages, before - self.size


class Window:
    """One subscription that publishers wait for. ``ahead`` messages of ``size`` bytes are sent and not yet taken, ``filling``
    are in batches that are being filled."""

    __slots__ = (
        "ahead",
        "ask_at",
        "asks",
        "bytes",
        "cut",
        "filling",
        "filling_bytes",
        "flows",
        "held",
        "live",
        "member",
        "messages",
        "pattern",
        "since",
        "size",
        "told",
        "waiting",
    )

    def __init__(self, member: Member, entry: InterestEntry) -> None:
        self.member = member
        self.pattern = entry.pattern
        self.messages = min(entry.mode, MOST_MESSAGES)
        self.bytes = FIRST_BYTES
        self.ahead = self.size = self.filling = self.filling_bytes = 0
        self.flows: dict[str, _Flow] = {}
        self.live = member.peer == LOCAL  # what is sent reaches it
        self.cut = False  # nobody waits for it any more
        self.waiting = 0  # publishers that wait for it now
        self.since = 0.0  # since when …
        self.held = 0.0  # … and for how long they had before, since it last took something
        self.ask_at = float("inf")
        self.asks = 0
        self.told = False  # that it is waited for

    @property
    def full(self) -> bool:
        return self.ahead + self.filling >= self.messages or self.size + self.filling_bytes >= self.bytes

    @property
    def overfull(self) -> bool:
        """Nothing is to be sent at all: the reserve is used up."""
        return (
            self.ahead + self.filling >= self.messages + _RESERVE
            or self.size + self.filling_bytes >= self.bytes + _RESERVE_BYTES
        )

    @property
    def pause(self) -> float:
        """Seconds until it is asked again."""
        return min(_ASK_AGAIN * (1 << min(self.asks, 10)), _ASK_MOST)

    def begin(self) -> None:
        """What was sent so far does not count."""
        self.flows.clear()
        self.ahead = self.size = 0

    def gets_on(self, clock: float) -> None:
        """It has taken something: patience begins anew."""
        self.since = clock
        self.held = 0.0
        self.asks = 0


class Windows:
    """All windows of a publishing node. ``clock`` is monotonic seconds.

    ``is_live`` tells whether what we send reaches a subscription already.
    """

    def __init__(
        self,
        config: Config,
        effects: list[Effect],
        router: Router,
        sessions: Mapping[NodeId, Session],
        is_live: Callable[[Member], bool],
    ) -> None:
        self._config = config
        self._effects = effects
        self._is_live = is_live
        self._sessions = sessions
        self._windows: dict[Member, Window] = {}
        self._waited: set[Window] = set()
        self._spent: dict[bytes, tuple[float, float]] = {}  # member → (seconds of patience spent, when)
        router.followers.append(self)
        self.cut_off = 0  # how many were, ever

    def __iter__(self) -> Iterator[Window]:
        return iter(self._windows.values())

    # -- who asks to be waited for --------------------------------------------------

    def begin(self, peer: NodeId, entries: Iterable[InterestEntry]) -> None:
        """Interests that begin."""
        for entry in entries:
            if entry.kind != SUBSCRIPTION or not entry.mode or entry.group:
                continue
            window = Window(Member(peer, entry.number), entry)
            if window.member in self._windows:
                continue
            if len(self._windows) >= self._config.limits.windows:
                self._cut(window, "there are too many to wait for")
                continue
            self._windows[window.member] = window

    def end(self, peer: NodeId, entries: Iterable[InterestEntry]) -> None:
        """Interests that ended."""
        for entry in entries:
            self._drop(Member(peer, entry.number))

    def _drop(self, member: Member) -> None:
        window = self._windows.pop(member, None)
        if window is not None:
            window.cut = True
            self._waited.discard(window)
            self._open(window)

    # -- publishing ------------------------------------------------------------------

    def of(self, route: Route) -> tuple[Window, ...]:
        """The windows of those who get this topic."""
        if not self._windows:
            return ()
        members = (*route.broadcast, *(Member(LOCAL, number) for number in route.local))
        return tuple(self._windows[member] for member in members if member in self._windows)

    def _counts(self, window: Window) -> bool:
        if not window.live:
            window.live = self._is_live(window.member)
        return window.live and not window.cut

    def add(self, windows: Iterable[Window], line: Line, size: int) -> bool:
        """One message more is in the batch being filled. Whether that is to go out now: there is no room for more."""
        for window in windows:
            window.filling += 1
            window.filling_bytes += size
        return self.shut(windows, line) is not None

    def filled(self, windows: Iterable[Window], messages: int, size: int) -> None:
        """The batch that was filled goes out; all of it was told to ``add``."""
        for window in windows:
            window.filling -= messages
            window.filling_bytes -= size

    def sent(self, windows: Iterable[Window], topic: str, first: int, end: int, size: int) -> None:
        """A batch goes out now: the numbers from ``first`` up to ``end``, ``size`` bytes of values."""
        for window in windows:
            if self._counts(window):
                flow = window.flows.get(topic)
                if flow is None:
                    flow = window.flows[topic] = _Flow(first)
                flow.add(end, size)
                window.ahead += end - first
                window.size += size

    def _is_shut(self, window: Window, line: Line) -> bool:
        if window.full:
            return True
        ring, flow = line.ring, window.flows.get(line.topic)
        # What is on its way must be in the ring still, so that it can be repaired.
        return line.reliable and ring is not None and flow is not None and flow.size >= ring.limit // 2

    def shut(self, windows: Iterable[Window], line: Line) -> Window | None:
        """One of these for which a publisher on ``line`` has to wait now."""
        for window in windows:
            if self._is_shut(window, line) and self._counts(window):
                return window
        return None

    def overfull(self, windows: Iterable[Window]) -> Window | None:
        """One of these to which nothing must be sent at all now."""
        for window in windows:
            if window.overfull and self._counts(window):
                return window
        return None

    def wait(self, window: Window, clock: float) -> None:
        """A publisher begins to wait for it."""
        window.waiting += 1
        if window.waiting == 1:
            window.since = clock - window.held
            window.ask_at = clock + (window.pause if window.asks else _ASK)
            self._waited.add(window)

    def done(self, window: Window, clock: float) -> None:
        """It waits no more: it was cancelled, or looks again."""
        window.waiting -= 1
        if not window.waiting:
            window.held = clock - window.since
            window.ask_at = float("inf")
            self._waited.discard(window)

    # -- what subscribers say ----------------------------------------------------------

    def heard(self, peer: NodeId, message: WindowMessage, clock: float) -> None:
        """How far a subscription has come, and how far ahead of it we may be."""
        window = self._windows.get(Member(peer, message.number))
        if window is None:
            return  # it ended meanwhile, or there was no room for it
        window.messages = max(1, min(message.messages, MOST_MESSAGES))
        window.bytes = max(1, message.bytes)
        if not message.taken:
            window.begin()
            window.cut = False
        taken = 0
        for topic, end, *_ in message.taken:
            flow = window.flows.get(topic)
            if flow is None:
                continue
            messages, size = flow.take(end)
            taken += messages
            window.ahead -= messages
            window.size -= size
            if flow.taken >= flow.sent:
                del window.flows[topic]
        if taken:
            window.gets_on(clock)
        if not message.taken or taken:
            self._open(window)

    def _open(self, window: Window) -> None:
        """Whoever waits for it may look again."""
        if window.waiting:
            self._effects.append(Reopened())

    # -- patience ------------------------------------------------------------------------

    def _patience(self, window: Window, clock: float) -> float:
        """Seconds for which this one may hold us up."""
        most = self._config.backpressure_patience
        return min(most, max(0.0, _CUTS * most - self._spent_by(window.member.peer, clock)))

    def _spent_by(self, peer: NodeId, clock: float) -> float:
        spent, when = self._spent.get(self._name_of(peer).member, (0.0, clock))
        return max(0.0, spent - (clock - when) * _RECOVERS)

    def _spend(self, peer: NodeId, patience: float, clock: float) -> None:
        spent = self._spent_by(peer, clock) + patience
        member = self._name_of(peer).member
        self._spent.pop(member, None)
        if len(self._spent) >= _REMEMBERED:
            self._spent.pop(next(iter(self._spent)))
        self._spent[member] = (spent, clock)

    def _name_of(self, peer: NodeId) -> _Name:
        session = self._sessions.get(peer)
        if session is None:
            return _Name("this node", b"")  # its windows end with a peer's session
        return _Name(session.name, session.introduced.certificate.member)

    def deadline(self) -> float:
        if not self._waited:
            return float("inf")
        return min(min(w.ask_at, w.since + self._patience(w, w.since)) for w in self._waited)

    def timer(self, clock: float) -> None:
        """Ask those that are waited for how far they are; cut off who took too long."""
        for window in list(self._waited):
            patience = self._patience(window, window.since)
            if window.since + patience <= clock:
                self._spend(window.member.peer, patience, clock)
                self._cut(window, f"it took nothing for {patience:.3g} s while publishers waited")
            elif window.ask_at <= clock:
                self._ask(window, clock)

    def _ask(self, window: Window, clock: float) -> None:
        peer, number = window.member
        if peer != LOCAL:
            self._effects.append(SendDirect(peer, WindowWantedMessage(number)))
        window.ask_at = clock + window.pause
        window.asks += 1
        if window.asks > 3 and not window.told:
            window.told = True
            what = f"{self._called(window)} is {window.ahead} messages behind: publishers wait for it"
            self._effects.append(Incident("slow subscriber", what))

    def _called(self, window: Window) -> str:
        return f"{self._name_of(window.member.peer).node}'s subscription to {window.pattern!r}"

    def _cut(self, window: Window, why: str) -> None:
        peer, number = window.member
        self.cut_off += 1
        window.cut = True
        window.begin()
        window.held = 0.0
        self._waited.discard(window)
        if peer == LOCAL:
            self._effects.append(CutOff(LOCAL, number))
        else:
            self._effects.append(SendDirect(peer, CutOffMessage(number)))
        self._effects.append(Incident("subscriber cut off", f"{self._called(window)}: {why}"))
        self._open(window)
