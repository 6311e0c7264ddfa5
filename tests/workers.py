"""How the tests are shared out among the workers of pytest-xdist: in parcels, the longest first.

The tests of one broker are one parcel, so that it is started once. Elsewhere a file is one; where a single test starts
processes and waits for them, each test is. Long parcels go first and small ones last, so that the workers end
together. A run with ``-n 0`` is one process, in the files' order.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

__all__ = ["Parcels", "arranged", "parcel", "workers"]

TOGETHER = ("tests/bridges/test_kafka", "tests/bridges/test_rabbitmq", "tests/bridges/test_redis")
"""What begins like this shares a broker."""

APART = ("tests/test_docs.py", "tests/cli/", "tests/lan/", "tests/hostile/")
"""Tests of seconds each, in this order: a file of theirs would keep one worker after the other has ended."""


def parcel(test: str) -> str:
    """What is run by one worker, named by what the tests of it have in common."""
    for beginning in TOGETHER:
        if test.startswith(beginning):
            return beginning
    return test if test.startswith(APART) else test.partition("::")[0]


def arranged(items: list[pytest.Item]) -> list[pytest.Item]:
    """The long parcels first: those of a broker, then files, the one with the most tests before the others."""
    sizes = Counter(parcel(item.nodeid) for item in items)

    def rank(item: pytest.Item) -> tuple[int, int, str]:
        name = parcel(item.nodeid)
        if name in TOGETHER:
            return 0, TOGETHER.index(name), name
        for place, beginning in enumerate(APART):
            if name.startswith(beginning):
                return 2, place, ""
        return 1, -sizes[name], name

    return sorted(items, key=rank)


def workers() -> int:
    """For ``-n auto``: one more than there are cores, since tests also wait; four at most, since they disturb one another."""
    return min((os.cpu_count() or 1) + 1, 4)


class Parcels(LoadScopeScheduling):
    """Hands out whole parcels, in the order in which the workers have collected them."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # it would count a parcel's tests, whatever they cost

    def _split_scope(self, nodeid: str) -> str:
        return parcel(nodeid)
