"""What ``mesh doctor`` learns by joining for a moment: who is found, by what, and who is not let in and why.

A node is opened as any program would; beside it a second scout and a second mDNS browser look for it from
the outside, as another machine would.  Whoever was found and did not become a peer has a reason, which
the node knows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import trio

import mesh
from mesh.cli.checks import Check, Verdict
from mesh.cli.nodes import joined
from mesh.core.keys import beacon_key
from mesh.core.types import MeshId, NodeId
from mesh.discovery.base import Announcement, Candidate, Discovery
from mesh.discovery.factory import create

__all__ = ["others", "reasons"]

LOOK: Final = 2.0  # seconds: mDNS over a busy Wi-Fi, and an introduction after that


async def others(
    folder: Path | None, mesh_id: MeshId, connect: list[str] | None, mechanisms: tuple[str, ...]
) -> list[Check]:
    """Look around for ``LOOK`` seconds."""
    found: dict[str, dict[NodeId, Candidate]] = {name: {} for name in mechanisms}
    probes = create(mechanisms, beacon_key=beacon_key(mesh_id))
    async with joined(folder, name="doctor", connect=connect) as node, trio.open_nursery() as nursery:
        for probe in probes:
            nursery.start_soon(_look, probe, found[probe.name])
        with trio.move_on_after(LOOK):
            await trio.sleep_forever()
        nursery.cancel_scope.cancel()
        checks = [_mechanism(probe, found[probe.name], node.id) for probe in probes]
        checks += _met(node, found)
        checks += reasons(node.refusals)
    foreign = sum(getattr(probe, "rejected", {}).get("mac", 0) for probe in probes)
    if foreign:
        checks.append(
            Check(
                "mesh",
                "warn",
                f"{foreign} announcements of another mesh were seen on this network",
                "if those machines should be peers, they and this one are members of different meshes "
                "(mesh id on each): mesh invite on one side, mesh join on the other",
            )
        )
    return checks


async def _look(probe: Discovery, found: dict[NodeId, Candidate]) -> None:
    def keep(candidate: Candidate) -> None:
        if candidate.node is not None:
            found[candidate.node] = candidate

    await probe.run(Announcement(NodeId(os.urandom(16)), ()), keep)


def _mechanism(probe: Discovery, found: Mapping[NodeId, Candidate], own: str) -> Check:
    status = getattr(probe, "status", None)
    seen = [node for node in found if node.hex() != own]
    if status is not None and not status.active:
        return Check(
            probe.name,
            "warn",
            f"inactive: {status.reason}",
            "other mechanisms and seeds still work (connect in mesh.toml)",
        )
    if len(seen) < len(found):
        return Check(probe.name, "ok", f"works on this machine, and finds {_nodes(len(seen))} beside it")
    return Check(
        probe.name,
        "warn",
        f"this machine does not find itself by {probe.name}; it finds {_nodes(len(seen))}",
        "multicast does not come back: look at the firewall (UDP 5353 and 7399), or name a peer with connect",
    )


def _nodes(n: int) -> str:
    return "nobody" if n == 0 else f"{n} node{'' if n == 1 else 's'}"


def _met(node: mesh.Node, found: Mapping[str, Mapping[NodeId, Candidate]]) -> list[Check]:
    peers = list(node.peers.values())
    names = ", ".join(sorted(peer.name for peer in peers)[:8])
    checks = []
    if peers:
        checks.append(
            Check("peers", "ok", f"{_nodes(len(peers))} met: {names}{' ...' if len(peers) > 8 else ''}")
        )
    else:
        checks.append(
            Check(
                "peers",
                "warn",
                "no other node was met",
                "start mesh daemon on the other machine; if it runs there, run mesh doctor there too",
            )
        )
    met = {peer.id for peer in peers} | {node.id}
    unmet: dict[str, Candidate] = {}
    for candidates in found.values():
        for each, candidate in candidates.items():
            if each.hex() not in met and not set(candidate.intros) & set(node.refusals):
                unmet[each.hex()] = candidate
    checks += [
        Check(
            "port",
            "fail",
            f"node {name[:12]} is found, but does not answer at {', '.join(candidate.intros)}",
            "a firewall there closes the port: let in the port and the two that follow it",
        )
        for name, candidate in unmet.items()
    ]
    return checks


_KINDS: Final[tuple[tuple[str, str, str], ...]] = (
    (
        "version",
        "protocol",
        "upgrade zeromesh on the older of the two machines",
    ),
    (
        "revoked",
        "credential",
        "this membership was revoked: ask for a new invitation if that was a mistake",
    ),
    (
        "another mesh",
        "mesh",
        "the two machines are members of different meshes: mesh invite on one, mesh join on the other",
    ),
    (
        "clock",
        "clock",
        "compare `date -u` on both machines, and set the clock that is wrong (timedatectl set-ntp true); "
        "if both are right, mesh join again",
    ),
    (
        "expired",
        "clock",
        "compare `date -u` on both machines, and set the clock that is wrong; if both are right, a certificate "
        "has expired: mesh join again",
    ),
    (
        "handshake",
        "mesh",
        "what listens there is of another mesh, or no zeromesh node at all: compare mesh id on both machines",
    ),
)
"""A word of the refusal → the check it belongs to and what to do; the first that fits."""


def reasons(refusals: Mapping[str, str]) -> list[Check]:
    """Why introductions failed, endpoint by endpoint, in plain words."""
    checks = []
    for endpoint, reason in sorted(refusals.items()):
        text = reason.lower().replace("_", " ")
        name, advice = (
            "port",
            "start mesh daemon there, or let the port and the two that follow it through its firewall",
        )
        verdict: Verdict = "warn"
        for word, check, what in _KINDS:
            if (
                word in text
                or (word == "another mesh" and "wrong mesh" in text)
                or (word == "clock" and "not yet valid" in text)
            ):
                name, advice, verdict = check, what, "fail"
                break
        checks.append(Check(name, verdict, f"{endpoint}: {reason}", advice))
    return checks
