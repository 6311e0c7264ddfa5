"""What connections may take in, with plain TCP connections in libzmq's place."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator

import pytest
import zmq

from mesh.transport.intake import Intake

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "TCP_INFO"), reason="the kernel does not tell what a connection took in"
)

Pair = tuple[socket.socket, socket.socket]
ALLOWED = 1000


@pytest.fixture
def pair() -> Iterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        outside = socket.create_connection(server.getsockname())
        inside, _ = server.accept()
        with inside, outside:
            yield inside, outside


def take_in(pair: Pair, size: int) -> None:
    inside, outside = pair
    outside.sendall(bytes(size))
    left = size
    while left:
        left -= len(inside.recv(left))


def is_cut(pair: Pair) -> bool:
    pair[1].settimeout(0.1)
    try:
        return pair[1].recv(1) == b""
    except TimeoutError:
        return False


def test_more_than_allowed_twice_without_a_message(pair: Pair) -> None:
    intake = Intake(ALLOWED)
    fd = pair[0].fileno()
    intake.opened(fd, 0.0)
    take_in(pair, ALLOWED)
    assert not intake.enforce(1.0)
    assert not intake.suspects
    take_in(pair, 1)
    assert not intake.enforce(2.0)
    assert intake.suspects == {fd}
    take_in(pair, ALLOWED)
    assert not intake.enforce(3.0)
    take_in(pair, 1)
    assert intake.enforce(4.0) == 1
    assert is_cut(pair)
    assert not intake.suspects


def test_a_message_that_came_whole_clears_a_suspect(pair: Pair) -> None:
    intake = Intake(ALLOWED)
    intake.opened(pair[0].fileno(), 0.0)
    for _ in range(5):
        take_in(pair, 2 * ALLOWED)
        assert not intake.enforce(1.0)
        intake.gave(pair[0].fileno())
    assert not is_cut(pair)


def test_a_suspect_that_has_gone_quiet_is_watched_no_closer(pair: Pair) -> None:
    intake = Intake(ALLOWED)
    intake.opened(pair[0].fileno(), 0.0)
    take_in(pair, 2 * ALLOWED)
    intake.enforce(1.0)
    assert intake.restless
    intake.enforce(2.0)
    assert not intake.restless


def test_nobody_stays_longer_than_a_lifetime(pair: Pair) -> None:
    intake = Intake(ALLOWED, lifetime=30.0)
    intake.opened(pair[0].fileno(), 100.0)
    assert not intake.enforce(130.0)
    assert intake.enforce(130.1) == 1
    assert is_cut(pair)


def test_whose_time_is_up_makes_room_when_another_comes(pair: Pair) -> None:
    intake = Intake(ALLOWED, lifetime=30.0)
    intake.opened(pair[0].fileno(), 100.0)
    intake.opened(pair[1].fileno(), 131.0)
    assert is_cut(pair)
    assert intake.enforce(131.0) == 1


def test_a_later_file_of_the_same_number_is_let_alone(pair: Pair) -> None:
    intake = Intake(ALLOWED, lifetime=1.0)
    with socket.socket() as other:
        number = other.fileno()
        intake.opened(number, 0.0)
    again = os.dup(pair[0].fileno())
    try:
        assert again == number
        assert not intake.enforce(10.0)
    finally:
        os.close(again)
    assert not is_cut(pair)


async def test_a_report_that_comes_late_is_not_taken_for_the_file_that_has_its_number_now(pair: Pair) -> None:
    """Whose number it is now may be anybody's: an mDNS socket that was shut down so is readable for ever, and empty."""
    address = f"tcp://127.0.0.1:{pair[0].getsockname()[1]}"
    intake = Intake(ALLOWED, lifetime=30.0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bystander:
        bystander.bind(("127.0.0.1", 0))
        bystander.setblocking(False)
        port = bystander.getsockname()[1]
        for event in (zmq.EVENT_ACCEPTED, zmq.EVENT_CONNECTED):
            for endpoint in (address, f"tcp://127.0.0.1:{port}", "ipc:///nowhere"):
                intake.happened(event, bystander.fileno(), endpoint)
                intake.happened(event, pair[0].fileno(), "tcp://127.0.0.1:1")
                assert intake.enforce(float("inf")) == 0
        assert not select.select([bystander], [], [], 0)[0]
    assert not is_cut(pair)

    intake.happened(zmq.EVENT_ACCEPTED, pair[0].fileno(), address)
    assert intake.enforce(float("inf")) == 1
    assert is_cut(pair)


async def test_a_connection_of_our_own_is_known_by_where_it_leads(pair: Pair) -> None:
    intake = Intake(ALLOWED, lifetime=30.0)
    intake.happened(zmq.EVENT_CONNECTED, pair[1].fileno(), f"tcp://127.0.0.1:{pair[1].getpeername()[1]}")
    assert intake.enforce(float("inf")) == 1
