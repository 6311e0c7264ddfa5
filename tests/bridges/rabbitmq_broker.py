"""A real RabbitMQ node for tests and benchmarks, alone on this machine.

``why_not()`` says why none can be had here, or None after the server was found (or installed: root and apt);
``Broker(folder)`` is a private node on free ports: its own data, log, Erlang cookie, node name and epmd, nothing
of the system's service.  ``start``, ``kill`` and ``stop`` end what they started, by process id.

A boot takes about ten seconds of one core: one node serves a whole session of tests.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from functools import cache
from pathlib import Path

import pika
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.bridges.ports import free_ports
from tests.lab.leash import hold
from tests.lab.packages import install

__all__ = ["PASSWORD", "NARROW_USER", "REQUIRED", "USER", "Broker", "certificate", "why_not"]

REQUIRED = "ZEROMESH_REQUIRE_RABBITMQ"
"""With this set to 1 the absence of a broker is a failure, not a skip."""

USER, PASSWORD = "bridge", "canary-7d1e-never-printed"
"""The account that may do everything."""

NARROW_USER = "narrow"
"""Its password is the same; it may publish at amq.topic to keys with a word that begins with ``good`` alone."""

START_WITHIN = 120.0

# Not the wrappers in /usr/sbin: those become the system's user and insist on its folders.
_PLACES = ("/usr/lib/rabbitmq/bin", "/usr/local/sbin", "/opt/rabbitmq/sbin", "/usr/local/opt/rabbitmq/sbin")

_SETTINGS = """\
listeners.tcp.1 = 127.0.0.1:{port}
listeners.ssl.1 = 127.0.0.1:{tls_port}
ssl_options.certfile = {folder}/server.pem
ssl_options.keyfile = {folder}/server.key
load_definitions = {folder}/definitions.json
vm_memory_high_watermark.absolute = 512MB
disk_free_limit.absolute = 16MB
log.console = true
log.console.level = warning
log.file = false
"""


@cache
def why_not() -> str | None:
    """Why no node can run here; None when there is a server. Installs it where root and apt are there."""
    if _scripts() is not None:
        return None
    if reason := install("rabbitmq-server"):
        return f"rabbitmq-server: {reason}"
    if shutil.which("systemctl") is not None:
        # The package starts a service of the system, which nobody asked for. (No systemd: nothing to stop.)
        command = ["systemctl", "disable", "--now", "rabbitmq-server", "epmd.socket"]
        subprocess.run(command, capture_output=True, check=False, timeout=60)
    return (
        None
        if _scripts() is not None
        else "rabbitmq-server was installed, but its scripts are not where they use to be"
    )


def _scripts() -> Path | None:
    """The folder with ``rabbitmq-server`` and ``rabbitmqctl``."""
    if shutil.which("erl") is None:
        return None
    return next((Path(place) for place in _PLACES if (Path(place) / "rabbitmq-server").exists()), None)


def certificate(folder: Path) -> None:
    """``server.pem`` and its key for localhost, signed by itself: clients verify it with the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=7))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "server.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "server.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def _definitions() -> dict[str, object]:
    """The accounts, as a node imports them when it boots (RabbitMQ's guides to definitions and passwords)."""
    salt = b"salt"
    digest = base64.b64encode(salt + hashlib.sha256(salt + PASSWORD.encode()).digest()).decode()
    users = [
        {
            "name": name,
            "password_hash": digest,
            "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": "",
        }
        for name in (USER, NARROW_USER)
    ]
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    return {
        "vhosts": [{"name": "/"}],
        "users": users,
        "permissions": [{"user": each["name"], "vhost": "/", **everything} for each in users],
        "topic_permissions": [
            {"user": NARROW_USER, "vhost": "/", "exchange": "amq.topic", "write": r"\.good", "read": ".*"}
        ],
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """It, and all that it started. Nothing is kept that a clean shutdown would save."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Broker:
    """A node with its own ``folder``; ``url`` and ``tls_url`` hold its account, ``authority`` verifies the latter."""

    def __init__(self, folder: Path) -> None:
        hold()
        self.folder = folder
        self.port, self.tls_port, distribution, self._epmd_port = free_ports(4)
        self.url = f"amqp://{USER}:{PASSWORD}@127.0.0.1:{self.port}/"
        self.tls_url = f"amqps://{USER}:{PASSWORD}@localhost:{self.tls_port}/"
        self.authority = folder / "server.pem"
        self.log = folder / "node.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        certificate(folder)
        (folder / "rabbitmq.conf").write_text(
            _SETTINGS.format(port=self.port, tls_port=self.tls_port, folder=folder), encoding="utf-8"
        )
        (folder / "definitions.json").write_text(json.dumps(_definitions()), encoding="utf-8")
        (folder / "enabled_plugins").write_text("[].\n", encoding="utf-8")
        (folder / "env.conf").touch()
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RABBITMQ_")},
            "HOME": str(folder),  # the Erlang cookie
            "RABBITMQ_NODENAME": f"zeromesh-{os.getpid()}-{self.port}@localhost",
            "RABBITMQ_CONF_ENV_FILE": str(folder / "env.conf"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_DIST_PORT": str(distribution),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # One scheduler: the node shares the machine with what is tested. Its epmd is ours to end.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +A 4 -start_epmd false",
        }

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Return when it answers a client. Fails after ``START_WITHIN`` seconds, with the end of its log."""
        assert not self.running
        scripts = _scripts()
        assert scripts is not None
        if self._epmd is None:
            self._epmd = self._spawn(["epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"])
        self._process = self._spawn([str(scripts / "rabbitmq-server")])
        limit = time.monotonic() + START_WITHIN
        while not self._answers():
            if not self.running or time.monotonic() > limit:
                text = self.log.read_text(errors="replace")[-3000:]
                self.stop()
                raise AssertionError(f"the RabbitMQ node did not start:\n{text}")
            time.sleep(0.1)

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=self._environment,
                start_new_session=True,  # a group of its own, which ends as one
            )

    def _answers(self) -> bool:
        try:
            # A bare connection first: pika logs what it cannot reach.
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            pika.BlockingConnection(pika.URLParameters(self.url)).close()
        except (OSError, pika.exceptions.AMQPError):
            return False
        return True

    def control(self, *words: str) -> str:
        """What ``rabbitmqctl`` prints: about a second."""
        scripts = _scripts()
        assert scripts is not None
        done = subprocess.run(
            [str(scripts / "rabbitmqctl"), "--quiet", *words],
            capture_output=True,
            text=True,
            env=self._environment,
            cwd=self.folder,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def kill(self) -> None:
        """As when the power goes."""
        assert self._process is not None
        _end(self._process)

    def pause(self) -> None:
        """As when the machine hangs: connections stand, and nothing is answered."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End the node and its epmd."""
        for process in (self._process, self._epmd):
            if process is not None:
                _end(process)
        self._epmd = None
