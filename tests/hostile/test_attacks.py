"""Every attack, in short: nothing learned, nothing accepted, no memory, and the peers go on. ``make security-report`` plays
them at full length."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from tests.hostile.stage import MEMORY, Attack, Figures, Stage, lan_stage, stage
from tests.hostile.suite import LAN, OUTSIDE, PATH
from tests.lab import Lan

SHORT = 0.1


async def endure(victim: Stage, attacks: Iterable[tuple[str, Attack]]) -> dict[str, Figures]:
    done = {}
    for name, attack in attacks:
        figures = done[name] = await victim.measure(attack)
        assert figures.leaked == 0, (name, figures)
        assert figures.accepted == 0, (name, figures)
        assert figures.grown < MEMORY, (name, figures)
        assert figures.trips > 0, (name, figures)
    quiet, friend = await victim.both()
    assert quiet["peers"] == ["friend"]
    assert friend["heard"] > 0
    return done


def counted(figures: Figures, *reasons: str) -> None:
    for reason in reasons:
        assert figures.reasons.get(reason), (reason, figures.reasons)


async def test_outsiders_gain_nothing(tmp_path: Path) -> None:
    async with stage(tmp_path, SHORT) as victim:
        done = await endure(victim, OUTSIDE.items())
    counted(done["random keys"], "direct_unknown_key")
    counted(done["a stranger subscribes"], "bad_subscription")
    counted(done["many connections subscribe"], "broadcast_too_many_connections")
    for name in ("bad papers", "a clock set forward", "a clock set back"):
        counted(done[name], "expired", "not_yet_valid")
    counted(done["bad papers"], "wrong_mesh", "revoked", "bad_record")
    counted(done["a revoked member"], "revoked", "bad_subscription", "direct_unknown_key")


async def test_who_sits_on_the_path_gains_nothing(tmp_path: Path) -> None:
    async with stage(tmp_path, SHORT, tapped=True) as victim:
        done = await endure(victim, PATH.items())
    assert done["a replayed subscription"].got > 0  # the same sealed frames as on the wire
    counted(done["replayed frames"], "duplicate")
    counted(done["every bit flipped"], "bad_tag", "bad_magic", "bad_version", "unknown_key")


async def test_who_lies_to_discovery_gains_nothing(lan: Callable[..., Lan], tmp_path: Path) -> None:
    async with lan_stage(lan(3), tmp_path, SHORT / 4) as victim:
        done = await endure(victim, LAN.items())
    counted(done["a flood of mdns records"], "mdns_mac")
    counted(done["a flood of scouts"], "scout_mac")
