"""How long a peer that said goodbye is still listened to."""

from __future__ import annotations

from mesh.core.farewell import AWAITED, MOMENT, Farewell


def test_silence_and_a_last_look_end_it() -> None:
    farewell = Farewell(10.0)
    assert farewell.due == 10.0 + MOMENT
    assert not farewell.over(farewell.due)
    assert farewell.due < 10.0 + 2 * MOMENT
    assert farewell.over(farewell.due)


def test_what_arrives_meanwhile_begins_the_moment_anew() -> None:
    farewell = Farewell(10.0)
    farewell.heard(10.2)
    assert farewell.due == 10.2 + MOMENT
    assert not farewell.over(farewell.due)
    farewell.heard(10.5)  # the last look found something
    assert farewell.due == 10.5 + MOMENT
    assert not farewell.over(farewell.due)


def test_one_whose_last_frame_is_to_come_has_longer() -> None:
    farewell = Farewell(10.0, awaited=True)
    assert farewell.due == 10.0 + AWAITED
    assert not farewell.over(farewell.due)
    assert farewell.over(farewell.due)


def test_nobody_takes_leave_for_ever() -> None:
    farewell, clock = Farewell(0.0), 0.0
    while clock < farewell.due:
        clock = min(farewell.due, clock + 0.1)
        if clock < farewell.due:
            farewell.heard(clock)
    assert clock == 5.0
    assert farewell.over(clock)
