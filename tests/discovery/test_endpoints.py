from __future__ import annotations

import pytest

from mesh.discovery.endpoints import host_address, is_local, likeliest_first, split_tcp, tcp


@pytest.mark.parametrize(
    ("endpoint", "parts"),
    [
        ("tcp://host:1", ("host", 1)),
        ("tcp://10.0.0.1:65535", ("10.0.0.1", 65535)),
        ("tcp://[fd00::1]:7400", ("fd00::1", 7400)),
        ("tcp://*:0", ("*", 0)),
        ("tcp://fd00::1:7400", None),
        ("tcp://host", None),
        ("tcp://host:", None),
        ("tcp://host:65536", None),
        ("tcp://host:٣", None),  # a digit to Python, but not to anybody else
        ("tcp://:7400", None),
        ("ipc:///tmp/x", None),
    ],
)
def test_split(endpoint: str, parts: tuple[str, int] | None) -> None:
    assert split_tcp(endpoint) == parts
    if parts is not None:
        assert tcp(*parts) == endpoint


def test_what_only_this_machine_can_reach() -> None:
    assert all(map(is_local, ["tcp://127.0.0.1:1", "tcp://[::1]:1", "tcp://localhost:1", "ipc:///x"]))
    assert not any(map(is_local, ["tcp://10.0.0.1:1", "tcp://cellar.local:1", "tcp://[fd00::1]:1"]))


def test_the_address_that_a_datagram_came_from_is_tried_first() -> None:
    intros = ("tcp://10.0.0.1:1", "tcp://10.9.0.1:1", "tcp://[fd00::1]:1", "ipc:///x")
    assert likeliest_first(intros, "10.9.0.1") == (intros[1], intros[0], *intros[2:])
    assert likeliest_first(intros, "fd00::1")[0] == intros[2]
    assert likeliest_first(intros, "192.0.2.1") == intros


def test_names_are_no_addresses() -> None:
    assert host_address("tcp://cellar.local:1") is None
    assert str(host_address("tcp://[fd00::1]:1")) == "fd00::1"
