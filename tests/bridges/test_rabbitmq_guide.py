"""The guide to the bridge to RabbitMQ does what it says: its programs are run, its tables are read."""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from pathlib import Path

import trio

from benchmarks import bridged
from benchmarks.rabbitmq import SUBJECT
from bridges.config import read_bridge
from tests.bridges.rabbitmq_broker import Broker
from tests.bridges.rabbitmq_client import outsider
from tests.lab import running
from tests.sources import ROOT

GUIDE = ROOT / "docs" / "howto" / "rabbitmq.md"
URL = "amqp://guest:guest@127.0.0.1:5672"
WITHIN = 60.0


def fences(language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


async def test_the_guides_programs_print_what_it_says(rabbitmq: Broker, tmp_path: Path) -> None:
    for text in fences("python") + fences("toml"):
        name = text.split()[1]
        (tmp_path / name).write_text(text.replace(URL, rabbitmq.url.rstrip("/")), encoding="utf-8")
    inside, outside = (text.splitlines() for text in fences("text"))
    environment = {"MESH_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    async with running([sys.executable, "bridge.py"], cwd=tmp_path, env=environment) as bridge:
        await bridge.expect("^live$", within=WITHIN)
        async with running([sys.executable, "outside.py"], cwd=tmp_path, env=environment) as program:
            assert await program.wait(within=WITHIN) == 0, program.report() + bridge.report()
            assert program.stdout == outside
        assert await bridge.wait(within=WITHIN) == 0, bridge.report()
        assert bridge.stdout == inside


def test_the_guides_tables_are_read(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("s3cret\n", encoding="utf-8")
    for text in fences("toml"):
        # Files of the reader's machine.
        text = text.replace("/etc/zeromesh/rabbitmq-password", str(secret))
        text = re.sub(r"^tls\.ca = .*$", "", text, flags=re.MULTILINE)
        assert read_bridge(tomllib.loads(text)).kind == "rabbitmq"


async def test_the_command_for_its_figures_measures(rabbitmq: Broker) -> None:
    options = argparse.Namespace(count=300, size=64)
    rounds = bridged.Rounds(SUBJECT, options)
    url = rabbitmq.url.rstrip("/")
    await trio.to_thread.run_sync(SUBJECT.prepare, url)
    assert await rounds.bare("bare", url) > 0
    assert await rounds.route("reliable", url) > 0
    with outsider(rabbitmq.url) as client:
        assert await client.depth("bench") == 301 + 300  # the bare client's first is not measured
        await client.do(client.channel.queue_delete, "bench")
