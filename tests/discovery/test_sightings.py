from __future__ import annotations

from mesh.core.types import NodeId
from mesh.discovery.base import Candidate
from mesh.discovery.sightings import CHANGES, FORGET, REPEAT, Sightings


def seen(number: int, *intros: str) -> Candidate:
    return Candidate(NodeId(number.to_bytes(16, "big")), intros or ("tcp://10.0.0.1:1",), "test")


def test_the_same_again_is_reported_only_after_a_while() -> None:
    sightings = Sightings(4)
    assert sightings.admit(seen(1), 0.0) == ""
    assert sightings.admit(seen(1), REPEAT - 0.1) == "repeated"
    assert sightings.admit(seen(1), REPEAT) == ""


def test_what_is_new_is_reported_at_once_and_a_part_is_not_new() -> None:
    sightings = Sightings(4)
    assert sightings.admit(seen(1, "tcp://10.0.0.1:1"), 0.0) == ""
    assert sightings.admit(seen(1, "tcp://10.0.0.1:1", "tcp://127.0.0.1:1"), 0.0) == ""
    assert sightings.admit(seen(1, "tcp://127.0.0.1:1"), 0.0) == "repeated"


def test_replayed_old_beacons_of_a_node_that_moves_do_not_pass_on_and_on() -> None:
    sightings = Sightings(4)
    answers = [sightings.admit(seen(1, f"tcp://10.0.0.1:{port}"), 0.0) for port in range(1, 50)]
    assert answers == [""] * (1 + CHANGES) + ["churn"] * (48 - CHANGES)
    assert sightings.admit(seen(1, "tcp://10.0.0.1:99"), REPEAT) == ""


def test_no_more_nodes_than_the_bound_until_some_are_old() -> None:
    sightings = Sightings(3)
    assert [sightings.admit(seen(number), number) for number in range(5)] == ["", "", "", "full", "full"]
    assert sightings.admit(seen(5), FORGET) == ""  # in the place of the one that was seen longest ago
    assert sightings.admit(seen(6), FORGET) == "full"
    assert [each.node for each in sightings.known()] == [seen(number).node for number in (1, 2, 5)]


def test_forgetting_reports_everything_anew() -> None:
    sightings = Sightings(1)
    assert sightings.admit(seen(1), 0.0) == ""
    sightings.forget()
    assert sightings.known() == ()
    assert sightings.admit(seen(2), 0.0) == ""
