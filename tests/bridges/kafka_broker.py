"""A real Apache Kafka broker for tests and benchmarks, in KRaft mode, alone on this machine.

There is no package of Kafka in Debian; its jars are on Maven Central. So: ``why_not()`` says why none can be
had here, or None after java, the jars and a formatted data folder are there (found, or fetched once into the
user's cache); ``Broker(folder)`` is one, on free ports, with data of its own; ``start``, ``kill``, ``stop``.

Starting a JVM is what costs: the classes that a broker loads are kept as an archive (class data sharing) beside
the jars when a first broker has been stopped, which more than halves the time of the next start.
"""

from __future__ import annotations

import datetime
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

import platformdirs
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.bridges.ports import free_ports
from tests.lab.leash import hold
from tests.lab.packages import install

__all__ = ["PASSWORD", "REQUIRED", "USER", "Broker", "why_not"]

KAFKA = "4.1.0"
JAVA = 17
"""What Kafka 4 asks for at least."""
REQUIRED = "ZEROMESH_REQUIRE_KAFKA"
"""With this set to 1 the absence of a broker is a failure, not a skip."""

USER, PASSWORD = "bridge", "canary-9f2c-never-printed"
"""The one account of the listener that asks for SASL."""

CLUSTER = "zeromeshTestsCluster0w"
"""A cluster id: 16 bytes in base64. One for all: a formatted folder can then be copied instead of made."""

START_WITHIN = 120.0
ARCHIVE_WITHIN = 120.0

POM = f"""\
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>zeromesh.tests</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""

SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{control}
listeners=PLAIN://127.0.0.1:{plain},SECURE://127.0.0.1:{secure},CONTROLLER://127.0.0.1:{control}
advertised.listeners=PLAIN://127.0.0.1:{plain},SECURE://localhost:{secure}
listener.security.protocol.map=PLAIN:PLAINTEXT,SECURE:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAIN
controller.listener.names=CONTROLLER
log.dirs={data}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=200
initial.broker.registration.timeout.ms=60000
message.max.bytes=1000000
num.network.threads=1
num.io.threads=2
background.threads=1
log.cleaner.enable=false
log.index.size.max.bytes=65536
log.segment.bytes=4194304
num.recovery.threads.per.data.dir=4
sasl.enabled.mechanisms=PLAIN
listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_{user}="{password}";
listener.name.secure.ssl.keystore.type=PEM
listener.name.secure.ssl.keystore.location={keystore}
"""


@cache
def why_not() -> str | None:
    """Why no broker can run here; None when all it needs is in the cache. Fetches it once (some 45 MB)."""
    if _java() is None and ((reason := _install()) or _java() is None):
        return f"no Java {JAVA} or later here: {reason or 'what was installed is older'}"
    try:
        _formatted()
    except OSError as error:
        return f"the jars of Kafka {KAFKA} cannot be had: {error}"
    return None


def _java() -> str | None:
    java = shutil.which("java")
    if java is None:
        return None
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', said)
    return java if version and int(version[1]) >= JAVA else None


def _install() -> str | None:
    return install("default-jre-headless", "maven")


def _cache() -> Path:
    folder = platformdirs.user_cache_path("zeromesh-tests") / f"kafka-{KAFKA}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _jars() -> Path:
    """The folder of jars; fetched beside it and renamed, so that it is whole or not there."""
    jars = _cache() / "jars"
    if jars.is_dir():
        return jars
    if shutil.which("mvn") is None and (reason := _install()):
        raise OSError(f"maven: {reason}")
    with tempfile.TemporaryDirectory(dir=_cache()) as folder:
        (Path(folder) / "pom.xml").write_text(POM, encoding="utf-8")
        command = ["mvn", "-B", "-q", "dependency:copy-dependencies", f"-DoutputDirectory={folder}/jars"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=400)
        if done.returncode != 0:
            lines = (done.stdout + done.stderr).strip().splitlines()
            raise OSError(lines[0] if lines else f"mvn exits with {done.returncode}")
        _rename(Path(folder) / "jars", jars)
    return jars


def _rename(made: Path, wanted: Path) -> None:
    try:
        made.rename(wanted)
    except OSError:
        # Another run was faster; what it made is as good.
        if not wanted.exists():
            raise


def _formatted() -> Path:
    """A data folder as ``StorageTool format`` leaves it, to be copied."""
    wanted = _cache() / "formatted"
    if wanted.is_dir():
        return wanted
    jars = _jars()
    with tempfile.TemporaryDirectory(dir=_cache()) as folder:
        settings = Path(folder) / "server.properties"
        settings.write_text(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:1\n"
            "listeners=PLAINTEXT://127.0.0.1:2,CONTROLLER://127.0.0.1:1\ncontroller.listener.names=CONTROLLER\n"
            f"log.dirs={folder}/data\n",
            encoding="utf-8",
        )
        java = _java()
        assert java is not None
        command = [
            java,
            "-cp",
            f"{jars}/*",
            "kafka.tools.StorageTool",
            "format",
            "-t",
            CLUSTER,
            "-c",
            str(settings),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode != 0:
            raise OSError(f"StorageTool: {done.stderr.strip()[-200:]}")
        _rename(Path(folder) / "data", wanted)
    return wanted


def _keystore(path: Path, authority: Path) -> None:
    """A key with a certificate for localhost, signed by itself; ``authority`` is what clients verify it with."""
    key = rsa.generate_private_key(65537, 2048)
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
    public = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + public)
    authority.write_bytes(public)


class Broker:
    """A broker with its own ``folder``. ``address`` takes anybody, ``secure`` asks for TLS and SASL PLAIN."""

    def __init__(self, folder: Path) -> None:
        hold()
        self.folder = folder
        self.plain, self.secure_port, self.control = free_ports(3)
        self.address = f"127.0.0.1:{self.plain}"
        self.secure = f"localhost:{self.secure_port}"
        self.authority = folder / "authority.pem"
        self.log = folder / "broker.log"
        self._settings = folder / "server.properties"
        self._process: subprocess.Popen[bytes] | None = None
        self._archive: Path | None = None
        shutil.copytree(_formatted(), folder / "data")
        _keystore(folder / "keystore.pem", self.authority)
        self._settings.write_text(
            SETTINGS.format(
                plain=self.plain, secure=self.secure_port, control=self.control, data=folder / "data",
                keystore=folder / "keystore.pem", user=USER, password=PASSWORD,
            ),
            encoding="utf-8",
        )  # fmt: skip

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Return when it answers a client. Fails after ``START_WITHIN`` seconds, with the end of its log."""
        assert not self.running
        java = _java()
        assert java is not None
        flags = ["-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xlog:disable"]
        archive = _cache() / "classes.jsa"
        if archive.exists():
            flags.append(f"-XX:SharedArchiveFile={archive}")
        else:
            self._archive = self.folder / "classes.jsa"
            flags.append(f"-XX:ArchiveClassesAtExit={self._archive}")
        flags.append("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [java, *flags, "-cp", f"{_jars()}/*", "kafka.Kafka", str(self._settings)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
            )
        limit = time.monotonic() + START_WITHIN
        while not self._answers():
            if not self.running or time.monotonic() > limit:
                raise AssertionError(f"the Kafka broker did not start:\n{self.log.read_text()[-3000:]}")

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.plain), timeout=1).close()
            admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
            return bool(admin.list_topics(timeout=5).brokers)
        except (OSError, KafkaException):
            time.sleep(0.05)
            return False

    def kill(self) -> None:
        """As when the power goes."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """It holds its connections and answers nobody, until ``thaw``."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it. The first one of this machine is asked to, and leaves its archive of classes for the next."""
        if self._process is None or self._process.poll() is not None:
            return
        if self._archive is None:
            self.kill()  # what it would save on its way out goes with its folder
            return
        self._process.terminate()
        try:
            self._process.wait(ARCHIVE_WITHIN)
        except subprocess.TimeoutExpired:
            self.kill()
        if self._archive.exists():
            _rename_over(self._archive, _cache() / "classes.jsa")


def _rename_over(made: Path, wanted: Path) -> None:
    """Also from another file system: copied beside it first."""
    with tempfile.NamedTemporaryFile(dir=wanted.parent, delete=False) as copy:
        copy.write(made.read_bytes())
    Path(copy.name).replace(wanted)
