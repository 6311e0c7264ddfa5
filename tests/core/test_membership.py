"""Membership timing: the table, and the machine against a naive model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.config import Config
from mesh.core.membership import VOUCHED, Action, Liveness, LivenessState, LocalHealth, Timing

TIMING = Timing(probe_after=1.5, probe_timeout=1.0, gone_after=8.0)


def test_silence_is_probed_then_accused_then_buried() -> None:
    peer = Liveness(TIMING, 100.0)
    assert peer.poll(101.4) is None
    assert peer.due == 101.5
    assert peer.poll(101.5) is Action.PROBE
    assert peer.poll(102.4) is None
    assert peer.poll(102.5) is Action.ACCUSE
    assert peer.state is LivenessState.SUSPECT
    assert [peer.poll(at) for at in (104.5, 106.5, 108.5)] == [Action.ASK] * 3
    assert peer.poll(110.4) is None
    assert peer.poll(110.5) is Action.BURY
    assert peer.due == float("inf")
    assert peer.poll(1e9) is None


def test_the_lan_preset_keeps_its_promise() -> None:
    lan = Config.lan()
    assert lan.probe_after + lan.probe_timeout < 3
    assert lan.probe_after + lan.probe_timeout + lan.gone_after < 12


def test_anything_heard_recovers_a_suspect() -> None:
    peer = Liveness(TIMING, 0.0)
    assert not peer.heard(1.0)
    peer.poll(2.5)
    assert not peer.heard(2.6)  # only probed: nobody was told anything
    peer.poll(4.1)
    peer.poll(5.1)
    assert peer.state is LivenessState.SUSPECT
    assert peer.heard(6.0)
    assert peer.due == 7.5


def test_the_dead_do_not_come_back_by_themselves() -> None:
    peer = Liveness(TIMING, 0.0)
    for clock in (1.5, 2.5, 10.5):
        peer.poll(clock)
    assert peer.state is LivenessState.GONE
    assert not peer.heard(11.0)
    assert peer.state is LivenessState.GONE


def test_a_node_that_slept_accuses_nobody() -> None:
    peer = Liveness(TIMING, 0.0)
    peer.excuse(60.0)
    assert peer.poll(60.0) is None
    assert peer.due == 61.5


def accused(clock: float = 0.0) -> Liveness:
    peer = Liveness(TIMING, clock)
    peer.poll(clock + 1.5)
    assert peer.poll(clock + 2.5) is Action.ACCUSE
    return peer


def buried_at(peer: Liveness, *, vouched: bool = False) -> float:
    """When it is gone, if it stays silent; ``vouched``: whoever is asked says each time to hear it."""
    while True:
        clock = peer.due
        if peer.poll(clock) is Action.BURY:
            return clock
        if vouched:
            peer.vouched(clock)


def test_one_whom_others_hear_has_more_time_but_not_for_ever() -> None:
    assert buried_at(accused()) == 10.5
    peer = accused()
    peer.vouched(9.0)
    assert buried_at(peer) == 17.0
    assert buried_at(accused(), vouched=True) == 2.5 + VOUCHED * 8.0


def test_a_word_for_one_who_is_no_suspect_is_nothing() -> None:
    peer = Liveness(TIMING, 0.0)
    peer.vouched(1.0)
    assert peer.due == 1.5
    peer = accused()
    peer.heard(3.0)
    peer.vouched(3.1)
    assert peer.due == 4.5


@pytest.mark.parametrize("before", [0, 1, 2])
def test_what_we_slept_through_is_added_to_every_wait(before: int) -> None:
    """``before``: the number of steps towards the end that it has taken."""
    peer, waits = Liveness(TIMING, 0.0), (1.5, 2.5)
    for clock in waits[:before]:
        peer.poll(clock)
    due = peer.due
    peer.shift(0.7)
    assert peer.due == due + 0.7
    assert round(buried_at(peer), 6) == 11.2


def test_a_suspect_of_before_our_sleep_has_all_of_its_time_again() -> None:
    peer = accused()
    peer.excuse(100.0)
    assert buried_at(peer) == 108.0


def test_who_is_challenged_has_that_long_and_no_more() -> None:
    peer = Liveness(TIMING, 0.0)
    peer.challenge(0.5, 2.0)
    assert peer.poll(2.4) is None
    assert peer.poll(2.5) is Action.ACCUSE
    peer = Liveness(TIMING, 0.0)
    peer.challenge(0.5, 2.0)
    peer.heard(0.6)
    assert peer.due == 2.1


def test_a_node_that_is_unwell_gives_answers_more_time_and_recovers() -> None:
    health = LocalHealth(1.0)
    assert health.stretch(0.0) == 1.0
    health.late(0.5, 10.0)
    assert health.stretch(10.0) == 1.5
    assert health.stretch(15.0) == 1.25
    for at in range(20, 40):
        health.late(0.9, at)
    assert health.stretch(40.0) <= 5.0
    assert health.stretch(100.0) < 1.01
    peer = Liveness(TIMING, 0.0)
    peer.poll(1.5, stretch=3.0)
    assert peer.poll(4.4) is None
    assert peer.poll(4.5) is Action.ACCUSE


@given(st.lists(st.tuples(st.sampled_from(["heard", "poll"]), st.floats(0.01, 3.0)), max_size=60))
def test_against_a_naive_model(steps: list[tuple[str, float]]) -> None:
    """A peer is buried only after the three patiences have passed since it was last heard."""
    clock, heard = 0.0, 0.0
    peer = Liveness(TIMING, clock)
    for step, wait in steps:
        clock += wait
        if peer.state is LivenessState.GONE:
            break
        if step == "heard":
            peer.heard(clock)
            heard = clock
            assert peer.state is LivenessState.ALIVE
        else:
            action = peer.poll(clock)
            silence = clock - heard
            if action is Action.PROBE:
                assert silence >= 1.5 - 1e-9
            elif action is Action.ACCUSE:
                assert silence >= 2.5 - 1e-9
            elif action is Action.BURY:
                assert silence >= 10.5 - 1e-9
            else:
                assert peer.due > clock
