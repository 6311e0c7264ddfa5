"""Membership timing: the table, and the machine against a naive model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesh.config import Config
from mesh.core.membership import Action, Liveness, LivenessState, Timing

TIMING = Timing(probe_after=1.5, probe_timeout=1.0, gone_after=8.0)


def test_silence_is_probed_then_accused_then_buried() -> None:
    peer = Liveness(TIMING, 100.0)
    assert peer.poll(101.4) is None
    assert peer.due == 101.5
    assert peer.poll(101.5) is Action.PROBE
    assert peer.poll(102.4) is None
    assert peer.poll(102.5) is Action.ACCUSE
    assert peer.state is LivenessState.SUSPECT
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
