"""A whole mesh in one process, for tests: real nodes, a virtual network, a virtual clock, one seed.

    async def main() -> None:
        network = mesh.testing.VirtualNetwork(seed=7)
        async with network.open_node("kitchen") as kitchen, network.open_node("cellar") as cellar:
            await kitchen.wait_for_peers(1)
            network.cut("kitchen", "cellar")
            await trio.sleep(60)                    # takes no time
            assert not kitchen.peers

    mesh.testing.run(main, seed=7)

``VirtualNetwork.open_node`` → the same ``Node`` that ``mesh.open_node`` gives, with papers of a mesh made for the occasion
and the in-memory transport beneath: no sockets, no files.  ``run`` → Trio with a clock that jumps to whatever is due
next, and with the order of tasks and all chance drawn from the seed: what fails once fails again in the same way.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from random import Random
from typing import Final, TypeVar

import trio
import trio._core._run as trio_run
import trio.testing

from mesh.config import Config
from mesh.core.handshake import Papers
from mesh.core.identity import SigningKey, issue_certificate
from mesh.core.types import mesh_id
from mesh.discovery.memory import MemoryDiscovery, MemoryHub
from mesh.errors import ConfigError
from mesh.node.node import Node
from mesh.transport.base import LinkKey
from mesh.transport.memory import MemoryNetwork

__all__ = ["START", "VirtualNetwork", "run"]

START: Final = 1_800_000_000.0
"""What the wall clock says when a network is made: seconds since the Unix epoch."""

_LIFETIME: Final = 10 * 365 * 86400  # s, of the certificates: no test is meant to outlast it

T = TypeVar("T")


def run(main: Callable[[], Awaitable[T]], *, seed: int = 0) -> T:
    """Run ``main`` in Trio, with a virtual clock that begins at 0 and jumps, repeatably.

    Nothing in it may wait for the world outside (sockets, threads, processes): the clock would run away meanwhile.
    Python's own ``random`` is seeded too. To have the same run in another process, set ``PYTHONHASHSEED``.
    """

    async def begin() -> T:
        return await main()

    with _repeatable(seed):
        return trio.run(begin, clock=trio.testing.MockClock(autojump_threshold=0))


@contextmanager
def _repeatable(seed: int) -> Iterator[None]:
    """Trio shuffles what is ready, so that nobody relies on its order; here its dice are loaded.

    (The way that Hypothesis does it, for which Trio keeps these two names.)
    """
    ours, theirs = random.getstate(), trio_run._r.getstate()
    settings = vars(trio_run)
    before = settings["_ALLOW_DETERMINISTIC_SCHEDULING"]
    random.seed(seed)
    trio_run._r.seed(seed)
    settings["_ALLOW_DETERMINISTIC_SCHEDULING"] = True
    try:
        yield
    finally:
        random.setstate(ours)
        trio_run._r.setstate(theirs)
        settings["_ALLOW_DETERMINISTIC_SCHEDULING"] = before


class VirtualNetwork:
    """A mesh of its own, and the network between its nodes. Nodes are named; each is a host of its own.

    ``latency`` is one way, in seconds, with at most ``jitter`` more at random; order within a connection is kept, as
    TCP does it. ``config`` is what nodes have that are opened without one (default: ``Config.lan()``). ``pipe`` is how many
    messages a connection holds before the publisher feels it. Make one inside of Trio.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        latency: float = 0.001,
        jitter: float = 0.0,
        pipe: int = 256,
        config: Config | None = None,
    ) -> None:
        self._chance = Random(seed)  # noqa: S311 - a simulation's chance, to be repeated
        self._network = MemoryNetwork(seed, latency=latency, jitter=jitter, pipe=pipe)
        self._hub = MemoryHub()
        self._config = config or Config.lan()
        self._ca = SigningKey.from_seed(self._chance.randbytes(32))
        self._secret = self._chance.randbytes(32)
        self._members: dict[str, SigningKey] = {}
        self._hosts: dict[str, str] = {}
        self._clocks: dict[str, float] = {}
        self._serial = itertools.count(1)
        self._began = trio.current_time()

    @asynccontextmanager
    async def open_node(self, name: str, *, config: Config | None = None) -> AsyncIterator[Node]:
        """A node in this mesh, for as long as the block lasts; as ``mesh.open_node``.

        A name that was used before is the same member again, in a new process.
        """
        settings = config or self._config
        host = self._hosts[name] = self._network.next_host()
        link = LinkKey(self._chance.randbytes(32), self._chance.randbytes(32))
        papers = self._papers(name)
        node = Node(
            name,
            settings,
            papers,
            name,
            link.public,
            self._network.transport(link, papers.mesh, settings, host=host),
            rng=Random(self._chance.getrandbits(64)).randbytes,  # noqa: S311
            wall=lambda: START + trio.current_time() - self._began + self._clocks.get(name, 0.0),
        )
        async with node.run([MemoryDiscovery(self._hub)]):
            yield node

    def _papers(self, name: str) -> Papers:
        key = self._members.setdefault(name, SigningKey.from_seed(self._chance.randbytes(32)))
        certificate = issue_certificate(
            self._ca,
            public_key=key.public,
            name=name,
            not_before=int(START) - 86400,
            expires=int(START) + _LIFETIME,
            serial=next(self._serial),
        )
        mesh = mesh_id(self._ca.public)
        return Papers(mesh, self._ca.public, key, certificate, self._secret, 1, None)

    def _host(self, name: str) -> str:
        if name not in self._hosts:
            raise ConfigError(f"no node {name!r} was opened in this network", key="name")
        return self._hosts[name]

    # -- trouble -----------------------------------------------------------------------

    def cut(self, a: str, b: str, *, one_way: bool = False) -> None:
        """Nothing gets from ``a`` to ``b`` (and back, unless ``one_way``) until ``heal``; what is sent waits."""
        self._network.cut(self._host(a), self._host(b), one_way=one_way)

    def heal(self, a: str, b: str, *, one_way: bool = False) -> None:
        """Undo ``cut``: what waited arrives, and connections are made."""
        self._network.heal(self._host(a), self._host(b), one_way=one_way)

    def delay(self, a: str, b: str, seconds: float, *, one_way: bool = False) -> None:
        """Set the latency from ``a`` to ``b`` (and back, unless ``one_way``)."""
        self._network.delay(self._host(a), self._host(b), seconds, one_way=one_way)

    def disturb(self, *, loss: float = 0.0, duplicate: float = 0.0, flip: float = 0.0) -> None:
        """From now on so many of all messages, 0 to 1, are lost, come twice, come again with a flipped bit.

        What is lost of a connection's stream comes 0.2 s late, as TCP sends it again; broadcast frames are lost. Frames
        that come twice or flipped are broadcast frames, whose connections anybody on the way can write on.
        """
        for each in (loss, duplicate, flip):
            if not 0.0 <= each <= 1.0:
                raise ConfigError(f"{each!r} is no share between 0 and 1", key="disturb")
        self._network.disturb(loss=loss, double=duplicate, flip=flip)

    def break_connections(self, a: str, b: str) -> None:
        """Every connection between the two is lost, with what is on its way; they connect anew."""
        self._network.reset(self._host(a), self._host(b))

    def pause(self, name: str) -> None:
        """The node takes nothing until ``resume``: what is sent to it waits, as with a program that does not read."""
        self._network.pause(self._host(name))

    def resume(self, name: str) -> None:
        """Undo ``pause``."""
        self._network.resume(self._host(name))

    def crash(self, name: str) -> None:
        """The node is dead for the others: what it sent last is lost, and no goodbye comes.

        Its block goes on, cut off for good, until it is left. ``open_node`` with the same name starts it again.
        """
        host = self._host(name)
        self._network.isolate(host)
        self._network.crash(host)

    def set_clock(self, name: str, seconds: float) -> None:
        """The node's wall clock is so much ahead (behind, if negative) from now on."""
        self._clocks[name] = seconds
