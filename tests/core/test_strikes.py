"""The table of what a bad frame costs its sender."""

from __future__ import annotations

import pytest

from mesh.core.strikes import POLICY, Strikes
from mesh.core.types import Reason


@pytest.mark.parametrize(
    ("reason", "strikes"),
    [
        (Reason.BAD_MAGIC, 10),
        (Reason.BAD_VERSION, 10),
        (Reason.BAD_LENGTH, 10),
        (Reason.BAD_MESSAGE, 10),
        (Reason.BAD_TAG, 8),
        (Reason.WRONG_OWNER, 1),
    ],
)
def test_so_many_and_the_link_ends(reason: Reason, strikes: int) -> None:
    peer = Strikes()
    for _ in range(strikes - 1):
        assert peer.add(reason, 0.0) is None
    assert peer.add(reason, 1.0) is POLICY[reason]
    assert peer.counts[reason] == strikes


def test_eight_tags_a_minute_not_eight_in_all() -> None:
    peer = Strikes()
    for minute in range(20):
        for second in range(7):
            assert peer.add(Reason.BAD_TAG, minute * 61.0 + second) is None
    assert peer.counts[Reason.BAD_TAG] == 140


@pytest.mark.parametrize(
    "reason",
    [
        Reason.DUPLICATE,
        Reason.OLD_EPOCH,
        Reason.TOO_OLD,
        Reason.UNKNOWN_KEY,
        Reason.NOT_AUTHORIZED,
    ],
)
def test_what_an_honest_network_does_costs_nothing(reason: Reason) -> None:
    peer = Strikes()
    for _ in range(1000):
        assert peer.add(reason, 0.0) is None
    assert peer.counts[reason] == 1000
