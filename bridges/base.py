"""What the adapter of a broker offers: the one interface that the bridge engine knows.

    Kind            what ``mesh.toml`` may say about a broker of this kind, and how to make its ``Broker``
    Broker.run      connects → ``task_status.started(Session)`` → stays until cancelled, or raises
                    ``BrokerUnavailable`` once the connection is lost; the engine runs it again, with backoff
    Session         one connection's worth of work: ``send``, ``receive``, ``request``, ``reply``
    Receiver        one import route: ``receive`` → ``Delivery`` … → ``acknowledge`` or ``reject``

An adapter keeps no state from one ``run`` to the next, decides nothing about retries, duplicates, order
across connections, formats or loops, and counts nothing: that is the engine's.  It translates, it says when
the broker *has* a message (``send`` returns) and it says which of two things went wrong:

- ``BrokerUnavailable``: it is not known whether the broker has it; the engine connects anew and sends again.
- ``BrokerRejected``: the broker will not take this message (or these credentials), however often it is asked.

Everything here is awaited in the engine's Trio task.  A client that lives on another event loop or thread is
the adapter's own affair, and ends with ``run``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from bridges.forms import Forms
from bridges.mapping import SourcePattern
from bridges.messages import BrokerMessage
from bridges.settings import BridgeSettings, ExportRoute, ImportRoute
from mesh.errors import MeshError

__all__ = [
    "BATCH",
    "CLOSE_WITHIN",
    "CONNECT_WITHIN",
    "Broker",
    "BrokerError",
    "BrokerRejected",
    "BrokerUnavailable",
    "Delivery",
    "Kind",
    "Outcome",
    "Receiver",
    "Session",
]

BATCH: Final = 512
"""Messages in one ``send`` or ``receive`` at most: enough to hide a round trip, few enough to hold in memory."""

CONNECT_WITHIN: Final = 10.0
"""Seconds for ``run`` to connect, or to raise ``BrokerUnavailable``."""

CLOSE_WITHIN: Final = 3.0
"""Seconds for ``run`` to end after it was cancelled, whatever hangs."""


class BrokerError(MeshError):
    """The root of what goes wrong with a broker. Its text never holds credentials."""


class BrokerUnavailable(BrokerError):
    """The broker is not there, or the connection was lost: nobody knows what it got. It will be tried again."""


class BrokerRejected(BrokerError):
    """The broker (or what stands for it here) says no, and will say no again.

    ``reason`` is a word or two that is the same for all failures of one cause (``too large``, ``unroutable``,
    ``credentials``): it is what is counted, and logged once. ``detail`` says more.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that was received. ``token`` is the adapter's own: how it will know it again."""

    message: BrokerMessage
    token: Any = field(default=None, compare=False)


class Receiver(ABC):
    """One import route on one connection. One task receives; one call at a time settles, perhaps while ``receive`` waits."""

    @abstractmethod
    async def receive(self) -> Sequence[Delivery]:
        """Wait for messages: at least one, at most ``BATCH``, in the broker's order.

        An adapter may fetch ahead, within a bound of its own. ``message_id`` is the sender's; if there is none, the
        adapter makes one of the message's coordinates at the broker, if it has any that stay the same. On a reliable route a message that was not
        acknowledged comes again, to this bridge after a restart or to another of its group.
        Raises ``BrokerUnavailable``.
        """

    @abstractmethod
    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """The mesh has them: the broker may forget them. Raises ``BrokerUnavailable``.

        In the order of receipt, with no gaps but for what was rejected just before; on a route of requests in
        any order. On a route that is not reliable there may be nothing to do.
        """

    @abstractmethod
    async def reject(self, delivery: Delivery, reason: str) -> None:
        """It can never cross: put it where dead letters go, with the reason, or drop it if there is no such place.

        It is settled by that, and never acknowledged as well. Raises ``BrokerUnavailable``.
        """

    async def lag(self) -> int | None:
        """Messages at the broker that this route has not acknowledged yet; None where that can't be known.

        Asked every few seconds, by another task. Raises ``BrokerUnavailable``.
        """
        return None


Outcome = Callable[[], Awaitable[Mapping[int, BrokerRejected]]]
"""What became of a batch that is on its way: to be called, and awaited, once."""


class Session(ABC):
    """A connection that works. Its methods raise ``BrokerUnavailable`` once it does not."""

    @abstractmethod
    async def send(
        self, route: ExportRoute, messages: Sequence[BrokerMessage]
    ) -> Mapping[int, BrokerRejected]:
        """Send at most ``BATCH`` messages and return when the broker has them; the refused ones by their place.

        Messages of one ``key`` stay in order. *Has* means, on a reliable route, all that the broker can promise
        (confirmed, persistent); on others, handed over. Of one route there is one call at a time.
        Raises ``BrokerUnavailable`` (then the whole batch is sent again on a reliable route).
        """

    async def begin(self, route: ExportRoute, messages: Sequence[BrokerMessage]) -> Outcome:
        """Hand over a batch, and return what ``send`` would come to: so that the next one is under way meanwhile.

        The batches of one route arrive in the order of these calls. An adapter that knows no other way waits
        for each. Raises ``BrokerUnavailable``; so may the outcome, and then those of all that were handed over later.
        """
        refused = await self.send(route, messages)

        async def outcome() -> Mapping[int, BrokerRejected]:
            return refused

        return outcome

    @abstractmethod
    def receive(self, route: ImportRoute) -> AbstractAsyncContextManager[Receiver]:
        """Read what ``route`` names for as long as the block lasts.

        Entering returns once it is live: what is sent from then on is received.
        Raises ``BrokerUnavailable``, ``BrokerRejected`` (it will not let us).
        """

    @property
    def hindrance(self) -> str:
        """Why the broker takes nothing for now although the connection works; empty if nothing is known of that."""
        return ""

    async def request(self, route: ExportRoute, message: BrokerMessage, timeout: float) -> BrokerMessage:
        """Send a request and wait for its one reply, ``timeout`` seconds at most (``trio.TooSlowError`` then).

        Many at once. The adapter fills in ``reply_to`` and ``correlation_id``.
        Raises ``BrokerUnavailable``, ``BrokerRejected`` (``unroutable``: no worker is there).
        """
        raise BrokerRejected("no requests", "this kind of broker carries none")

    async def reply(self, request: BrokerMessage, reply: BrokerMessage) -> None:
        """Answer a request that was received (its ``reply_to`` is not empty), with its ``correlation_id``.

        ``reply.destination`` is empty. Raises ``BrokerUnavailable``, ``BrokerRejected``.
        """
        raise BrokerRejected("no requests", "this kind of broker carries none")


class Broker(ABC):
    """One broker as one bridge sees it. Making it does nothing but remember its settings."""

    @abstractmethod
    async def run(self, *, task_status: trio.TaskStatus[Session]) -> None:
        """Connect (within ``CONNECT_WITHIN``), hand out the session, stay until cancelled, close (``CLOSE_WITHIN``).

        ``task_status.started(session)`` means: connected, authenticated, and nothing declared or consumed yet
        (``mesh bridge --check`` comes this far and no further).
        Raises ``BrokerUnavailable`` as soon as it notices that the connection is lost,
        ``BrokerRejected("credentials")`` when the broker knows us and says no.
        """


def _no_fault(_: Any) -> str | None:
    return None


def _no_check(_: BridgeSettings) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Kind:
    """What the configuration may say about brokers of one kind. Each adapter's module has one, named ``KIND``."""

    name: str
    schemes: Mapping[str, bool]
    """Schemes of its URLs; whether each means TLS."""
    port: int
    """Where it listens unless the URL says so."""
    separator: str
    """Stands between the words of a destination, where a mesh topic has ``/``. Routes may name another."""
    source: Callable[[str], SourcePattern]
    """Reads ``from``. Raises ``ValueError`` that says what is wrong."""
    make: Callable[[BridgeSettings, str], Broker]
    """Makes the broker. The text is the bridge's identity (16 hex digits): the same for all bridges of one mesh
    with this name and address, and for no others. Consumer groups and the like are named by it unless the
    configuration names them."""
    options: Forms | None = field(default_factory=dict)
    """Keys under ``options``; None: any that have a plain value."""
    export_options: Forms = field(default_factory=dict)
    """Further keys of an export route."""
    export_templates: Sequence[str] = ()
    """Further keys of an export route that are templates. One named ``key`` fills ``BrokerMessage.key``."""
    import_options: Forms = field(default_factory=dict)
    """Further keys of an import route."""
    requests: bool = False
    """It carries requests and replies."""
    reject_destination: Callable[[str], str | None] = _no_fault
    """Why this text can't be a destination there, or None. Asked for each new one that a template came to."""
    check: Callable[[BridgeSettings], None] = _no_check
    """Judges the settings as a whole. Raises ``ConfigError`` with a ``key`` such as ``import[1].from``."""
