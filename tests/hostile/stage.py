"""A victim, a friend of it, and what an attack costs them: the figures that a test holds and the report shows."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import trio

from mesh.core.identity import SigningKey, read_certificate
from mesh.core.join import Grant, Joined
from mesh.home import Home
from tests.hostile.actor import CANARY, Part
from tests.hostile.tap import Tap
from tests.lab import Host, Lan, Running, running

__all__ = ["MEMORY", "WITHIN", "Attack", "Did", "Figures", "Stage", "lan_stage", "member", "stage"]

WITHIN = 60.0
MEMORY = 32 << 20
"""Bytes by which an attack may make the victim grow."""


@dataclass(frozen=True)
class Did:
    """What an attacker did: bytes ``sent``, what he ``got`` back, and what he saw to be ``accepted`` (0 is due)."""

    sent: int = 0
    got: bytes = b""
    accepted: int = 0


@dataclass(frozen=True)
class Figures:
    """What an attack achieved. ``leaked`` is bytes of the canary in what the outsider got; ``accepted`` messages, requests
    and peers that the victim took from it; ``grown`` bytes of memory; ``p99`` seconds of the friend's round trips; ``reasons``
    what the victim counted."""

    sent: int
    got: int
    leaked: int
    accepted: int
    grown: int
    p99: float
    trips: int
    rejected: int
    reasons: dict[str, int]


class Stage:
    """Both processes, and the CA's home for attacks that need papers. ``scale`` 1 is an attack at full length."""

    def __init__(self, home: Home, folder: Path, scale: float, seed: int) -> None:
        self.home = home
        self.folder = folder
        self.scale = scale
        self.random = Random(seed)
        self.taps: dict[str, list[Tap]] = {"victim": [], "friend": []}  # intro, direct, broadcast of each
        self.lan: Lan | None = None
        self._victim: Running | None = None
        self._friend: Running | None = None
        self.ready: dict[str, dict[str, Any]] = {}

    def begun(self, role: str, actor: Running, ready: dict[str, Any]) -> None:
        self.ready[role] = ready
        if role == "victim":
            self._victim = actor
            self.intro, self.direct, self.broadcast = ready["ready"][0]
            self.link_key = bytes.fromhex(ready["link"])
        else:
            self._friend = actor
        for tap, endpoint in zip(self.taps[role], ready["ready"][0], strict=False):
            tap.target = endpoint

    @property
    def seconds(self) -> float:
        """How long a flood lasts."""
        return 3.0 * self.scale

    def count(self, full: int) -> int:
        """So many of ``full``, at this scale."""
        return max(1, int(full * self.scale))

    async def order(self, actor: Running | None, order: str) -> dict[str, Any]:
        assert actor is not None
        seen = len(actor.stdout)
        await actor.send(order + "\n")
        with trio.fail_after(WITHIN):
            while len(actor.stdout) == seen:
                assert not actor.ended, actor.report()
                await actor.changed()
        answer: dict[str, Any] = json.loads(actor.stdout[seen])
        return answer

    async def victim(self, order: str = "?") -> dict[str, Any]:
        return await self.order(self._victim, order)

    async def both(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return await self.victim(), await self.order(self._friend, "?")

    async def until(self, judge: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The victim's answer as soon as ``judge`` likes it."""
        with trio.fail_after(WITHIN):
            while not judge(answer := await self.victim()):  # noqa: ASYNC110 - another process
                await trio.sleep(0.05)
        return answer

    async def measure(self, attack: Attack) -> Figures:
        """Run an attack while the friend goes on."""
        before, _ = await self.both()
        with trio.fail_after(3 * WITHIN):
            did = await attack(self)
        with trio.fail_after(WITHIN):
            after, friend = await self.both()
            trips, p99 = friend["trips"], friend["p99"]
            while not trips:  # it goes on, if not at once
                await trio.sleep(0.05)
                after, friend = await self.both()
                trips, p99 = friend["trips"], friend["p99"]
        reasons = {
            reason: count - before["rejected"].get(reason, 0)
            for reason, count in after["rejected"].items()
            if count > before["rejected"].get(reason, 0)
        }
        strangers = [name for name in after["peers"] if name != "friend"]
        return Figures(
            sent=did.sent,
            got=len(did.got),
            leaked=did.got.count(CANARY.encode()) * len(CANARY),
            accepted=did.accepted + after["wrong"] - before["wrong"] + len(strangers),
            grown=after["resident"] - before["resident"],
            p99=p99,
            trips=trips,
            rejected=sum(reasons.values()),
            reasons=reasons,
        )


Attack = Callable[[Stage], Awaitable[Did]]


def member(home: Home, folder: Path, name: str) -> Path:
    """Another member's home."""
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
async def stage(
    folder: Path, scale: float = 1.0, seed: int | None = None, *, tapped: bool = False
) -> AsyncIterator[Stage]:
    """The victim and its friend on one machine, who know each other; everything between them ``tapped`` or not."""
    made = _made(folder, scale, seed)
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        if tapped:
            for role in made.taps:
                for plane in ("intro", "direct", "broadcast"):
                    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
                    made.taps[role].append(Tap(listener, cut=plane == "broadcast"))
                    nursery.start_soon(made.taps[role][-1].run)
        await _begin(made, stack, {"victim": None, "friend": None}, "tcp://127.0.0.1:0", [])
        yield made


@asynccontextmanager
async def lan_stage(
    lan: Lan, folder: Path, scale: float = 1.0, seed: int | None = None
) -> AsyncIterator[Stage]:
    """The victim and its friend on two hosts of a LAN, who found each other by mDNS and scout; ``lan[2]`` is the attacker's."""
    made = _made(folder, scale, seed)
    made.lan = lan
    async with AsyncExitStack() as stack:
        hosts = {"victim": lan[0], "friend": lan[1]}
        await _begin(made, stack, hosts, "tcp://*:7400", ["mdns", "scout"])
        yield made


def _made(folder: Path, scale: float, seed: int | None) -> Stage:
    home = Home(folder / "victim")
    home.init("orchard", "victim")
    return Stage(home, folder, scale, int.from_bytes(os.urandom(4), "big") if seed is None else seed)


async def _begin(
    made: Stage,
    stack: AsyncExitStack,
    hosts: dict[str, Host] | dict[str, None],
    listen: str,
    discovery: list[str],
) -> None:
    homes = {"victim": made.home.path, "friend": member(made.home, made.folder, "friend")}
    seeds: list[str] = []
    for role, host in hosts.items():
        announce = [tap.endpoint for tap in made.taps[role]]
        part = Part(role, str(homes[role]), seeds, listen, discovery, announce)
        argv = [sys.executable, "-m", "tests.hostile.actor", json.dumps(asdict(part))]
        actor = await stack.enter_async_context(running(argv) if host is None else host.running(argv))
        await actor.expect("ready", within=WITHIN)
        made.begun(role, actor, json.loads(actor.stdout[0]))
        if not discovery:
            seeds = made.ready["victim"]["endpoints"]
    with trio.fail_after(WITHIN):
        while True:
            victim, friend = await made.both()
            if victim["peers"] == ["friend"] and victim["heard"] and friend["trips"]:
                return
            await trio.sleep(0.05)
