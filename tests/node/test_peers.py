"""Who is there: ``peers``, ``watch_peers``, ``wait_for_peers``, ``ping``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import trio

import mesh
from mesh.core.handshake import Introducer
from mesh.core.messages import HelloMessage
from mesh.core.types import PROTOCOL_VERSIONS, NodeId
from mesh.node.node import Node
from tests.node.meshes import HASTY, PATIENCE, MemoryMeshes, Meshes, background, until, vanish

MeshOf = Callable[..., AbstractAsyncContextManager[list[Node]]]


async def next_event(events: mesh.PeerWatch) -> mesh.PeerEvent:
    with trio.fail_after(PATIENCE):
        return await anext(events)


async def test_the_mapping_of_peers(mesh_of: MeshOf) -> None:
    async with mesh_of(3) as (left, right, third):
        assert set(left.peers) == {right.id, third.id}
        peer = left.peers[right.id]
        assert (peer.id, peer.name, peer.state) == (right.id, "node-1", "alive")
        assert peer.endpoints == right.endpoints
        assert len(peer.id) == 32 and peer.member
        with pytest.raises(TypeError):
            left.peers["x"] = peer  # type: ignore[index]
        with pytest.raises(FrozenInstanceError):
            peer.name = "other"  # type: ignore[misc]
        assert left.id not in left.peers


async def test_who_i_am(meshes: Meshes) -> None:
    async with meshes.open("kitchen") as node:
        assert node.name == "kitchen"
        assert len(bytes.fromhex(node.id)) == 16
        assert node.endpoints and all(endpoint.startswith("tcp://") for endpoint in node.endpoints)


async def test_watching(meshes: Meshes) -> None:
    async with meshes.open("one") as one, meshes.open("two") as two:
        with trio.fail_after(PATIENCE):
            await one.wait_for_peers(1)
        events = one.watch_peers()
        event = await next_event(events)
        assert isinstance(event, mesh.PeerJoined) and event.peer.id == two.id  # those present come first
        async with meshes.open("three") as three:
            event = await next_event(events)
            assert isinstance(event, mesh.PeerJoined) and event.peer.name == "three"
            assert one.peers[three.id] == event.peer
        event = await next_event(events)
        assert isinstance(event, mesh.PeerLeft)
        assert (event.peer.name, event.peer.state, event.why) == ("three", "left", "said goodbye")
        assert set(one.peers) == {two.id}


async def test_several_watchers_see_the_same(meshes: Meshes) -> None:
    async with meshes.open() as one:
        first, second = one.watch_peers(), one.watch_peers()
        async with meshes.open() as two:
            for events in (first, second):
                assert (await next_event(events)).peer.id == two.id


async def test_one_that_vanishes_is_suspected_then_gone(meshes: Meshes) -> None:
    async with meshes.open("one", config=HASTY) as one, meshes.open("two") as two:
        events = one.watch_peers()
        assert isinstance(await next_event(events), mesh.PeerJoined)
        vanish(two)
        seen: list[Any] = []
        while not seen or not isinstance(seen[-1], mesh.PeerLeft):
            seen.append(await next_event(events))
        assert isinstance(seen[-2], mesh.PeerSuspected) and seen[-2].peer.state == "suspect"
        assert seen[-1].why
        assert not one.peers


async def test_one_that_was_away_recovers() -> None:
    meshes = MemoryMeshes()
    async with meshes.open("one", config=HASTY) as one, meshes.open("two") as two:
        events = one.watch_peers()
        assert isinstance(await next_event(events), mesh.PeerJoined)
        hosts = [node._transport.host for node in (one, two)]  # type: ignore[attr-defined]
        meshes.network.cut(*hosts)
        assert isinstance(await next_event(events), mesh.PeerSuspected)
        assert one.peers[two.id].state == "suspect"
        meshes.network.heal(*hosts)
        assert isinstance(await next_event(events), mesh.PeerRecovered)
        assert one.peers[two.id].state == "alive"


async def test_waiting_for_peers(meshes: Meshes) -> None:
    async with meshes.open() as one:
        with trio.fail_after(PATIENCE):
            await one.wait_for_peers(0)
        with trio.move_on_after(0.01) as scope:
            await one.wait_for_peers()
        assert scope.cancelled_caught
        arrived = trio.Event()

        async def wait() -> None:
            await one.wait_for_peers(2)
            arrived.set()

        async with background(wait), meshes.open():
            assert not arrived.is_set()
            async with meshes.open():
                with trio.fail_after(PATIENCE):
                    await arrived.wait()


async def test_ping(mesh_of: MeshOf) -> None:
    async with mesh_of(2) as (left, right):
        for peer in (right.id, "node-1", left.peers[right.id]):
            with trio.fail_after(PATIENCE):
                seconds = await left.ping(peer)
            assert 0 < seconds < PATIENCE
        rtt = left.peers[right.id].rtt
        assert rtt is not None and 0 < rtt < PATIENCE
        assert left.statistics().peers[right.id].rtt == rtt


async def test_ping_that_cannot_be(meshes: Meshes) -> None:
    async with meshes.open("one", config=HASTY) as one:
        with pytest.raises(mesh.UnknownPeer):
            await one.ping("nobody")
        async with meshes.open("two") as two:
            await until(one, lambda: two.id in one.peers)
            peer = one.peers[two.id]
            vanish(two)
            with pytest.raises(mesh.RequestTimeout):
                await one.ping(two.id, timeout=0.01)
            with trio.fail_after(PATIENCE), pytest.raises(mesh.PeerGone):
                await one.ping(two.id, timeout=3600)
            with pytest.raises(mesh.PeerGone):
                await one.ping(peer)


async def test_a_node_that_restarts_is_another_peer(meshes: Meshes) -> None:
    async with meshes.open("one") as one:
        events = one.watch_peers()
        ids = []
        for _ in range(3):
            async with meshes.open("again") as again:
                event = await next_event(events)
                assert isinstance(event, mesh.PeerJoined)
                ids.append(again.id)
                assert event.peer.id == again.id
            assert isinstance(await next_event(events), mesh.PeerLeft)
        assert len(set(ids)) == 3


async def test_a_node_of_another_version(meshes: Meshes, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was found and cannot be spoken to: who asks for it by its id hears why."""
    hello = Introducer.hello

    def newer(self: Introducer) -> HelloMessage:
        return hello(self)._replace(versions=[7, 9])

    async with meshes.open("old") as old:
        monkeypatch.setattr(Introducer, "hello", newer)
        async with meshes.open("new") as new:
            new._engine.hint(NodeId(bytes.fromhex(old.id)), old.endpoints, trio.current_time())
            new._pump.apply()
            await until(new, lambda: new._engine.introductions.mismatched)
            assert old.statistics().rejected_by_reason["version_mismatch"] > 0
            with pytest.raises(mesh.ProtocolMismatch) as caught:
                await new.ping(old.id)
            assert caught.value.theirs == PROTOCOL_VERSIONS
            assert caught.value.peer == old.id
            assert any("version" in reason for reason in new.refusals.values())
            with pytest.raises(mesh.UnknownPeer):
                await new.ping("somebody else")
