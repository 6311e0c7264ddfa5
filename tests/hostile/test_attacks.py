"""Every attack: nothing learned, nothing accepted, no memory, and the peers go on."""

from __future__ import annotations

from pathlib import Path

from tests.hostile.attacks import ATTACKS
from tests.hostile.stage import MEMORY, stage


async def test_outsiders_gain_nothing(tmp_path: Path) -> None:
    async with stage(tmp_path) as victim:
        for name, attack in ATTACKS.items():
            figures = await victim.measure(attack)
            assert figures.leaked == 0, (name, figures)
            assert figures.accepted == 0, (name, figures)
            assert figures.grown < MEMORY, (name, figures)
            assert figures.trips > 0, (name, figures)
        quiet, friend = await victim.both()
        assert quiet["peers"] == ["friend"]
        assert friend["heard"] > 0
        for reason in (
            "direct_unknown_key",
            "bad_subscription",
            "expired",
            "not_yet_valid",
            "wrong_mesh",
            "revoked",
        ):
            assert quiet["rejected"].get(reason), (reason, quiet["rejected"])
