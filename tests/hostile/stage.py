"""A victim, a friend of it, and what an attack costs them: the figures that a test holds and the report shows."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from mesh.core.identity import SigningKey
from mesh.home import Home
from tests.hostile.actor import CANARY
from tests.lab import Running, running

WITHIN = 60.0
MEMORY = 32 << 20
"""Bytes by which an attack may make the victim grow."""


@dataclass(frozen=True)
class Figures:
    """What an attack achieved. ``leaked`` is bytes of the canary in what the outsider got; ``accepted`` messages and
    peers that the victim took from it; ``grown`` bytes of memory; ``p99`` seconds of the friend's round trips."""

    sent: int
    got: int
    leaked: int
    accepted: int
    grown: int
    p99: float
    trips: int
    rejected: int


class Stage:
    """Both processes, and the CA's home for attacks that need papers."""

    def __init__(self, home: Home, victim: Running, friend: Running, ready: dict[str, Any]) -> None:
        self.home = home
        self._victim, self._friend = victim, friend
        self.intro, self.direct, self.broadcast = ready["ready"][0]
        self.link_key = bytes.fromhex(ready["link"])

    async def _ask(self, actor: Running) -> dict[str, Any]:
        seen = len(actor.stdout)
        await actor.send("?\n")
        with trio.fail_after(WITHIN):
            while len(actor.stdout) == seen:  # noqa: ASYNC110 - another process
                await trio.sleep(0.01)
        answer: dict[str, Any] = json.loads(actor.stdout[seen])
        return answer

    async def both(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return await self._ask(self._victim), await self._ask(self._friend)

    async def measure(self, attack: Callable[[Stage], Awaitable[tuple[int, bytes]]]) -> Figures:
        """Run an attack, which tells how much it sent and what it got, while the friend goes on."""
        before, _ = await self.both()
        with trio.fail_after(WITHIN):
            sent, got = await attack(self)
        after, friend = await self.both()
        rejected = sum(after["rejected"].values()) - sum(before["rejected"].values())
        strangers = [name for name in after["peers"] if name != "friend"]
        return Figures(
            sent=sent,
            got=len(got),
            leaked=got.count(CANARY.encode()) * len(CANARY),
            # The friend publishes nothing: whatever came from the network came from the outsider.
            accepted=after["received"] - before["received"] + len(strangers),
            grown=after["resident"] - before["resident"],
            p99=friend["p99"],
            trips=friend["trips"],
            rejected=rejected,
        )


def member(home: Home, folder: Path, name: str) -> Path:
    """Another member's home."""
    from mesh.core.identity import read_certificate
    from mesh.core.join import Grant, Joined

    mine = home.credentials()
    other = Home(folder / name)
    key: SigningKey = other.new_key()
    certificate = home.issue(key.public, name)
    grant = Grant(
        mine.mesh_name,
        mine.ca_public_key,
        certificate,
        mine.secret,
        mine.secret_epoch,
        mine.revocations_bytes,
    )
    other.store_grant(key, Joined(grant, read_certificate(certificate, mine.ca_public_key), mine.revocations))
    return other.path


@asynccontextmanager
async def stage(folder: Path) -> AsyncIterator[Stage]:
    """The victim and its friend, who know each other."""
    home = Home(folder / "victim")
    home.init("orchard", "victim")
    friendly = member(home, folder, "friend")
    actor = [sys.executable, "-m", "tests.hostile.actor"]
    async with running([*actor, "victim", str(home.path)]) as victim:
        await victim.expect("ready", within=WITHIN)
        ready = json.loads(victim.stdout[0])
        async with running([*actor, "friend", str(friendly), *ready["endpoints"]]) as friend:
            await friend.expect("ready", within=WITHIN)
            made = Stage(home, victim, friend, ready)
            with trio.fail_after(WITHIN):
                while (  # noqa: ASYNC110 - another process
                    await made.both()
                )[0]["peers"] != ["friend"] or not (await made.both())[1]["trips"]:
                    await trio.sleep(0.05)
            yield made
