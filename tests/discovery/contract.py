"""What every discovery mechanism must do, the fake and the real ones.

A subclass says with the fixture ``network`` how to make mechanisms that can see each other.
"""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from mesh.core.types import NodeId
from mesh.discovery.base import Announcement, Candidate, Discovery

Network = Callable[[], Discovery]

WITHIN = 10.0
"""Seconds for anything on the network: all of it takes far less, but the machine may be busy."""


def announcement(letter: str, *ports: int) -> Announcement:
    """Of node ``letter``, at addresses that lead nowhere (RFC 5737): nothing here is dialled."""
    return Announcement(
        NodeId(letter.encode() * 16), tuple(f"tcp://198.51.100.7:{port}" for port in ports or (7400,))
    )


class Sighted:
    """What a mechanism reported, and waiting for it."""

    def __init__(self) -> None:
        self.candidates: list[Candidate] = []
        self._changed = trio.Event()

    def __call__(self, candidate: Candidate) -> None:
        self.candidates.append(candidate)
        self._changed.set()
        self._changed = trio.Event()

    async def of(self, wanted: Announcement, *, after: int = 0) -> Candidate:
        """The first candidate, past the ``after`` first ones, that has what was announced."""
        with trio.fail_after(WITHIN):
            while True:
                for candidate in self.candidates[after:]:
                    if candidate.node == wanted.node and set(wanted.intros) <= set(candidate.intros):
                        return candidate
                await self._changed.wait()


@asynccontextmanager
async def running(mechanism: Discovery, announced: Announcement) -> AsyncIterator[Sighted]:
    """The mechanism at work for as long as the block lasts."""
    sighted = Sighted()
    async with trio.open_nursery() as nursery:
        with trio.fail_after(WITHIN):
            status = await nursery.start(mechanism.run, announced, sighted)
        assert status.name == mechanism.name
        assert status.active, status.reason
        assert mechanism.status == status
        yield sighted
        nursery.cancel_scope.cancel()


def held() -> tuple[int, int]:
    """Open files and sockets, and threads but those that Trio keeps for reuse."""
    threads = [each for each in threading.enumerate() if not each.name.startswith("Trio")]
    return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0, len(threads)  # noqa: PTH208


class DiscoveryContract:
    """Inherit, and give ``network``."""

    async def test_each_finds_the_other(self, network: Network) -> None:
        a, b = announcement("a"), announcement("b")
        first, second = network(), network()
        async with running(first, a) as of_first, running(second, b) as of_second:
            assert (await of_first.of(b)).source == first.name
            assert (await of_second.of(a)).source == second.name

    async def test_all_find_all(self, network: Network) -> None:
        a, b, c = announcement("a"), announcement("b"), announcement("c")
        async with running(network(), a) as x, running(network(), b) as y, running(network(), c) as z:
            for sighted, others in ((x, (b, c)), (y, (a, c)), (z, (a, b))):
                for other in others:
                    await sighted.of(other)

    async def test_what_a_node_announces_itself_is_not_reported_to_it(self, network: Network) -> None:
        a, b = announcement("a"), announcement("b")
        first = network()
        async with running(first, a) as of_first, running(network(), b) as of_second:
            first.look_again()
            await of_first.of(b)
            await of_second.of(a)
        assert {each.node for each in of_first.candidates} == {b.node}

    async def test_new_addresses_reach_the_others(self, network: Network) -> None:
        before, after, b = announcement("a", 7400), announcement("a", 7401, 7402), announcement("b")
        first = network()
        async with running(first, before), running(network(), b) as of_second:
            await of_second.of(before)
            first.update(after)
            assert (await of_second.of(after)).intros == after.intros

    async def test_who_comes_later_learns_the_new_addresses(self, network: Network) -> None:
        before, after, b = announcement("a", 7400), announcement("a", 7401), announcement("b")
        first = network()
        async with running(first, before):
            first.update(after)
            async with running(network(), b) as of_second:
                await of_second.of(after)

    async def test_looking_again_reports_anew(self, network: Network) -> None:
        a, b = announcement("a"), announcement("b")
        second = network()
        async with running(network(), a), running(second, b) as of_second:
            await of_second.of(a)
            before = len(of_second.candidates)
            second.look_again()
            await of_second.of(a, after=before)

    async def test_a_node_without_addresses_finds_and_is_no_candidate(self, network: Network) -> None:
        a, nowhere = announcement("a"), Announcement(NodeId(b"n" * 16), ())
        async with running(network(), a) as of_first, running(network(), nowhere) as of_second:
            await of_second.of(a)
            b = announcement("b")
            async with running(network(), b):
                await of_first.of(b)
        assert {each.node for each in of_first.candidates} == {b.node}

    async def test_cancelling_leaves_nothing_behind(self, network: Network) -> None:
        a, b = announcement("a"), announcement("b")
        async with running(network(), a), running(network(), b) as sighted:
            await sighted.of(a)  # by now everything is loaded that is loaded once
        before = held()
        async with running(network(), a), running(network(), b) as sighted:
            await sighted.of(a)
            began = trio.current_time()
        assert trio.current_time() - began < WITHIN
        assert held() == before

    async def test_cancelled_while_it_starts(self, network: Network) -> None:
        before = held()
        with trio.CancelScope() as scope:
            scope.cancel()
            await network().run(announcement("a"), Sighted())
        assert held() == before

    async def test_it_can_be_run_again(self, network: Network) -> None:
        a, b = announcement("a"), announcement("b")
        mechanism = network()
        async with running(mechanism, b):
            pass
        async with running(network(), a), running(mechanism, b) as sighted:
            await sighted.of(a)


class KeyedContract(DiscoveryContract):
    """For mechanisms on a network where others are, too. Gives ``strangers`` beside ``network``."""

    async def test_another_mesh_is_not_seen_and_is_counted(
        self, network: Network, strangers: Network
    ) -> None:
        a, b, s = announcement("a"), announcement("b"), announcement("s")
        first = network()
        async with running(first, a) as of_first, running(strangers(), s) as of_stranger:
            async with running(network(), b):
                await of_first.of(b)
            first.look_again()
            with trio.fail_after(WITHIN):
                while not first.rejected["mac"]:  # noqa: ASYNC110 - a counter has no event
                    await trio.sleep(0.005)
        assert s.node not in {each.node for each in of_first.candidates}
        assert not of_stranger.candidates
