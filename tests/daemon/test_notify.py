from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.daemon import notify


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield receiver


def test_states(supervisor: socket.socket) -> None:
    notify.ready("node kitchen,\n2 peers")
    assert supervisor.recv(1024) == b"READY=1\nSTATUS=node kitchen, 2 peers"
    notify.reloading()
    lines = supervisor.recv(1024).split(b"\n")
    assert lines[0] == b"RELOADING=1"
    assert lines[1].startswith(b"MONOTONIC_USEC=")
    notify.status("busy")
    assert supervisor.recv(1024) == b"STATUS=busy"
    notify.stopping()
    assert supervisor.recv(1024) == b"STOPPING=1"


def test_the_abstract_namespace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = f"zeromesh-test-{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + name)
        receiver.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        notify.ready()
        assert receiver.recv(1024) == b"READY=1"


def test_without_a_supervisor(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify.ready()
    assert not caplog.text
    monkeypatch.setenv("NOTIFY_SOCKET", "/nonexistent/notify")
    notify.ready()
    assert "cannot be told READY=1" in caplog.text
