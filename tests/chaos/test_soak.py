"""The short forms: a soak of some thousands, and a reader that is too slow beside one that is not."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.soak import soak, too_slow


async def test_a_short_soak_leaves_nothing_behind(tmp_path: Path) -> None:
    soaked = await soak(tmp_path, 40_000)
    assert (soaked.told["delivered"], soaked.told["lost"], soaked.told["duplicates"]) == (40_000, 0, 0)
    assert soaked.told["ordered"]
    assert soaked.descriptors <= 0
    assert soaked.grown < 64 << 20  # the ring is 16 MiB, and fills in the course of it


async def test_one_that_reads_a_tenth_costs_only_itself(tmp_path: Path) -> None:
    quick, slow = await too_slow(tmp_path, 2_000)
    assert quick["delivered"] + quick["lost"] == 2_000 and quick["dropped"] == 0
    assert slow["delivered"] + slow["lost"] + slow["dropped"] == 2_000
    assert slow["dropped"] > 0 and slow["ordered"] and slow["duplicates"] == 0
