"""The short form of ``make fuzz``: a few seconds, with another seed in each run."""

from __future__ import annotations

import os

import pytest

from tests.fuzz.targets import CORPUS, DECLARED, SLOW, TARGETS, corpus, fuzz, seeds


def test_parsers_raise_declared_errors_only_and_soon() -> None:
    for name, (tried, slowest) in fuzz(2.0, int.from_bytes(os.urandom(4), "big")).items():
        assert tried >= 200, name
        assert slowest < 5 * SLOW, name  # of processor time; a busy machine adds some


@pytest.mark.parametrize("name", sorted({*TARGETS} - {"frame", "beacon", "txt"}))  # these are authenticated
def test_every_target_gets_somewhere(name: str) -> None:
    """At least one of the seeds is read without an error, so that mutations of it go deep."""

    def read(data: bytes) -> bool:
        try:
            TARGETS[name](data)
        except DECLARED:
            return False
        return True

    assert any(map(read, seeds()))


@pytest.mark.parametrize("name", sorted(file.stem for file in CORPUS.glob("*.hex")))
def test_what_was_found_once_is_tried_always(name: str) -> None:
    kept = corpus(name)
    assert kept
    for data in kept:
        try:
            TARGETS[name](data)
        except DECLARED:
            pass
