"""Real processes on hosts of their own, harmed in one way after another: what was offered, what came, and how soon it was noticed.

Three hosts with a node each (``tests.lan.node --load``), all of which publish and read all the time; ``c`` is harmed.
A fault → ``a`` and ``b`` suspect ``c`` (detection) → the fault ends → messages go both ways again (recovery) → everybody falls
silent → the account is made of every pair of nodes that lived all the time.
"""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any, Final

import trio

from tests.chaos.load import DELIVERED, DISORDERED, KINDS, LOST, TWICE
from tests.lab import Lan, Running
from tests.lab.cable import cable, worsen
from tests.lan.nodes import LanNode, Mesh

__all__ = ["FAULTS", "Figures", "Stage", "harmed"]

SETTLED: Final = 90.0  # s within which the account must be complete once everybody is silent


@dataclass
class Figures:
    """Messages, of pairs that lived all the time; times in seconds."""

    offered: int = 0
    delivered: int = 0
    lost: int = 0
    duplicated: int = 0
    disordered: int = 0
    repaired: int = 0
    lost_reliable: int = 0
    detection: list[float] = field(default_factory=list)
    recovery: list[float] = field(default_factory=list)

    def add(self, other: Figures) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class Stage:
    """The nodes, ``c``'s cable, and what is needed to begin ``c`` again."""

    lan: Lan
    home: Mesh
    a: LanNode
    b: LanNode
    c: LanNode
    cable: Running
    options: Sequence[str]
    rest: AsyncExitStack
    figures: Figures = field(default_factory=Figures)

    async def suspects(self, began: float) -> None:
        """Both others have noticed."""
        for node in (self.a, self.b):
            self.figures.detection.append((await node.event("suspected", "c"))["at"] - began)

    async def recovers(self, began: float) -> None:
        """Messages go both ways again, between ``c`` and each of the others."""
        for node in (self.a, self.b):
            await self.c.hears(node)
            await node.hears(self.c)
            self.figures.recovery.append(time.monotonic() - began)


@asynccontextmanager
async def stage(lan: Lan, home: Mesh, rate: float, options: Sequence[str], seed: int) -> AsyncIterator[Stage]:
    words = (*options, "--discovery", "scout")
    async with cable(lan[2], seed=seed) as wire, AsyncExitStack() as rest:
        nodes = [
            await rest.enter_async_context(home.node(name, host, *words, "--load", str(rate)))
            for name, host in zip("abc", lan, strict=True)
        ]
        for node in nodes:
            await node.meets(*(other.name for other in nodes if other is not node))
        for node in nodes:
            await node.program.send("begin\n")
        yield Stage(lan, home, *nodes, wire, (*words, "--load", str(rate)), rest)


async def account(it: Stage, nodes: Sequence[LanNode]) -> None:
    """Everybody falls silent; then each message is somewhere."""
    for node in nodes:
        await node.program.send("quiet\n")
    with trio.move_on_after(SETTLED):
        while True:
            told = {node.name: await node.count() for node in nodes}
            figures, complete = _sum(told)
            if complete:
                break
            await trio.sleep(0.2)
    it.figures.add(figures)


def _sum(told: dict[str, Any]) -> tuple[Figures, bool]:
    figures, complete = Figures(repaired=sum(each["repaired"] for each in told.values())), True
    for reader, publisher in permutations(told, 2):
        for kind in KINDS:
            offered = told[publisher]["load"]["published"][kind]
            tally = told[reader]["load"]["seen"].get(publisher, {}).get(kind, [0, 0, 0, 0])
            complete &= tally[DELIVERED] + tally[LOST] == offered
            figures.offered += offered
            figures.delivered += tally[DELIVERED]
            figures.lost += tally[LOST]
            figures.lost_reliable += tally[LOST] if kind == "kept" else 0
            figures.duplicated += tally[TWICE]
            figures.disordered += tally[DISORDERED]
    return figures, complete


# -- the faults -------------------------------------------------------------------------


async def killed(it: Stage) -> None:
    """SIGKILL; begun again on the same host once it was noticed."""
    began = time.monotonic()
    it.c.program.signal(signal.SIGKILL)
    await it.suspects(began)
    began = time.monotonic()
    it.c = await it.rest.enter_async_context(it.home.node("c", it.lan[2], *it.options))
    await it.recovers(began)


async def stopped(it: Stage) -> None:
    """SIGSTOP, and SIGCONT once it was noticed."""
    began = time.monotonic()
    it.c.program.signal(signal.SIGSTOP)
    await it.suspects(began)
    began = time.monotonic()
    it.c.program.signal(signal.SIGCONT)
    await it.recovers(began)


async def link_down(it: Stage) -> None:
    """Its interface is switched off, and on."""
    began = time.monotonic()
    it.lan[2].link_down()
    await it.suspects(began)
    began = time.monotonic()
    it.lan[2].link_up()
    await it.recovers(began)


async def one_way(it: Stage) -> None:
    """Unicast from it to ``a`` alone gets lost; ``b`` hears it, and vouches."""
    began = time.monotonic()
    it.lan[2].lose_towards(it.lan[0])
    it.figures.detection.append((await it.a.event("suspected", "c"))["at"] - began)
    began = time.monotonic()
    it.lan[2].reach(it.lan[0])
    await it.recovers(began)


async def loss_10(it: Stage) -> None:
    """A tenth of all frames is lost, 20 ms delay, 10 ms jitter, for some seconds."""
    await _bad_cable(it, 0.1)


async def loss_30(it: Stage) -> None:
    """Nearly a third of all frames is lost, 20 ms delay, 10 ms jitter, for some seconds."""
    await _bad_cable(it, 0.3)


async def _bad_cable(it: Stage, loss: float) -> None:
    await worsen(it.cable, loss=loss, delay=0.02, jitter=0.01)
    await trio.sleep(5.0)
    began = time.monotonic()
    await worsen(it.cable)
    await it.recovers(began)


async def address_change(it: Stage) -> None:
    """It gets other addresses, as from a new DHCP lease."""
    began = time.monotonic()
    it.lan[2].change_address()
    await it.recovers(began)


Fault = Callable[[Stage], Awaitable[None]]
FAULTS: Final[dict[str, Fault]] = {
    "SIGKILL, begun again": killed,
    "SIGSTOP, SIGCONT": stopped,
    "link down, up": link_down,
    "one way blocked": one_way,
    "10 % loss": loss_10,
    "30 % loss": loss_30,
    "address change": address_change,
}


async def harmed(
    lan: Lan, home: Mesh, fault: Fault, *, rate: float = 50.0, options: Sequence[str] = (), seed: int = 1
) -> Figures:
    """What comes of one fault. ``rate``: messages a second of each node and kind."""
    async with stage(lan, home, rate, options, seed) as it:
        lived = [it.a, it.b, it.c]
        await trio.sleep(0.5)
        await fault(it)
        await account(it, [node for node in lived if not node.program.ended])
        return it.figures
