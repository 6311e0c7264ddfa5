"""``mesh bench``: figures, words, JSON and a picture; a peer that answers, and those that don't."""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from mesh.cli.chart import line_chart
from mesh.cli.floor import Floor, floor
from mesh.cli.measured import buckets, curve, percentiles, told_latency, told_throughput
from mesh.cli.picture import save, why_not
from mesh.daemon.measuring import Measuring
from tests.cli.command import daemon, home_at, mesh, mesh_here
from tests.lab import Running


@asynccontextmanager
async def node(home: Path, first: Running) -> AsyncIterator[None]:
    """A second daemon's part of it, here: one home has one daemon."""
    import mesh as api

    seeds = re.findall(r"tcp://127\S+", first.stdout[0])
    async with (
        api.open_node(
            "attic", home=home, listen=["tcp://127.0.0.1:0"], connect=seeds, discovery=()
        ) as opened,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(Measuring(opened).run)
        yield
        nursery.cancel_scope.cancel()


seconds = st.lists(st.floats(1e-7, 50), min_size=1, max_size=300)


@given(seconds)
def test_figures_of_any_times(times: list[float]) -> None:
    found = percentiles(times)
    assert (
        found["min"]
        == min(times)
        <= found["p50"]
        <= found["p99"]
        <= found["p99.9"]
        <= found["max"]
        == max(times)
    )
    assert sum(taken <= found["p90"] for taken in times) >= 0.9 * len(times)
    histogram = buckets(times)
    assert sum(number for _, number in histogram) == len(times)
    assert histogram[0][1] and histogram[-1][1]
    assert all(least <= taken for (_, least), (_, taken) in zip(curve(times), curve(times)[1:], strict=False))


def test_words_on_a_rate() -> None:
    entry = {
        "size": 1024,
        "sent": 1000,
        "received": 990,
        "lost": 10,
        "rate": 100_000.0,
        "bytes_per_second": 1.024e8,
    }
    told = told_throughput("cellar", entry)
    assert "10 of 1,000 lost (1.00%)" in told
    assert "near what a 1 Gbit/s link carries" in told


async def test_between_a_command_and_a_daemon(tmp_path: Path) -> None:
    home = home_at(tmp_path / "home")
    picture, result = tmp_path / "p.svg", tmp_path / "r.json"
    async with daemon(home, "--name", "cellar"):
        done = await mesh(
            "bench", "latency", "--size", "8,2000", "--count", "30", "--json", str(result), "--plot", str(picture),
            home=home,
        )  # fmt: skip
        assert done.code == 0, done.stderr
        assert done.stdout[0] == "cellar, 8 B: 30 of 30 answered"
        assert any("Half of all requests took at most" in line for line in done.stdout)
        sizes = json.loads(result.read_text())["sizes"]
        assert [(entry["size"], len(entry["times"]), entry["lost"]) for entry in sizes] == [
            (8, 30, 0),
            (2000, 30, 0),
        ]
        assert ET.fromstring(picture.read_text()).tag.endswith("svg")

        done = await mesh(
            "bench", "throughput", "cellar", "--size", "64", "--seconds", "0.2", "--json", "-", home=home
        )
        assert done.code == 0, done.stderr
        (entry,) = done.json["sizes"]
        assert entry["received"] > 0
        assert entry["received"] + entry["lost"] == entry["sent"]

        done = await mesh("bench", "latency", "attic", home=home)
        assert (done.code, done.line) == (1, "no such peer: 'attic'")


def test_a_picture_as_png(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py", reason="the extra png is not installed")
    path = tmp_path / "p.png"
    assert not why_not(path)
    save(path, line_chart("title", "x", "y", {"a": [(1.0, 1.0), (2.0, 4.0)]}))
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_the_floor_of_loopback(host: str) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host=host)
    port = listener.socket.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    found = await floor(("ipc:///nowhere", f"tcp://{shown}:{port}"))
    await listener.aclose()
    assert found.tcp
    if os.geteuid() == 0:
        assert found.ping
    assert await floor((f"tcp://{shown}:{port}",)) == Floor()


def test_the_floor_in_words() -> None:
    entry = {
        "size": 8,
        "sent": 1,
        "lost": 0,
        "percentiles": percentiles([0.001]),
        "histogram": buckets([0.001]),
    }
    told = told_latency("cellar", entry, Floor(tcp=0.0002, ping=0.0001))
    assert "a ping takes 0.10 ms and to open a bare TCP connection 0.20 ms" in told
    assert "ping" not in told_latency("cellar", entry, Floor(tcp=0.0002))
    assert "Between" not in told_latency("cellar", entry, Floor())


async def test_every_pair(tmp_path: Path) -> None:
    home = home_at(tmp_path / "home")
    async with daemon(home, "--name", "cellar") as first, node(home, first):
        done = await mesh("bench", "latency", "--all", "--count", "20", "--size", "64", home=home, within=60)
        assert done.code == 0, done.stderr
        assert done.stdout[0].split()[-2:] == ["attic", "cellar"]
        assert [line.split().count("-") for line in done.stdout[1:]] == [1, 1]


async def test_a_matrix_of_one(tmp_path: Path) -> None:
    home = home_at(tmp_path / "home")
    async with daemon(home, "--name", "cellar"):
        done = await mesh("bench", "latency", "--all", home=home)
        assert (done.code, done.line) == (1, "a matrix takes two daemons at least, and fewer answer")


async def test_nobody_to_measure_with(tmp_path: Path) -> None:
    done = await mesh("bench", "latency", home=home_at(tmp_path / "home"))
    assert done.code == 1
    assert "no peers" in done.line


@pytest.mark.parametrize(
    "words",
    [("latency", "--size", "x"), ("latency", "--size", "-1"), ("throughput", "--plot", "p.jpg"), ("speed",), ("latency", "--count", "0"), ("latency", "--all", "--count", "1001")],
)  # fmt: skip
def test_mistakes(words: tuple[str, ...], capfd: pytest.CaptureFixture[str], own_home: Path) -> None:
    done = mesh_here(capfd, "bench", *words)
    assert done.code == 2
    assert len(done.stderr) == 1
