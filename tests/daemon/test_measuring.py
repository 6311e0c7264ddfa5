"""What a daemon counts for ``mesh bench``: everything that came, no more flows than it can, and none for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

import mesh
from bridges.web import round_trips
from mesh.daemon.measuring import ASK, ECHO, FLOW, TRIPS, Measuring
from mesh.node.node import Node
from tests.node.meshes import PATIENCE, MemoryMeshes, Meshes


@pytest.fixture
def meshes() -> Meshes:
    return MemoryMeshes()


@asynccontextmanager
async def measured(meshes: Meshes) -> AsyncIterator[tuple[Node, mesh.Peer]]:
    async with meshes.open("asker") as asker, meshes.open("daemon") as server, trio.open_nursery() as nursery:
        await nursery.start(Measuring(server).run)
        await asker.wait_for_peers(1)
        (peer,) = asker.peers.values()
        yield asker, peer
        nursery.cancel_scope.cancel()


async def test_echo(meshes: Meshes) -> None:
    async with measured(meshes) as (asker, peer):
        assert await asker.request(ECHO, b"abc", to=peer, timeout=PATIENCE) == b"abc"


async def test_a_flow_is_counted_and_what_is_missing_does_not_hold_it_up(meshes: Meshes) -> None:
    async with measured(meshes) as (asker, peer):
        for sent, claimed in ((700, 700), (700, 800)):
            name = f"{claimed:x}"
            assert await asker.request(FLOW, {"open": name}, to=peer, timeout=PATIENCE) == "live"
            async with asker.publisher(f"{FLOW}/{name}") as publisher:
                await publisher.wait_for_subscribers(1)
                for _ in range(sent):
                    await publisher.publish(b"12345")
            told = await asker.request(FLOW, {"close": name, "sent": claimed}, to=peer, timeout=PATIENCE)
            assert (told["received"], told["bytes"], told["lost"]) == (sent, 5 * sent, 0)


async def test_flows_are_bounded_and_mistakes_told(meshes: Meshes) -> None:
    async with measured(meshes) as (asker, peer):
        for name in "abcd":
            await asker.request(FLOW, {"open": name}, to=peer, timeout=PATIENCE)
        for wrong in ({"open": "e"}, {"open": "a"}, {"open": "*"}, {"close": "z"}, {}, 3):
            with pytest.raises(mesh.RemoteError):
                await asker.request(FLOW, wrong, to=peer, timeout=PATIENCE)


async def test_a_daemon_measures_for_somebody_else(meshes: Meshes) -> None:
    async with (
        measured(meshes) as (asker, peer),
        meshes.open("third") as third,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(Measuring(third).run)
        with trio.fail_after(PATIENCE):
            while True:  # until the daemon too knows that the third serves
                try:
                    told = await asker.request(ASK, {"peer": third.id, "size": 64, "count": 5}, to=peer)
                    break
                except mesh.RemoteError as error:
                    assert error.type_name in ("NoResponders", "UnknownPeer")
                    await trio.sleep(0.01)
        assert (len(told["times"]), told["lost"]) == (5, 0)
        for wrong in (
            3,
            {"peer": third.id, "size": -1, "count": 1},
            {"peer": third.id, "size": 1, "count": 1001},
        ):
            with pytest.raises(mesh.RemoteError):
                await asker.request(ASK, wrong, to=peer, timeout=PATIENCE)
        nursery.cancel_scope.cancel()


async def test_round_trips_are_told_and_measured_for_who_asks(meshes: Meshes) -> None:
    assert TRIPS == round_trips.TOPIC
    async with measured(meshes) as (asker, peer):
        with trio.fail_after(PATIENCE):
            while not (told := await asker.request(TRIPS, to=peer, timeout=PATIENCE)):  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert told.keys() == {asker.id}
        assert 0 <= told[asker.id] < PATIENCE
