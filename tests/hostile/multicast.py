"""Somebody on the same LAN who lies to discovery: a host of its own, and datagrams."""

from __future__ import annotations

import sys

import trio

from tests.hostile.stage import WITHIN, Did, Stage

__all__ = ["a_flood_of_mdns_records", "a_flood_of_scouts", "forged_goodbyes", "replayed_announcements"]


async def _run(stage: Stage, *words: str) -> Did:
    assert stage.lan is not None
    async with stage.lan[2].running([sys.executable, "-m", *words]) as attacker:
        said = await attacker.expect(r"^sent ?(\d*)", within=WITHIN)
    await trio.sleep(0.2)
    return Did(int(said[1] or 0))


async def _multicaster(stage: Stage, what: str, count: int) -> Did:
    nodes = [stage.ready[role]["id"] for role in ("victim", "friend")]
    seed = str(stage.random.getrandbits(32))
    return await _run(stage, "tests.hostile.multicaster", what, str(count), seed, *nodes)


async def a_flood_of_mdns_records(stage: Stage) -> Did:
    """27,000 services that no member announced."""
    return await _run(stage, "tests.discovery.flood", str(stage.count(27_000)))


async def a_flood_of_scouts(stage: Stage) -> Did:
    """Garbage, and beacons under a guessed key."""
    return await _multicaster(stage, "scout", stage.count(20_000))


async def replayed_announcements(stage: Stage) -> Did:
    """What the nodes announced, again and again."""
    return await _multicaster(stage, "replay", stage.count(10_000))


async def forged_goodbyes(stage: Stage) -> Did:
    """In the name of both nodes, on mDNS: nobody may part for it."""
    return await _multicaster(stage, "goodbyes", stage.count(300))
