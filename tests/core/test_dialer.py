"""Whom to dial and when: rounds, backoff, bounds."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from mesh.config import Config, Limits
from mesh.core.dialer import Dialer
from mesh.core.types import NodeId

CONFIG = Config.lan()
HIGHEST = NodeId(b"\xff" * 16)
LOWEST = NodeId(bytes(16))


def node(n: int) -> NodeId:
    return NodeId(n.to_bytes(16, "big"))


def make(config: Config = CONFIG, own: NodeId = HIGHEST) -> Dialer:
    dialer = Dialer(config, Random(7).randbytes, own)
    dialer.due(0.0)
    return dialer


def endpoints(dialer: Dialer, clock: float) -> list[str]:
    return [endpoint for _, endpoint in dialer.due(clock)]


def test_all_targets_at_once_and_the_addresses_of_each_a_moment_apart() -> None:
    dialer = make()
    dialer.offer(node(1), ["tcp://a:1", "tcp://b:1"], 0.0)
    dialer.offer(node(2), ["tcp://c:1"], 0.0)
    assert endpoints(dialer, 0.0) == ["tcp://a:1", "tcp://c:1"]
    assert dialer.due(0.0) == []
    assert dialer.deadline() == 1.25 * CONFIG.dial_stagger  # of two at once, each may take longer
    assert endpoints(dialer, 1.25 * CONFIG.dial_stagger) == ["tcp://b:1"]
    assert dialer.deadline() == float("inf")


def test_an_address_that_refuses_makes_way_at_once() -> None:
    dialer = make()
    dialer.offer(node(1), ["tcp://a:1", "tcp://b:1"], 0.0)
    ((target, first),) = dialer.due(0.0)
    dialer.failed(target, first, 0.01)
    assert endpoints(dialer, 0.01) == ["tcp://b:1"]


def test_an_answer_ends_the_round() -> None:
    dialer = make()
    dialer.offer(node(1), ["tcp://a:1", "tcp://b:1"], 0.0)
    ((target, _),) = dialer.due(0.0)
    dialer.reached(target, node(1), 0.01)
    assert dialer.due(CONFIG.dial_stagger, skip=[node(1)]) == []
    assert dialer.deadline(skip=[node(1)]) == float("inf")


def test_of_two_the_lower_leaves_the_other_a_moment() -> None:
    dialer = make(own=LOWEST)
    dialer.offer(node(1), ["tcp://a:1"], 0.0)
    assert dialer.due(0.0) == []
    assert dialer.deadline() == CONFIG.dial_yield
    assert endpoints(dialer, CONFIG.dial_yield) == ["tcp://a:1"]


def test_where_answers_take_long_nobody_is_impatient() -> None:
    dialer = make()
    for n in range(8):  # a machine on which many start at once
        dialer.offer(node(n), [f"tcp://h{n}:1", f"tcp://h{n}:2"], 0.0)
        for target, _ in dialer.due(0.0):
            dialer.reached(target, node(n), 1.0)
        dialer.forget(node(n))
    dialer.offer(node(8), ["tcp://a:1", "tcp://b:1"], 2.0)
    assert endpoints(dialer, 2.0) == ["tcp://a:1"]
    assert 3.0 < dialer.deadline() < 2.0 + CONFIG.dial_timeout
    assert endpoints(dialer, 3.0) == []


def test_an_answer_that_comes_meanwhile_shortens_the_patience_with_the_others() -> None:
    dialer = make(own=LOWEST)
    for n in range(1, 9):
        dialer.offer(node(n), [f"tcp://h{n}:1"], 0.0)
    before = dialer.deadline()
    assert before > CONFIG.dial_yield
    for target, _ in dialer.due(before):
        dialer.reached(target, target.node or node(0), before)
    dialer.offer(node(9), ["tcp://h9:1"], before)
    assert dialer.deadline(skip=[node(n) for n in range(1, 9)]) - before < 2 * CONFIG.dial_yield


def test_a_seed_is_dialled_at_once() -> None:
    dialer = make(own=LOWEST)
    dialer.offer(None, ["tcp://seed:7400"], 0.0)
    assert endpoints(dialer, 0.0) == ["tcp://seed:7400"]


def test_few_dials_are_under_way_at_once() -> None:
    dialer = make(replace(CONFIG, limits=replace(Limits(), dials_at_once=3)))
    for n in range(5):
        dialer.offer(node(n), [f"tcp://h{n}:1"], 0.0)
    pairs = dialer.due(0.0)
    assert len(pairs) == 3
    assert dialer.deadline() == float("inf")
    dialer.failed(*pairs[0], 0.01)
    assert endpoints(dialer, 0.01) == ["tcp://h3:1"]


def test_a_round_fails_when_its_last_address_does_and_backs_off_with_full_jitter() -> None:
    dialer = make()
    dialer.offer(node(1), ["tcp://a:1", "tcp://b:1"], 0.0)
    waits = []
    clock = 0.0
    for _ in range(8):
        ((target, first),) = dialer.due(clock)
        clock += CONFIG.dial_stagger
        ((_, second),) = dialer.due(clock)
        dialer.failed(target, first, clock)
        assert dialer.due(clock) == []
        dialer.failed(target, second, clock)
        waits.append(target.next_try - clock)
        clock = target.next_try
    for tries, wait in enumerate(waits):
        ceiling = min(CONFIG.redial_max, CONFIG.redial_min * 2**tries)
        assert CONFIG.redial_min / 4 <= wait <= ceiling
    assert len(set(waits)) > len(waits) / 2


def test_those_who_lost_the_same_peer_come_back_to_it_one_after_another() -> None:
    """Fifty that lost it at the same moment, and dial it over the whole of the pause, not at the end of it."""
    pauses = []
    for seed in range(50):
        dialer = Dialer(CONFIG, Random(seed).randbytes, node(0))
        dialer.offer(node(1), ["tcp://a:1"], 0.0)
        ((target, _),) = dialer.due(1.0)
        dialer.reached(target, node(1), 1.0)
        dialer.lost(node(1), 100.0)
        pauses.append(target.next_try - 100.0)
    quarters = {int(4 * pause / CONFIG.redial_min) for pause in pauses}
    assert max(pauses) <= CONFIG.redial_min
    assert quarters == set(range(4))


def test_who_is_a_peer_is_not_dialled() -> None:
    dialer = make()
    dialer.offer(node(1), ["tcp://a:1"], 0.0)
    assert dialer.due(0.0, skip=[node(1)]) == []
    assert dialer.deadline(skip=[node(1)]) == float("inf")


def test_a_seed_becomes_whoever_answers_and_a_seed_again_when_that_one_is_lost() -> None:
    dialer = make()
    target = dialer.offer(None, ["tcp://seed:7400"], 0.0, permanent=True)
    assert target is not None
    dialer.due(0.0)
    dialer.reached(target, node(5), 0.0)
    assert dialer.due(1.0, skip=[node(5)]) == []
    dialer.lost(node(5), 2.0)
    assert target.node is None
    assert [endpoint for _, endpoint in dialer.due(3.0)] == ["tcp://seed:7400"]


def test_hints_are_bounded_and_the_refused_are_counted() -> None:
    config = replace(CONFIG, limits=replace(Limits(), candidates=10))
    dialer = make(config)
    for n in range(50):
        dialer.offer(node(n), [f"tcp://h{n}:1"], 0.0)
    assert len(dialer) == 10
    assert dialer.dropped == 40
    assert dialer.offer(None, ["tcp://seed:1"], 0.0, permanent=True) is not None


def test_dials_a_second_are_bounded_whatever_the_hints() -> None:
    dialer = make()
    for n in range(200):
        dialer.offer(node(n), [f"tcp://h{n}:1"], 0.0)
    begun = sum(len(dialer.due(clock / 100)) for clock in range(200))
    assert begun <= CONFIG.limits.dials_per_second * 3


def test_hints_nobody_repeats_are_forgotten_but_not_seeds_nor_peers() -> None:
    dialer = make()
    dialer.offer(node(1), ["tcp://a:1"], 0.0)
    dialer.offer(node(2), ["tcp://b:1"], 0.0)
    dialer.offer(None, ["tcp://seed:1"], 0.0, permanent=True)
    dialer.expire(CONFIG.forget_after + 1, alive=[node(2)])
    assert len(dialer) == 2


def test_a_node_that_said_goodbye_is_not_dialled_again() -> None:
    dialer = make()
    dialer.offer(node(1), ["tcp://a:1"], 0.0)
    dialer.forget(node(1))
    assert dialer.due(1.0) == []
