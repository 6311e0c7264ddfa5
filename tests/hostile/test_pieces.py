"""A member who begins large values and ends none: his victim's memory follows what it keeps, and that is bounded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import trio

import mesh
from mesh.core.codec import encode_chunk, encode_direct
from mesh.core.envelope import CHUNK
from mesh.core.messages import Chunk, PartMessage
from tests.hostile.actor import CONFIG
from tests.hostile.stage import MEMORY, WITHIN, member, stage

LARGEST = 16 << 20
PIECE = bytes(1 << 20)


def beginnings() -> Iterator[Chunk]:
    """Twenty times a MiB of different values, each announced as one of the largest."""
    return (Chunk(f"t/{number}", 0, LARGEST, 0) for number in range(20))


def all_but_the_end() -> Iterator[Chunk]:
    """Two of the largest, of which the last piece never comes."""
    for topic in ("long/a", "long/b"):
        yield from (Chunk(topic, 0, LARGEST, offset) for offset in range(0, LARGEST - len(PIECE), len(PIECE)))


def giants() -> Iterator[Chunk]:
    """Announced as a TiB."""
    return (Chunk(f"g/{number}", 0, 1 << 40, 0) for number in range(20))


def parts() -> Iterator[PartMessage]:
    """Requests of which only the beginning comes."""
    return (PartMessage(number, 33, number, LARGEST, 0, PIECE) for number in range(1, 21))


async def test_a_member_who_never_ends_a_value(tmp_path: Path) -> None:
    async with stage(tmp_path) as victim:
        home = member(victim.home, tmp_path, "insider")
        seeds = [victim.intro]
        with trio.fail_after(2 * WITHIN):
            async with mesh.open_node(
                "insider",
                home=home,
                listen=["tcp://127.0.0.1:0"],
                connect=seeds,
                discovery=(),
                config=CONFIG,
            ) as node:
                await node.wait_for_peers(1)
                await node.publisher("t/0").wait_for_subscribers(1)
                board = node._board
                (target,) = [peer.id for peer in node.peers.values() if peer.name == "victim"]
                before, _ = await victim.both()
                for attack in (beginnings, all_but_the_end, giants):
                    for turn, chunk in enumerate(attack()):
                        tag, frame = board.seal(chunk.topic, encode_chunk(chunk, PIECE), CHUNK)
                        board.publishing.airlock.send(tag, frame)
                        if turn % 4 == 3:
                            await node.ping(
                                target, timeout=WITHIN
                            )  # what waits in ZeroMQ's queues is another matter
                    held, friend = await victim.both()
                    assert held["resident"] - before["resident"] < MEMORY, (attack.__name__, held, before)
                    assert friend["peers"], attack.__name__
                for part in parts():
                    while not board.outbox.send(bytes.fromhex(target), encode_direct(part)):  # type: ignore[arg-type]
                        await board.outbox.wait_room()
                    await node.ping(target, timeout=WITHIN)
                held, friend = await victim.both()
                # One value of the largest on each plane, and what the allocator has not given back.
                assert held["resident"] - before["resident"] < 2 * LARGEST + (16 << 20), (held, before)
                assert friend["trips"] > 0
                assert held["rejected"]["incomplete"] > 0
                assert held["rejected"]["too_large"] == 20
