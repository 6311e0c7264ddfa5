"""What this node has published, by topic: how far, what of it is kept, and what peers are told about it.

flush → the ``Line`` of the topic goes on (and its ring) → ``stir``.  When a line falls silent its tail is
announced behind what was sent, a few times, so that subscribers see a loss at the end; longer while some
pipe is known to have lost frames, and again to whom had to connect anew.

As a peer's subscriptions become live it is told where our lines stand.  It asks for what it misses (``repair``)
and is answered from the ring, one bounded part at a time: the next part when it asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from typing import Final

from mesh.config import Config
from mesh.core.broadcast import Broadcast
from mesh.core.codec import decode_batch, encode_tail
from mesh.core.effects import Effect, PublishFrame, SendDirect
from mesh.core.envelope import TAIL
from mesh.core.interest import PAGE_BYTES
from mesh.core.messages import Batch, PositionsMessage, RepairedMessage, RepairMessage, Tail
from mesh.core.ring import LEAST, Ring
from mesh.core.router import Router
from mesh.core.session import Session
from mesh.errors import ConfigError

__all__ = ["Line", "Outgoing"]

_QUIET: Final = 0.2
"""Seconds without a message after which a line has fallen silent."""

_SERIES: Final = (0.4, 0.8)
"""Seconds between the announcements of one tail. The first may fall to the same full pipe as what it tells of."""

_DOUBT: Final = 20.0
"""Seconds for which tails are announced after a frame was sent past a full pipe: a subscriber that stays away
for longer is taken for gone, and is told our positions when it comes back."""

_PART: Final = 256 << 10
"""Bytes of one answer to a question for repair, so that what is published meanwhile gets through as well."""

_POSITION_BYTES: Final = 32  # of a position beside its topic


class Line:
    """One topic of ours. ``next`` is the number of the message to be sent next."""

    __slots__ = (
        "behind",
        "busy",
        "due",
        "history",
        "next",
        "noted",
        "recent",
        "reliable",
        "retain",
        "ring",
        "said",
        "topic",
    )

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.next = 0
        self.behind = 0  # messages of these of which nothing has gone out: they wait behind a large one, or for its turn
        self.busy = False  # something goes out in pieces, and whatever follows waits for it
        self.ring: Ring | None = None
        self.reliable = False  # what is missing can be repaired from the ring
        self.history = 0  # messages for who subscribes later and asks for them
        self.retain = False  # the last one is for everybody who subscribes later
        self.recent = False  # its tail is still to be announced
        self.noted = -1  # ``next`` as it was at the last look
        self.said = 0  # times that this was announced
        self.due = 0.0

    @property
    def kept(self) -> int | None:
        """The oldest number that can be repaired; None if nothing is kept."""
        return self.ring.first if self.ring is not None and self.reliable else None

    @property
    def sent(self) -> int:
        """The number of the message to go out next."""
        return self.next - self.behind

    def first_for(self, history: int) -> int:
        """Where a subscription begins that would like the last ``history`` messages."""
        sent = self.sent
        if self.ring is None:
            return sent
        offered = history if self.reliable else min(history, self.history)
        return min(sent, max(self.ring.first, sent - (max(offered, 1) if self.retain else offered)))


class Outgoing:
    """All lines of a node. ``clock`` is monotonic seconds."""

    def __init__(self, config: Config, broadcast: Broadcast, router: Router, effects: list[Effect]) -> None:
        self._config = config
        self._broadcast = broadcast
        self._router = router
        self._effects = effects
        self.lines: dict[str, Line] = {}
        self._recent: dict[str, Line] = {}  # by topic
        self._by_tag: dict[bytes, Line] = {}
        self._stirred: list[Line] = []
        self._ring_bytes = 0
        self._doubted_until = float("-inf")
        self.asked_at = float("-inf")  # when somebody last asked for repair

    # -- publishing --------------------------------------------------------------

    def line(self, topic: str) -> Line:
        line = self.lines.get(topic)
        if line is None:
            line = self.lines[topic] = Line(topic)
        return line

    def keep(
        self, line: Line, size: int, *, reliable: bool = False, history: int = 0, retain: bool = False
    ) -> None:
        """From now on keep ``size`` bytes of what is published on it: all of it to repair losses, the last ``history``
        messages, or the last one, for those who come later. Raises ``ConfigError``."""
        if type(size) is not int or size < LEAST:
            raise ConfigError(
                f"{size!r} is not a number of bytes from {LEAST} on: it holds one batch", key="ring"
            )
        had = 0 if line.ring is None else line.ring.limit
        more = max(0, size - had)
        most = self._config.limits.ring_total_bytes
        if self._ring_bytes + more > most:
            raise ConfigError(
                f"{size} bytes do not fit: {self._ring_bytes} of {most} (limits.ring_total_bytes) are taken",
                key="ring",
            )
        self._ring_bytes += more
        if line.ring is None:
            line.ring = Ring(size, line.next)
        line.reliable |= reliable
        line.retain |= retain
        line.history = max(line.history, history)
        line.ring.limit = max(had, size)
        line.ring.most = None if line.reliable else max(line.history, 1)

    @property
    def stirred(self) -> bool:
        """Whether a line went on that had fallen silent: call ``settle``."""
        return bool(self._stirred)

    def stir(self, line: Line) -> None:
        """Something was published on it for others to receive."""
        line.recent = True
        self._stirred.append(line)

    def settle(self, clock: float) -> None:
        """Look at what was stirred in a while."""
        for line in self._stirred:
            self._recent[line.topic] = self._by_tag[self._broadcast.tag(line.topic)] = line
            line.noted = line.next
            line.said = 0
            line.due = clock + _QUIET
        self._stirred.clear()
        if len(self._by_tag) > 2 * len(self.lines):  # tags change with the mesh secret
            self._by_tag = {self._broadcast.tag(topic): line for topic, line in self._recent.items()}

    # -- tails ---------------------------------------------------------------------

    def passed_over(self, tag: bytes, clock: float) -> None:
        """A frame was sent past some full pipe: its subscriber lost it."""
        self._doubted_until = clock + _DOUBT
        self._again(self._by_tag.get(tag), clock)

    def settle_for(self, session: Session, clock: float) -> None:
        """If a peer has connected anew, what was on its way to it is lost."""
        if not session.resubscribed:
            return
        session.resubscribed = False
        for line in self._wanted_by(session):
            self._again(line, clock)

    def _again(self, line: Line | None, clock: float) -> None:
        if line is not None and line.recent:
            line.said = 0
        elif line is not None:
            self.stir(line)
            self.settle(clock)

    def _wanted_by(self, session: Session) -> Iterator[Line]:
        for line in self.lines.values():
            if line.next and any(m.peer == session.node for m in self._router.route(line.topic).broadcast):
                yield line

    def deadline(self) -> float:
        return min((line.due for line in self._recent.values()), default=float("inf"))

    def timer(self, clock: float) -> None:
        """Announce the tails that are due."""
        for topic, line in list(self._recent.items()):
            if line.due > clock:
                continue
            if line.next != line.noted or line.busy:  # a tail would overtake pieces
                line.noted = line.next
                line.said = 0
                line.due = clock + _QUIET
                continue
            self._announce(line, clock)
            if line.said < len(_SERIES):
                line.due = clock + _SERIES[line.said]
            elif clock < self._doubted_until:
                line.due = clock + _SERIES[-1]
            else:
                line.recent = False
                del self._recent[topic]
            line.said += 1

    def _announce(self, line: Line, clock: float) -> None:
        if self._router.route(line.topic).broadcast and not line.busy:
            tag = self._broadcast.tag(line.topic)
            tail = encode_tail(Tail(line.topic, line.next, line.kept))
            self._effects.append(PublishFrame(tag, self._broadcast.seal(tag, tail, clock, TAIL)))

    def announce_all(self, clock: float) -> bool:
        """We are about to leave: announce every tail now. Whether somebody may ask for repair."""
        self.settle(clock)
        for line in self._recent.values():
            self._announce(line, clock)
        return any(line.reliable for line in self._recent.values())

    # -- what peers are told, and ask for ----------------------------------------------

    def tell_positions(self, session: Session, version: int) -> None:
        """Where our lines stand, for those subscriptions of a peer that become live with ``version``."""
        page: list[list[object]] = []
        room = PAGE_BYTES
        for line in self.lines.values():
            if not line.next:
                continue
            for member in self._router.route(line.topic).broadcast:
                since = session.interests.since(member.number) if member.peer == session.node else None
                if since is None or not session.told < since <= version:
                    continue
                size = _POSITION_BYTES + len(line.topic.encode())
                if size > room:
                    self._effects.append(SendDirect(session.node, PositionsMessage(version, page, False)))
                    page, room = [], PAGE_BYTES
                entry = session.interests.get(member.number)
                first = line.first_for(0 if entry is None else entry.history)
                page.append([member.number, line.topic, line.sent, line.kept, first])
                room -= size
        self._effects.append(SendDirect(session.node, PositionsMessage(version, page, True)))

    def repair(self, session: Session, message: RepairMessage, clock: float) -> None:
        """A peer misses messages of ours."""
        line = self.lines.get(message.topic)
        if line is None or not any(
            member.peer == session.node for member in self._router.route(message.topic).broadcast
        ):
            return  # it has unsubscribed meanwhile, or is not entitled to it
        self.asked_at = clock
        ring = line.ring
        found = [] if ring is None else ring.cut(message.first, message.end, _PART)
        kept = line.next if ring is None else ring.first
        if found and len(found[0].batch) > message.most:
            found, kept = [], found[0].end  # it does not take that one: to it, it is not kept
        found = list(takewhile(lambda each: len(each.batch) <= message.most, found))
        number, topic = message.number, message.topic
        answers = [RepairedMessage(number, topic, kept, each.batch, each is found[-1]) for each in found]
        self._effects += [
            SendDirect(session.node, answer)
            for answer in answers or [RepairedMessage(number, topic, kept, None, True)]
        ]

    def catch_up(self, number: int, history: int) -> list[tuple[Batch, int]]:
        """What is here of our own lines for a subscription of ours that begins: batches, and how many of the first
        messages of each are too old."""
        found: list[tuple[Batch, int]] = []
        for line in self.lines.values():
            first = line.first_for(history)
            if line.ring is not None and first < line.next and number in self._router.route(line.topic).local:
                kept = line.ring.cut(first, line.next, line.ring.limit)
                found += [(decode_batch(each.batch), max(0, first - each.first)) for each in kept]
        return found
