from __future__ import annotations

from itertools import pairwise

import pytest
import trio

from mesh.core.types import NodeId
from mesh.discovery.base import Announcement, Candidate
from mesh.discovery.seeds import SEEDS, Seeds, parse_seed
from mesh.errors import ConfigError
from tests.discovery.contract import Sighted

NODE = Announcement(NodeId(b"n" * 16), ("tcp://10.0.0.9:7400",))


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("tcp://cellar.local:7401", "tcp://cellar.local:7401"),
        ("tcp://cellar.local", "tcp://cellar.local:7400"),
        ("cellar", "tcp://cellar:7400"),
        ("cellar.local:1", "tcp://cellar.local:1"),
        ("10.0.0.1", "tcp://10.0.0.1:7400"),
        ("tcp://[fd00::1]", "tcp://[fd00::1]:7400"),
        ("[fd00::1]:7401", "tcp://[fd00::1]:7401"),
        ("my_box-2.example.", "tcp://my_box-2.example.:7400"),
        ("ipc:///run/mesh/intro", "ipc:///run/mesh/intro"),
    ],
)
def test_what_a_seed_may_look_like(text: str, endpoint: str) -> None:
    assert parse_seed(text) == endpoint


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected"),
        ("tcp://", "expected"),
        ("a b", "expected"),
        ("tcp://host\n:1", "expected"),
        ("udp://host:1", "unknown transport 'udp'"),
        ("http://host:1", "unknown transport 'http'"),
        ("ipc://", "a path is missing"),
        ("tcp://host:0", "the port"),
        ("tcp://host:65536", "the port"),
        ("tcp://host:http", "the port"),
        ("tcp://host:", "the port"),
        ("fd00::1", "brackets"),
        ("tcp://fd00::1:7400", "brackets"),
        ("tcp://*:7400", "wildcard"),
        ("tcp://0.0.0.0:7400", "wildcard"),
        ("tcp://[::]:7400", "wildcard"),
        ("tcp://-host:1", "host name"),
        ("tcp://ho..st:1", "host name"),
        ("tcp://host/path:1", "host name"),
        ("tcp://[cellar]:1", "host name"),
        ("tcp://10.0.0.256:1", "host name"),
        ("tcp://" + "a" * 64 + ":1", "host name"),
    ],
)
def test_a_bad_seed_is_named(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        Seeds(["tcp://good:1", text])
    assert caught.value.key == "connect"
    assert repr(text) in str(caught.value)


async def test_each_seed_at_once_and_again_later(autojump_clock: trio.testing.MockClock) -> None:
    seeds, sighted, times = (
        Seeds(["one", "two:7401", "one:7400", "three"]),
        Sighted(),
        [],
    )

    def found(candidate: Candidate) -> None:
        sighted(candidate)
        times.append(trio.current_time())

    with trio.move_on_after(300):
        await seeds.run(NODE, found)
    expected = ["tcp://one:7400", "tcp://two:7401", "tcp://three:7400"]
    assert [each.intros for each in sighted.candidates[:3]] == [(endpoint,) for endpoint in expected]
    assert {(each.node, each.source) for each in sighted.candidates} == {(None, "seeds")}
    assert times[2] - times[0] == 0  # at once
    rounds = times[::3]
    pauses = [later - earlier for earlier, later in pairwise(rounds)]
    assert pauses[0] <= 0.5
    assert all(0.25 <= pause <= 30 for pause in pauses)
    assert pauses[-1] >= 15
    assert len(rounds) < 30


async def test_looking_again_begins_anew(autojump_clock: trio.testing.MockClock) -> None:
    seeds, sighted = Seeds(["one"]), Sighted()
    async with trio.open_nursery() as nursery:
        status = await nursery.start(seeds.run, NODE, sighted)
        assert status.active
        await trio.sleep(100)
        before, clock = len(sighted.candidates), trio.current_time()
        seeds.look_again()
        await trio.sleep(1.0)
        assert len(sighted.candidates) >= before + 2
        assert trio.current_time() - clock == pytest.approx(1.0)
        nursery.cancel_scope.cancel()


async def test_a_node_does_not_dial_itself(autojump_clock: trio.testing.MockClock) -> None:
    seeds, sighted = Seeds(["10.0.0.8", "10.0.0.9"]), Sighted()
    async with trio.open_nursery() as nursery:
        await nursery.start(seeds.run, NODE, sighted)
        seeds.update(Announcement(NODE.node, ("tcp://10.0.0.8:7400",)))
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert sighted.candidates[0].intros == ("tcp://10.0.0.8:7400",)
    assert {each.intros for each in sighted.candidates[1:]} == {("tcp://10.0.0.9:7400",)}


async def test_without_seeds_it_says_so_and_waits(autojump_clock: trio.testing.MockClock) -> None:
    seeds, sighted = Seeds([]), Sighted()
    async with trio.open_nursery() as nursery:
        status = await nursery.start(seeds.run, NODE, sighted)
        assert not status.active
        assert "no seeds" in status.reason
        await trio.sleep(1000)
        nursery.cancel_scope.cancel()
    assert not sighted.candidates


def test_seeds_are_bounded() -> None:
    many = [f"10.0.{number >> 8}.{number & 255}" for number in range(1000)]
    assert len(Seeds(["one", *many]).endpoints) == SEEDS
