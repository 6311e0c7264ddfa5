"""The short form of ``make reliability-report``: some faults, once each, on hosts of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.faults import FAULTS, harmed
from tests.lab import Lan
from tests.lan.nodes import Mesh

QUICK = ("--patience", "0.6", "0.6", "20")
"""Suspected after 1.2 s of silence; never gone while a test lasts."""


@pytest.mark.parametrize("name", ["SIGKILL, begun again", "30 % loss"])
async def test_every_message_is_delivered_once_or_known_to_be_lost(
    lan: Callable[..., Lan], tmp_path: Path, name: str
) -> None:
    figures = await harmed(lan(3), Mesh(tmp_path / "home"), FAULTS[name], options=QUICK)
    print(name, figures)
    assert figures.offered > 0
    assert figures.delivered + figures.lost == figures.offered
    assert figures.lost_reliable == figures.duplicated == figures.disordered == 0
    assert figures.recovery
