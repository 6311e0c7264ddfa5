"""What a node needs from a transport, so that the real one and the fake are one to it.

Data flows one way on each socket.  Incoming: a socket's pump takes up to N frames a
wake and hands them, as they are, to the ``TransportEvents`` that ``run`` was given;
those calls are synchronous and never block.  Outgoing: the node calls the
``send_*``/``publish`` methods, which never wait; a full pipe answers False and
``wait_*`` tells when to try again.

Three planes (see ``docs/design/wire.md``): *intro* (strangers who know the mesh id
introduce themselves), *direct* (CURVE links between allowed keys), *broadcast*
(sealed frames, filtered by tag at the sender).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NewType, Protocol

import trio

from mesh.core.types import Address, NodeId

__all__ = ["Bound", "IntroRoute", "LinkKey", "Transport", "TransportEvents", "Verdict"]

IntroRoute = NewType("IntroRoute", int)
"""Names one introduction for as long as it stands: ours (we dialled) or a stranger's."""


@dataclass(frozen=True, slots=True)
class LinkKey:
    """A Curve25519 key pair of this process, raw (32 bytes each)."""

    public: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Bound:
    """What was bound, with real ports. Wildcard hosts stay as they are bound (``tcp://*:7400``);
    ``mesh.discovery.interfaces`` turns them into the addresses to advertise."""

    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with a subscription seen on the broadcast plane.

    ``tag`` is what to set (``subscribe`` True) or take away (False) on the pipe it
    came from; None refuses it. ``source`` is in whose name it was made, and in which epoch of that one's
    token: what ``cut_subscriber`` goes by.
    """

    tag: bytes | None
    subscribe: bool = True
    source: tuple[NodeId, int] | None = None


class TransportEvents(Protocol):
    """The calls a transport makes. All are synchronous, quick, and never raise."""

    def intro_received(self, route: IntroRoute, frame: bytes, host: str) -> None:
        """A frame of an introduction, ours or a stranger's. ``host`` is the other side's address
        as the socket saw it ("" if unknown)."""

    def intro_failed(self, route: IntroRoute, reason: str) -> None:
        """An introduction that we dialled cannot get through (refused, no such host)."""

    def direct_received(self, sender: NodeId, frames: Sequence[bytes]) -> None:
        """Frames of an allowed key's owner, in the order in which it sent them."""

    def direct_seen(self, sender: NodeId, host: str) -> None:
        """The CURVE handshake of an allowed key succeeded, from ``host``."""

    def broadcast_received(self, frames: Sequence[tuple[bytes, bytes]]) -> None:
        """(tag, sealed frame) pairs, unauthenticated."""

    def subscription_received(self, body: bytes) -> Verdict:
        """A subscription message of the broadcast plane: ``0x01`` or ``0x00``, then the
        authenticated body (``mesh.core.tags``). The verdict is carried out at once."""

    def rejected(self, plane: str, reason: str, count: int) -> None:
        """The transport itself refused something (ZAP denial, oversize, over a bound)."""


class Transport(ABC):
    """The sockets of one node. ``run`` opens, pumps and closes them; the rest is synchronous."""

    @abstractmethod
    async def run(
        self,
        events: TransportEvents,
        *,
        task_status: trio.TaskStatus[Bound] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Bind, start the pumps, report what was bound, and go on until cancelled.

        Raises ``TransportError`` when an endpoint cannot be bound. However it ends,
        every socket is closed when it returns.
        """

    # -- intro plane -----------------------------------------------------------

    @abstractmethod
    def dial_intro(self, endpoint: str) -> IntroRoute:
        """Begin an introduction at a peer's intro endpoint. Frames may be sent at once."""

    @abstractmethod
    def send_intro(self, route: IntroRoute, frame: bytes) -> None:
        """Send on an introduction, ours or a stranger's. A route that is gone is ignored."""

    @abstractmethod
    def close_intro(self, route: IntroRoute) -> None:
        """Forget an introduction. Idempotent; what was sent on it still goes out if it can."""

    # -- direct plane ----------------------------------------------------------

    @abstractmethod
    def allow(self, peer: NodeId, link_key: bytes) -> None:
        """Let this key in on the direct plane, as ``peer``."""

    @abstractmethod
    def disallow(self, peer: NodeId) -> None:
        """Take it back: close nothing of ours, but let nothing more of its frames through."""

    @abstractmethod
    def open_link(self, peer: NodeId, link_key: bytes, endpoint: str) -> None:
        """Connect our DEALER to the peer's direct endpoint (replacing an earlier link)."""

    @abstractmethod
    def close_link(self, peer: NodeId) -> None:
        """Close our DEALER to the peer. Idempotent."""

    @abstractmethod
    def send_direct(self, peer: NodeId, frame: bytes) -> bool:
        """Queue one frame on the peer's link; False if the pipe is full or there is no link."""

    @abstractmethod
    async def wait_direct_writable(self, peer: NodeId) -> None:
        """Return when ``send_direct`` is worth another try, or the link was closed; without a link, when
        one is opened."""

    # -- broadcast plane -------------------------------------------------------

    @abstractmethod
    def admit_broadcast(self, host: str) -> None:
        """Let subscribers from this address connect to our broadcast socket."""

    @abstractmethod
    def dismiss_broadcast(self, host: str) -> None:
        """Take ``admit_broadcast`` back: no new connection from this address."""

    @abstractmethod
    def cut_subscriber(self, peer: NodeId, before: int) -> None:
        """Close the connections whose latest accepted subscription was ``peer``'s, of an epoch below ``before``."""

    @abstractmethod
    def connect_broadcast(self, peer: NodeId, endpoint: str) -> None:
        """Connect our XSUB to the peer's broadcast endpoint (replacing an earlier one)."""

    @abstractmethod
    def disconnect_broadcast(self, peer: NodeId) -> None:
        """Undo ``connect_broadcast``. Idempotent."""

    @abstractmethod
    def subscribe(self, body: bytes) -> None:
        """Send a subscription body to every connected publisher, now and later ones."""

    @abstractmethod
    def unsubscribe(self, body: bytes) -> None:
        """Take back a body given to ``subscribe``."""

    @abstractmethod
    def publish(self, tag: bytes, frame: bytes) -> bool:
        """Hand one sealed frame to every pipe whose subscriptions match ``tag``.

        False: some pipe is full and nothing was sent; wait and try again, or
        ``publish_lossy``.
        """

    @abstractmethod
    def publish_lossy(self, tag: bytes, frame: bytes) -> None:
        """The same, dropping it on the pipes that are full (receivers see the gap).

        A pipe passed over stays out, for ``publish`` too, until its subscriber has taken half of
        what waits there: a stuck subscriber holds its publisher up once, not at every frame.
        """

    @abstractmethod
    async def wait_publishable(self) -> None:
        """Return when ``publish`` is worth another try."""
