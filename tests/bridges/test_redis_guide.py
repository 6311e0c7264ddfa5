"""The configuration and the program of the guides do what these say, against a real server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import redis

from tests.bridges.redis_broker import PASSWORD, Broker
from tests.cli.command import mesh
from tests.sources import ROOT


def fences(guide: str, language: str) -> list[str]:
    text = (ROOT / "docs" / "howto" / f"{guide}.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


async def test_the_configurations_connect(redis_server: Broker, tmp_path: Path) -> None:
    redis_server.start_if_dead()
    for guide in ("redis", "bridges"):
        config = tmp_path / f"{guide}.toml"
        config.write_text(fences(guide, "toml")[0].replace(":6379/", f":{redis_server.port}/"))
        done = await mesh("bridge", "--config", str(config), "--check", env={"REDIS_PASSWORD": PASSWORD})
        assert (done.code, done.stdout) == (0, [f"redis: redis://127.0.0.1:{redis_server.port}/0: connected"])


def test_the_program_exports(redis_server: Broker, tmp_path: Path) -> None:
    redis_server.start_if_dead()
    (program,) = [each for each in fences("bridges", "python") if "trio.run" in each]
    program = program.replace(
        "redis://127.0.0.1:6379/", f"redis://:{PASSWORD}@127.0.0.1:{redis_server.port}/"
    )
    with redis.Redis(port=redis_server.port, password=PASSWORD) as client, client.pubsub() as pubsub:
        pubsub.subscribe("home.kitchen.temperature")
        pubsub.get_message(timeout=10)
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "MESH_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "closed\n"), done.stderr
        message = pubsub.get_message(timeout=10)
        assert message["data"] == b"21.5"
