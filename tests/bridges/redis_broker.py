"""A real redis-server for tests and benchmarks, alone on this machine.

``why_not()`` says why none can be had here, or None after it was found (or installed: root and apt); ``Broker(folder)``
is a private server on free ports, with a password, an append-only file and TLS.  ``start``, ``kill`` and ``stop`` end
what they started, by process id.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from functools import cache
from pathlib import Path

from tests.bridges.ports import free_ports
from tests.bridges.rabbitmq_broker import certificate
from tests.lab.leash import hold
from tests.lab.packages import install

__all__ = ["PASSWORD", "REQUIRED", "Broker", "why_not"]

REQUIRED = "ZEROMESH_REQUIRE_REDIS"
"""With this set to 1 the absence of a server is a failure, not a skip."""

PASSWORD = "canary-93fa-never-printed"

START_WITHIN = 60.0
STOP_WITHIN = 20.0


@cache
def why_not() -> str | None:
    """Why no server can run here; None when there is one. Installs it where root and apt are there."""
    if shutil.which("redis-server") is not None:
        return None
    if reason := install("redis-server"):
        return f"redis-server: {reason}"
    return None if shutil.which("redis-server") else "redis-server was installed, but is not on the path"


class Broker:
    """A redis-server. Blocking: tests call it in a thread, or where nothing else has to go on."""

    def __init__(self, folder: Path) -> None:
        hold()
        self.folder = folder
        self.port, self.tls_port = free_ports(2)
        self.process: subprocess.Popen[bytes] | None = None
        certificate(folder)
        self.ca = folder / "server.pem"
        (folder / "redis.conf").write_text(
            f"bind 127.0.0.1\nport {self.port}\ntls-port {self.tls_port}\n"
            f"tls-cert-file {self.ca}\ntls-key-file {folder}/server.key\ntls-auth-clients no\n"
            f"requirepass {PASSWORD}\ndir {folder}\nappendonly yes\nappendfsync everysec\nsave ''\n"
            f"logfile {folder}/redis.log\n"
        )

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["redis-server", str(self.folder / "redis.conf")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + START_WITHIN
        while b"PONG" not in self.cli("PING"):
            assert self.process.poll() is None, (self.folder / "redis.log").read_text()
            assert time.monotonic() < end, "redis-server does not answer"
            time.sleep(0.05)

    def start_if_dead(self) -> None:
        if self.process is None or self.process.poll() is not None:
            self.start()

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_WITHIN)
            except subprocess.TimeoutExpired:
                self.kill()

    def cli(self, *words: str | bytes) -> bytes:
        """What an independent client (redis-cli) prints."""
        command = ["redis-cli", "-p", str(self.port), "--no-auth-warning", *words]
        environment = {**os.environ, "REDISCLI_AUTH": PASSWORD}
        return subprocess.run(command, capture_output=True, check=False, env=environment).stdout
