"""The harness: every system with tiny counts, and what happens when one misbehaves."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from benchmarks import __main__ as command
from benchmarks import peers
from benchmarks.adapter import Adapter, Control
from benchmarks.harness import run_once
from benchmarks.summary import figures
from benchmarks.workload import Asker, Kind, Role, Unsupported, Workload

ONEWAY = Workload("oneway", 64, 500, 50)
ROUNDTRIP = Workload("roundtrip", 64, 30, 3)

LIMIT = 180.0
"""Seconds for one run: two processes start, import a messaging library and find each other, on a machine that
has other things to do."""


HERE = [name for name, adapter in sorted(peers.adapters().items()) if adapter.missing() is None]


def test_which_systems_are_here() -> None:
    missing = sorted(peers.adapters().keys() - set(HERE))
    if missing:
        pytest.skip(f"not installed, so nothing tests their adapters here: {', '.join(missing)}")


@pytest.mark.parametrize("workload", [ONEWAY, ROUNDTRIP], ids=lambda workload: workload.kind)
@pytest.mark.parametrize("name", HERE)
async def test_every_system_does_the_work(name: str, workload: Workload) -> None:
    run = await run_once(peers.load(name), workload, limit=LIMIT)
    if run["status"] == "unsupported":
        return
    assert run["status"] == "ok", run.get("reason")
    roles = run["roles"]
    if workload.kind == "oneway":
        assert roles["publisher"]["sent"] == roles["subscriber"]["received"] == workload.total
    else:
        assert len(roles["client"]["times"]) == workload.count
        assert roles["server"]["served"] >= workload.total
    assert all(role["usage"]["wall"] > 0 for role in roles.values())


@pytest.mark.parametrize("kind", ["inflight", "paced"])
async def test_the_other_kinds_of_requests(kind: Kind) -> None:
    workload = Workload(kind, 64, 128, 64)
    run = await run_once(peers.load(peers.BASE), workload, limit=LIMIT)
    assert run["status"] == "ok", run.get("reason")
    assert len(run["roles"]["client"]["times"]) == 128
    assert figures(workload, run["roles"])["rate"] > 0


async def test_a_paced_time_begins_when_its_request_was_due(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0
    monkeypatch.setattr("benchmarks.workload.time.perf_counter_ns", lambda: clock)

    async def sleep(seconds: float) -> None:
        nonlocal clock
        clock += round(seconds * 1e9)

    async def ask(data: bytes) -> bytes:
        nonlocal clock
        clock += 17_500_000 if clock < 10_000_000 else 500_000  # the first takes as long as three others may
        return data

    asker = Asker(Workload("paced", 8, 6, 0))
    await asker.one_by_one(ask, sleep)
    assert [round(taken / 1e6, 1) for taken in asker.times] == [17.5, 13.0, 8.5, 4.0, 0.5, 0.5]


def test_the_command_writes_what_a_result_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "result.json"
    arguments = ["--systems", "pyzmq,trio-zmq", "--only", "roundtrip", "--requests", "20", "--rounds", "2"]
    assert command.main([*arguments, "--json", str(path)]) == 0
    result = json.loads(path.read_text())
    assert {"cpu", "cores", "memory_bytes", "kernel"} <= set(result["machine"])
    assert {"date", "commit", "python", "packages", "settings", "runs", "summary"} <= set(result)
    assert "pyzmq" in result["packages"]
    assert len(result["runs"]) == 2 * 2
    # Interleaved, and each round begins with another system.
    assert [run["system"] for run in result["runs"]] == ["pyzmq", "trio-zmq", "trio-zmq", "pyzmq"]
    printed = capsys.readouterr().out
    assert "bare pyzmq" in printed
    assert "\x1b" not in printed


def test_a_profile_of_our_two_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--profile", str(tmp_path), "--only", "oneway", "--count", "500"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "oneway-64-publisher.prof",
        "oneway-64-subscriber.prof",
    }
    assert "mesh/node/publisher.py" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--systems", "carrier-pigeon"], "no system carrier-pigeon"),
        (["--count", "0"], ""),
        (["--sizes", "x"], ""),
    ],
)
def test_a_users_mistake_is_one_line(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(arguments)
    assert stopped.value.code != 0
    assert complaint in str(stopped.value)


async def run_with(
    monkeypatch: pytest.MonkeyPatch, name: str, kind: Kind, limit: float = LIMIT
) -> dict[str, Any]:
    """A run of one of the systems below: the workers are told to look for them here."""
    monkeypatch.setenv("ZEROMESH_BENCHMARK_TEST", name)
    monkeypatch.setattr("benchmarks.harness.WORKER", [sys.executable, "-m", __name__])
    workload = Workload(kind, 8, 10, 1)
    return await run_once(Adapter(name, name, False, {}), workload, limit=limit)


async def test_a_system_that_fails_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    run = await run_with(monkeypatch, "raises", "oneway")
    assert run["status"] == "failed"
    assert run["reason"] == "subscriber: ValueError: on purpose"


async def test_a_system_that_dies_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    run = await run_with(monkeypatch, "dies", "oneway")
    assert run["status"] == "failed"
    assert run["reason"] == "subscriber ended without a word: last words"


async def test_a_system_that_cannot_is_not_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    run = await run_with(monkeypatch, "cannot", "oneway")
    assert run == {"system": "cannot", "workload": "oneway-8", "status": "unsupported", "reason": "too large"}


async def test_a_run_that_hangs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.harness._CLOSING", 0.1)
    with trio.fail_after(60):
        run = await run_with(monkeypatch, "hangs", "oneway", limit=1.5)
    assert run["status"] == "failed"
    # How far the publisher has come by then is up to the machine.
    assert re.fullmatch(r"not done in 1\.5 s \(publisher said \w+, subscriber said nothing\)", run["reason"])


async def test_what_is_lost_is_shown_and_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.harness._PATIENCE", 0.1)
    run = await run_with(monkeypatch, "loses", "oneway")
    assert run["status"] == "ok"
    assert run["roles"]["subscriber"]["received"] == 7


# -- systems that misbehave, run as workers by the tests above -----------------------


def publisher(control: Control, workload: Workload) -> None:
    control.listening({})
    control.ready()
    control.go.wait()
    with control.measured():
        pass
    control.done({"sent": workload.total})
    control.close.wait()


def raises(control: Control, workload: Workload) -> None:
    raise ValueError("on purpose")


def dies(control: Control, workload: Workload) -> None:
    print("last words", file=sys.stderr, flush=True)
    os._exit(7)


def cannot(control: Control, workload: Workload) -> None:
    raise Unsupported("too large")


def hangs(control: Control, workload: Workload) -> None:
    control.close.wait()
    control.close.clear()
    control.close.wait()


def loses(control: Control, workload: Workload) -> None:
    control.ready()
    with control.measured():
        control.stop.wait()
    control.done({"received": 7, "stamps": []})
    control.close.wait()


def main() -> None:
    name = os.environ["ZEROMESH_BENCHMARK_TEST"]
    roles: dict[Role, Any] = {"publisher": publisher, "subscriber": globals()[name]}
    from benchmarks import worker

    peers.load = lambda name: Adapter(name, name, False, roles)
    sys.exit(worker.main())


if __name__ == "__main__":
    main()
