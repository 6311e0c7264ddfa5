"""A program for tests between hosts: one mechanism at work, with this host's addresses.

    python -m tests.discovery.node MECHANISM LETTER           one node, until its input ends
    python -m tests.discovery.node MECHANISM LETTER ROUNDS    so many nodes one after another, each until
                                                              it found another one

Standard output: ``ready``, or ``inactive REASON``; ``found LETTER MILLISECONDS ENDPOINTS`` (since the
mechanism was started); ``announces ENDPOINTS`` when they change. Standard input: ``look``; ``count`` answers
``counted`` and an object.
"""

from __future__ import annotations

import json
import sys
import time

import trio

from mesh.core.types import Address, NodeId
from mesh.discovery import interfaces
from mesh.discovery.base import Announcement, Candidate, Discovery
from mesh.discovery.factory import create

KEY = b"the beacon key of the mesh that tests are in"


def announcement(node: NodeId, now: tuple[interfaces.Interface, ...]) -> Announcement:
    bound = Address("tcp://*:7400", "tcp://*:7401", "tcp://*:7402")
    return Announcement(node, tuple(each.intro for each in interfaces.advertised((bound,), now)))


def say(*words: object) -> None:
    print(*words, flush=True)


async def one(mechanism: Discovery, letter: str) -> None:
    node, found = NodeId(letter.encode() * 16), 0

    def report(candidate: Candidate) -> None:
        nonlocal found
        found += 1
        assert candidate.node is not None
        if found <= 1000:  # a flood is counted, not printed
            milliseconds = (time.perf_counter() - began) * 1000
            say("found", chr(candidate.node[0]), f"{milliseconds:.1f}", ",".join(candidate.intros))

    def changed(now: tuple[interfaces.Interface, ...]) -> None:
        update = announcement(node, now)
        say("announces", ",".join(update.intros))
        mechanism.update(update)

    async with trio.open_nursery() as nursery:
        now = await nursery.start(interfaces.watch, changed)
        began = time.perf_counter()
        status = await nursery.start(mechanism.run, announcement(node, now), report)
        say("ready" if status.active else f"inactive {status.reason}")
        async with trio.lowlevel.FdStream(0) as commands:
            async for chunk in commands:
                for command in chunk.decode().split():
                    if command == "look":
                        mechanism.look_again()
                    else:
                        cpu = time.process_time()
                        say("counted", json.dumps({"found": found, "cpu": cpu, **mechanism.rejected}))
        nursery.cancel_scope.cancel()


async def many(name: str, rounds: int) -> None:
    for number in range(rounds):
        (mechanism,) = create([name], beacon_key=KEY)
        seen: list[float] = []
        async with trio.open_nursery() as nursery:

            def report(
                candidate: Candidate, seen: list[float] = seen, scope: trio.CancelScope = nursery.cancel_scope
            ) -> None:
                if candidate.node == b"a" * 16:
                    seen.append(time.perf_counter())
                    scope.cancel()

            announced = announcement(NodeId(number.to_bytes(16, "big")), interfaces.usable())
            began = time.perf_counter()
            nursery.start_soon(mechanism.run, announced, report)
        say("found", "a", f"{(seen[0] - began) * 1000:.1f}")
    say("done")


def main() -> None:
    name, letter, *rounds = sys.argv[1:]
    if rounds:
        trio.run(many, name, int(rounds[0]))
    else:
        (mechanism,) = create([name], beacon_key=KEY)
        trio.run(one, mechanism, letter)


if __name__ == "__main__":
    main()
