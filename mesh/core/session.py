"""One peer: who it is, how far the attachment has come, what it told us.

The attachment is three words over two one-way links (each side's DEALER to the other's
ROUTER), after the introduction has let each other's link key in:

    A                                              B
      Attach(session a, answers none), interests -->        B knows A
                 <-- Attach(session b, answers a), interests     A knows that B hears it
      Attach(session a, answers b)                -->        B knows that A hears it

Both may begin at once; the rule is the same: answer an Attach whose session we have not
answered, or that does not answer ours.  A session names one life of the link; a new
one from the peer means that it forgot everything, and so do we.
"""

from __future__ import annotations

from typing import Any

from mesh.core.farewell import Farewell
from mesh.core.handshake import Introduced
from mesh.core.interest import RemoteInterests
from mesh.core.membership import Liveness
from mesh.core.messages import AttachMessage
from mesh.core.strikes import Strikes
from mesh.core.types import Address, NodeId

__all__ = ["Session"]


class Session:
    """The state of one peer, from introduction to departure."""

    __slots__ = (
        "address",
        "answered",
        "answered_theirs",
        "asked",
        "askers",
        "attach_deadline",
        "attach_tries",
        "barriers",
        "broadcast_connected",
        "certified_at",
        "confirmed",
        "doubted",
        "encoded",
        "expected",
        "farewell",
        "finished",
        "host",
        "inquiry",
        "interests",
        "interests_due",
        "introduced",
        "joined",
        "link_open",
        "live",
        "liveness",
        "load",
        "mine",
        "node",
        "old_subscriber",
        "positioned",
        "positions",
        "probe_sent",
        "rekeying",
        "replaced",
        "resubscribed",
        "revocations",
        "rtt",
        "settled",
        "starved_at",
        "strikes",
        "theirs",
        "token",
        "told",
        "welcomed",
    )

    def __init__(self, introduced: Introduced, liveness: Liveness, max_interests: int) -> None:
        self.node: NodeId = introduced.record.node
        self.introduced = introduced
        self.encoded = introduced.encoded
        self.address: Address | None = None
        self.doubted = 0  # an address at one end went: our link may be dead, until this ping is answered
        self.expected = False  # it introduced itself, from where we can reach it: its Attach is on the way
        self.host = ""  # the address its direct link comes from
        self.liveness = liveness
        self.strikes = Strikes()
        self.interests = RemoteInterests(max_interests)
        self.link_open = False
        self.broadcast_connected = False
        self.mine: bytes | None = None  # our session, new with each life of our link to it
        self.theirs: bytes | None = None
        self.answered = False  # it has answered our session
        self.answered_theirs: bytes | None = None  # the session of theirs we answered
        self.interests_due = 0  # the version its Attach spoke of
        self.attach_deadline = float("inf")
        self.attach_tries = 0
        self.token: tuple[int, bytes] | None = None
        self.old_subscriber = False  # its token is new: what subscribed under the old one is to be cut
        self.revocations = 0  # the version of the list that it holds, as far as we know
        self.certified_at = float("-inf")  # when we last made a certificate for it
        self.rekeying: int | None = None  # the ping whose answer says that it has our new token
        self.confirmed = -1  # the version of OUR interests that it has echoed
        self.live = -1  # the version of ITS interests whose barrier we have echoed
        self.told = (
            -1
        )  # the version of ITS interests up to which our positions were told in this life of our link
        self.barriers: list[tuple[bytes, int]] = []  # its barriers that wait for its interests
        self.starved_at = float("inf")  # since when they have been waiting
        self.positions: list[list[Any]] = []  # where its streams stand, until its echo makes them count …
        self.positioned = -1  # … of the barrier of this version; -1 until all of them have come
        self.settled = -1  # the version of OUR interests up to which its positions have counted
        self.resubscribed = False  # a subscription of its came again: its connection to us was lost
        self.joined = False
        self.farewell: Farewell | None = None  # it said goodbye
        self.finished = False  # its last frame on the broadcast plane has arrived
        self.welcomed = False  # told of all others
        self.inquiry = 0  # the token of the last question to others about it
        self.asked = (0, float("-inf"))  # our last ping for others: token, when
        self.askers: dict[NodeId, tuple[int, int]] = {}  # who asks us about it → its token, that of our ping
        self.replaced = False  # a later process of the same name has come in its place: it is, or it answers
        self.rtt: float | None = None
        self.probe_sent: dict[int, float] = {}  # ping tokens → when
        self.load = 0

    @property
    def name(self) -> str:
        return self.introduced.record.name

    @property
    def attached(self) -> bool:
        """Both ways hear each other and we know what it wants."""
        return self.answered and self.theirs is not None and self.interests.version >= self.interests_due

    @property
    def awaited(self) -> bool:
        """Whether it may count us among its peers, and so publish to us: its first word is enough for that, ours may be
        on the way. Who said goodbye publishes no more."""
        return self.theirs is not None and self.farewell is None

    def begin_link(self, session: bytes) -> None:
        """A new life of our link to it."""
        self.mine = session
        self.link_open = True
        self.told = -1  # it will forget what we told it
        self.answered = False
        self.answered_theirs = None
        self.rekeying = None  # its first Attach brings the token

    def heard_attach(self, message: AttachMessage) -> tuple[bool, bool]:
        """Take in an Attach: (it begins a new session of theirs, within the session its token is another)."""
        new = message.session != self.theirs
        if new:
            self.theirs = message.session
            self.welcomed = False
            self.interests = RemoteInterests(self.interests.limit)
            self.live = self.told = -1
            self.confirmed = -1
            self.positions.clear()
            self.positioned = self.settled = -1
            self.barriers.clear()
            self.old_subscriber = False
            self.answered = False
        rekeyed = not new and self.token is not None and self.token[0] != message.token_epoch
        if rekeyed:
            self.live = self.told = -1
            self.barriers.clear()
            self.old_subscriber = True
        self.token = (message.token_epoch, message.token)
        self.revocations = message.revocations
        self.interests_due = max(self.interests_due if not new else 0, message.interests)
        if message.answers is not None and message.answers == self.mine:
            self.answered = True
        return new, rekeyed

    def must_answer(self, message: AttachMessage) -> bool:
        """Whether the peer still needs an Attach of ours."""
        return self.answered_theirs != message.session or message.answers != self.mine
