"""``mesh.testing``: what a user's test does to a mesh happens, and happens again."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

import mesh
from mesh.testing import START, VirtualNetwork, run

Main = Callable[[], Awaitable[Any]]


def names(node: mesh.Node) -> list[str]:
    return sorted(peer.name for peer in node.peers.values())


def test_a_minute_takes_no_time_and_a_partition_heals() -> None:
    async def main() -> None:
        network = VirtualNetwork(1)
        async with network.open_node("a") as a, network.open_node("b") as b, network.open_node("c") as c:
            for node in (a, b, c):
                await node.wait_for_peers(2)
            for other in ("b", "c"):
                network.cut("a", other)
            await trio.sleep(60)
            assert (names(a), names(b)) == ([], ["c"])
            for other in ("b", "c"):
                network.heal("a", other)
            await trio.sleep(10)
            assert (names(a), names(b)) == (["b", "c"], ["a", "c"])

    run(main)


def test_one_way_is_enough_to_lose_each_other_and_others_vouch() -> None:
    async def main() -> list[str]:
        network = VirtualNetwork(1)
        async with network.open_node("a") as a, network.open_node("b") as b, network.open_node("c") as c:
            for node in (a, b, c):
                await node.wait_for_peers(2)
            network.cut("a", "b", one_way=True)
            await trio.sleep(20)
            return [peer.state for peer in b.peers.values() if peer.name == "a"]

    assert run(main) == ["suspect"]


def test_a_crash_is_noticed_in_time_and_the_same_name_comes_back() -> None:
    async def main() -> tuple[list[str], float, float]:
        network = VirtualNetwork(2)
        async with network.open_node("a") as a, network.open_node("b") as first:
            await a.wait_for_peers(1)
            events = a.watch_peers()
            said = [type(await anext(events)).__name__]
            network.crash("b")
            crashed = trio.current_time()
            said.append(type(await anext(events)).__name__)
            suspected = trio.current_time() - crashed
            said.append(type(await anext(events)).__name__)
            left = trio.current_time() - crashed
            async with network.open_node("b") as again:
                said.append(type(await anext(events)).__name__)
                assert again.id != first.id
                assert names(a) == ["b"]
            return said, suspected, left

    said, suspected, left = run(main)
    assert said == ["PeerJoined", "PeerSuspected", "PeerLeft", "PeerJoined"]
    assert suspected < 3 and left < 12


def troubled(seed: int) -> Main:
    """Reliable and plain messages through everything that may happen to a frame."""

    async def main() -> Any:
        network = VirtualNetwork(seed, jitter=0.004)
        async with network.open_node("a") as a, network.open_node("b") as b:
            await a.wait_for_peers(1)
            async with b.subscribe("*") as messages, a.publisher("kept", reliable=True) as kept:
                network.disturb(loss=0.2, duplicate=0.2, flip=0.2)
                for number in range(60):
                    await kept.publish(number)
                    await a.publish("plain", number)
                    await trio.sleep(0.05)
                network.disturb()
                await trio.sleep(5)
                got = [messages.receive_nowait() for _ in range(messages.queued)]
                counted = b.statistics()
                return trio.current_time(), got, counted

    return main


def test_reliable_is_whole_and_plain_is_accounted_for() -> None:
    _, got, counted = run(troubled(4), seed=4)
    assert [each.value for each in got if each.topic == "kept"] == list(range(60))
    plain = [each.value for each in got if each.topic == "plain"]
    assert plain == sorted(set(plain)) and len(plain) < 60
    assert counted.repaired > 0 and counted.rejected > 0
    assert counted.delivered + counted.lost + counted.dropped == 120


def test_a_seed_is_the_same_run_again_and_another_is_another() -> None:
    def told(seed: int) -> Any:
        ended, got, counted = run(troubled(seed), seed=seed)
        return ended, [(m.topic, m.value, m.sequence, m.sender.id) for m in got], counted.rejected_by_reason

    assert told(5) == told(5) != told(6)


def test_chance_is_as_it_was_afterwards() -> None:
    async def main() -> float:
        return random.random()

    random.seed(99)
    expected = [random.random() for _ in range(3)]
    random.seed(99)
    first = random.random()
    assert run(main, seed=1) == run(main, seed=1)
    assert [first, random.random(), random.random()] == expected


def test_a_pause_holds_everything_up_and_a_wrong_clock_harms_nobody() -> None:
    async def main() -> None:
        network = VirtualNetwork(3)
        async with network.open_node("a") as a, network.open_node("b") as b:
            await a.wait_for_peers(1)
            async with b.subscribe("t") as messages:
                network.pause("b")
                await a.publish("t", 1)
                await trio.sleep(1)
                assert messages.queued == 0
                network.resume("b")
                await trio.sleep(0.1)
                assert messages.receive_nowait().value == 1
                network.set_clock("b", 3600)
                await trio.sleep(30)
                await a.publish("t", 2)
                await trio.sleep(0.1)
                assert messages.receive_nowait().value == 2
                network.break_connections("a", "b")
                network.delay("a", "b", 0.5)
                await trio.sleep(20)
                assert await a.ping("b") >= 1.0

    run(main)


def test_mistakes_are_said() -> None:
    async def main() -> None:
        network = VirtualNetwork()
        with pytest.raises(mesh.ConfigError, match="no node 'a' was opened"):
            network.cut("a", "b")
        with pytest.raises(mesh.ConfigError, match="no share between 0 and 1"):
            network.disturb(loss=2)

    run(main)
    assert START > 1_700_000_000
