"""The guide to the bridge to Kafka does what it says: its programs are run, its tables are read."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

from bridges.config import read_bridge
from tests.bridges.kafka_broker import Broker
from tests.bridges.kafka_clients import create
from tests.lab import running
from tests.sources import ROOT

GUIDE = ROOT / "docs" / "howto" / "kafka.md"
WITHIN = 150.0


def fences(language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


async def test_the_guides_programs_print_what_it_says(kafka: Broker, tmp_path: Path) -> None:
    for text in fences("python") + fences("toml"):
        name = text.split()[1]
        (tmp_path / name).write_text(text.replace("127.0.0.1:9092", kafka.address), encoding="utf-8")
    inside, outside = (text.splitlines() for text in fences("text"))
    await create(kafka.address, "home.kitchen.temperature", "commands.light")
    environment = {"MESH_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    (session,) = fences("console")
    prompt, *expected = session.replace("127.0.0.1:9092", kafka.address).splitlines()
    command = [Path(sys.executable).with_name("mesh"), *prompt.removeprefix("$ mesh ").split()]
    async with running(command, cwd=tmp_path, env=environment) as program:
        assert await program.wait(within=WITHIN) == 0, program.report()
        assert program.stdout == expected
    async with running([sys.executable, "bridge.py"], cwd=tmp_path, env=environment) as bridge:
        # Commands of before the bridge came are past for it, so one is sent until it has had enough.
        while bridge.process.poll() is None:
            async with running([sys.executable, "outside.py"], cwd=tmp_path, env=environment) as program:
                assert await program.wait(within=WITHIN) == 0, program.report()
                assert program.stdout == outside
        assert await bridge.wait(within=WITHIN) == 0, bridge.report()
        assert bridge.stdout == inside


def test_the_guides_tables_are_read(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("s3cret\n", encoding="utf-8")
    for text in fences("toml"):
        # Files of the reader's machine.
        text = text.replace("/etc/zeromesh/kafka-password", str(secret))
        text = re.sub(r"^tls\.ca = .*$", "", text, flags=re.MULTILINE)
        for table in tomllib.loads(text)["bridge"]:
            assert read_bridge(table).kind == "kafka"
