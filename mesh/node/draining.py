"""Leaving: what is queued goes out for a bounded time, peers are told, and what did not go out is counted.

    batches being filled → airlock → past who is full still → tails, and a moment for questions → direct links
                                                                                             ``drain_timeout``, together
    → goodbye → direct links once more                                                       half a second at most
    → what is left: messages in frames that still wait, and those that were sent past a full pipe meanwhile

A message is unsent if it could not be handed to the network for everybody who wanted it.  What a pipe has
taken is out of our hands: whoever misses some of that counts it as lost, where it happens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import trio

from mesh.core.codec import decode_batch, decode_direct
from mesh.core.effects import Incident
from mesh.core.messages import DirectedMessage, ErrorMessage, PartMessage, ReplyMessage
from mesh.core.types import NodeId
from mesh.errors import ForkError

if TYPE_CHECKING:
    from mesh.node.switchboard import Switchboard

__all__ = ["Unsent", "leave"]

_GOODBYE: Final = 0.5
"""Seconds that peers have, at most, to take what was published before they let us go."""

_ASKING: Final = 0.15
"""Seconds in which a subscriber that misses the end of what was published asks for it: a round trip, and its jitter."""

_OF_IT: Final = 0.75
"""Of the time to drain, what full pipes are given: the others' last questions need some of it, too."""

_SHOWN: Final = 3  # topics, and peers, that the line for people names


@dataclass(frozen=True, slots=True)
class Unsent:
    """Messages that a node could not send before it left: published ones by topic, directed ones and replies by peer's id."""

    by_topic: Mapping[str, int] = field(default_factory=dict)
    by_peer: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.by_topic.values()) + sum(self.by_peer.values())

    def text(self, names: Mapping[str, str]) -> str:
        """One line for people. ``names`` are peers' by id."""
        if not self.total:
            return "everything was sent"
        parts = [f"{n} on {topic}" for topic, n in _most(self.by_topic)]
        parts += [f"{n} to {names.get(peer, peer)}" for peer, n in _most(self.by_peer)]
        more = len(self.by_topic) + len(self.by_peer) - len(parts)
        shown = ", ".join(parts) + (f", and {more} more" if more else "")
        return f"{self.total} messages were not sent to everybody ({shown})"


def _most(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return Counter(counts).most_common(_SHOWN)


async def leave(board: Switchboard, *, drain: bool) -> None:
    """Drain, say goodbye, and release everything. ``board.unsent`` is what could not be sent."""
    airlock, timeout = board.publishing.airlock, board.config.drain_timeout
    passed = Counter(airlock.passed)
    airlock.leaving = True
    if drain:
        with trio.move_on_after(timeout):
            board.publishing.flush()
            with trio.move_on_after(_OF_IT * timeout):
                await board.publishing.flush_all()
            if airlock.queue:
                airlock.give_up()  # the others get what one peer does not take
                await board.publishing.flush_all()
            await _answer_last_questions(board)
            await board.outbox.flush()
        board.engine.say_goodbye(trio.current_time())
        board.pump.apply()
        with trio.move_on_after(min(_GOODBYE, timeout)):
            await board.outbox.flush()
    if not isinstance(board.closed, ForkError):  # which is the parent's to tell
        topics = airlock.passed - passed
        for _, _, topic, messages in airlock.queue:
            topics[topic] += messages
        topics += board.publishing.lanes.waiting()
        for stream in board.publishing.streams.values():  # those who left without draining
            route = board.engine.router.route(stream.topic)
            if route.broadcast or route.groups:
                topics[stream.topic] += stream.count - stream.sequence
        peers = {board.presence.peer(node): n for node, n in _directed(board).items()}
        board.unsent = Unsent(
            {topic: n for topic, n in topics.items() if n}, {peer.id: n for peer, n in peers.items()}
        )
        if board.unsent.total:
            names = {peer.id: peer.name for peer in peers}
            board.incidents.happened(Incident("left with messages unsent", board.unsent.text(names)))
    board.release()


async def _answer_last_questions(board: Switchboard) -> None:
    """Tell subscribers how far we came, and wait until nobody has asked for anything for a moment."""
    outgoing = board.engine.outgoing
    told = trio.current_time()
    asked = outgoing.announce_all(told)
    board.pump.apply()
    await board.publishing.flush_all()
    until = told + _ASKING
    while asked and trio.current_time() < until:
        await trio.sleep_until(until)
        until = max(until, outgoing.asked_at + _ASKING)


def _messages(message: Any) -> int:
    match message:
        case DirectedMessage():
            return len(decode_batch(message.batch).values)
        case ReplyMessage() | ErrorMessage():
            return 1
        case PartMessage():  # with its last part a message is sent; the others' whole message waits as well
            return int(message.offset + len(message.piece) == message.total)
    return 0


def _directed(board: Switchboard) -> Counter[NodeId]:
    """A program's messages among the frames that wait for a link. We made the frames, so they can be read."""
    found: Counter[NodeId] = Counter()
    for node, frames in board.outbox.queued():
        for frame in frames:
            found[node] += _messages(decode_direct(frame))
    return found
