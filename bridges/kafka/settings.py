"""What a Kafka bridge is set to, as librdkafka wants it.

    BridgeSettings --read--> Client --producer() / consumer()--> a table for confluent-kafka

``options`` are librdkafka's own settings by their own names, so that TLS, SASL and whatever else it knows needs no
second name here.  Some are the bridge's to decide, because what it promises hangs on them; to set one of these is
a mistake that is said at once, and so is a name or value that librdkafka does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, Producer

from bridges.settings import BridgeSettings
from mesh.errors import ConfigError

__all__ = ["Client", "check"]

OWN: Final[Mapping[str, str]] = {
    "bootstrap.servers": "the url names the brokers",
    "metadata.broker.list": "the url names the brokers",
    "group.id": "each import route has its own; name it there, as group",
    "enable.auto.commit": "offsets are committed when the mesh has the messages",
    "enable.auto.offset.store": "offsets are committed when the mesh has the messages",
    "enable.partition.eof": "the bridge has no use for it",
    "enable.idempotence": "the producer is always idempotent",
    "delivery.report.only.error": "every message is confirmed",
    "acks": "every message is confirmed by all replicas that are in sync",
    "request.required.acks": "every message is confirmed by all replicas that are in sync",
}
"""Settings that the bridge's promises hang on, and why they are not free."""

SHARED: Final[Mapping[str, Any]] = {
    # A broker that comes back is used again within a second (librdkafka: ten).
    "reconnect.backoff.max.ms": 1_000,
    # The bridge says itself what goes wrong, once; librdkafka would say it ten times a second.
    "log_level": 2,
    "client.id": "zeromesh",
}

PRODUCER: Final[Mapping[str, Any]] = {
    # A request carries what came within this time: fewer, larger ones are half the work for the broker.
    "linger.ms": 5,
    # What waits for the broker is in the bridge's spool; here are the batches under way (librdkafka: 1 GiB).
    "queue.buffering.max.kbytes": 65_536,
    "queue.buffering.max.messages": 100_000,
    # The bridge decides when a broker is gone, and sends again itself: giving up here would break the order.
    "message.timeout.ms": 0,
}

CONSUMER: Final[Mapping[str, Any]] = {
    # Fetched ahead of the mesh, for each route (librdkafka: 64 MiB).
    "queued.max.messages.kbytes": 16_384,
    # A topic that is new and matches a pattern is read within this time (librdkafka: five minutes).
    "topic.metadata.refresh.interval.ms": 10_000,
    # Where the offset that we kept is no longer there (retention passed us by): nothing that is left is skipped.
    "auto.offset.reset": "earliest",
}

CLASSIC: Final[Mapping[str, Any]] = {
    # A member that comes or goes takes over some partitions, and the rest goes on.
    "partition.assignment.strategy": "cooperative-sticky",
    # A bridge that was killed is missed after this time (librdkafka: 45 s).
    "session.timeout.ms": 10_000,
}
"""Of the classic group protocol alone: with ``group.protocol = "consumer"`` the broker decides them."""

_CONSUMER_ONLY: Final = (
    "group.", "session.timeout.ms", "heartbeat.interval.ms", "max.poll.interval.ms", "auto.", "fetch.",
    "max.partition.fetch.bytes", "partition.assignment.strategy", "isolation.level", "queued.", "check.crcs",
    "coordinator.query.interval.ms", "offset.", "consume.",
)  # fmt: skip
"""Beginnings of the settings that a producer would warn of."""

_PRODUCER_ONLY: Final = (
    "linger.ms", "queue.buffering.", "transactional.id", "transaction.timeout.ms", "compression.", "batch.",
    "message.timeout.ms", "delivery.timeout.ms", "message.send.max.retries", "retries", "partitioner", "sticky.",
    "max.in.flight", "request.timeout.ms", "enable.gapless.guarantee",
)  # fmt: skip
"""Beginnings of those that a consumer would warn of."""

_VERIFICATION: Final[Mapping[str, tuple[str, ...]]] = {
    "enable.ssl.certificate.verification": ("false", "0", "f", "no", "n"),
    "ssl.endpoint.identification.algorithm": ("none",),
}
"""How librdkafka would be told to trust whoever answers."""


@dataclass(frozen=True, slots=True)
class Client:
    """How to reach the brokers. It may hold secrets, and shows none."""

    shared: Mapping[str, Any] = field(repr=False)

    @staticmethod
    def read(settings: BridgeSettings) -> Client:
        """Raises ``ConfigError`` for what the bridge can't leave to the options."""
        options = {name: _plain(value) for name, value in settings.options.items()}
        for name in options:
            if name in OWN:
                raise ConfigError(f"is the bridge's to decide: {OWN[name]}", key=f"options.{name}")
        address = settings.address
        hosts = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in address.hosts)
        shared: dict[str, Any] = {**SHARED, "bootstrap.servers": ",".join(hosts)}
        shared["security.protocol"] = ("sasl_" if address.username else "") + (
            "ssl" if address.tls else "plaintext"
        )
        if address.username:
            shared["sasl.mechanism"] = "PLAIN"
            shared["sasl.username"] = address.username
            shared["sasl.password"] = address.password.reveal()
        if address.tls:
            for name, path in (
                ("ssl.ca.location", settings.tls.ca),
                ("ssl.certificate.location", settings.tls.certificate),
                ("ssl.key.location", settings.tls.key),
            ):
                if path is not None:
                    shared[name] = str(path)
            if not settings.verify:
                shared["enable.ssl.certificate.verification"] = "false"
        if "sasl.mechanisms" in options:
            shared.pop("sasl.mechanism", None)
        shared.update(options)
        if not address.loopback:
            _refuse_weak(shared)
        return Client(shared)

    def producer(self) -> dict[str, Any]:
        """For ``confluent_kafka.Producer``."""
        return {**PRODUCER, **self._without(_CONSUMER_ONLY), "enable.idempotence": True}

    def consumer(self, group: str) -> dict[str, Any]:
        """For ``confluent_kafka.Consumer``."""
        classic = self.shared.get("group.protocol", "classic") == "classic"
        return {
            **CONSUMER,
            **(CLASSIC if classic else {}),
            **self._without(_PRODUCER_ONLY),
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
        }

    @property
    def transactional(self) -> bool:
        return "transactional.id" in self.shared

    def hide(self, text: str) -> str:
        """``text``, unless one of the settings that may be secret stands in it."""
        for name, value in self.shared.items():
            secret = any(word in name for word in ("password", "secret", "key", "token", "sasl.", "oauth"))
            if secret and isinstance(value, str) and len(value) > 2 and value in text:
                return "(librdkafka's words hold a value of the options, and are not shown)"
        return text

    def _without(self, beginnings: tuple[str, ...]) -> dict[str, Any]:
        return {name: value for name, value in self.shared.items() if not name.startswith(beginnings)}


def check(settings: BridgeSettings) -> None:
    """Let librdkafka read its settings, without a broker to connect to. Raises ``ConfigError``."""
    client = Client.read(settings)
    for kind, table in ((Producer, client.producer()), (Consumer, client.consumer("check"))):
        del table["bootstrap.servers"]
        try:
            made = kind(table)
        except KafkaException as error:
            text = client.hide(error.args[0].str())
            guilty = next((name for name in settings.options if f'"{name}"' in text), "")
            raise ConfigError(text, key=f"options.{guilty}" if guilty else "options") from None
        if isinstance(made, Consumer):
            made.close()


def _plain(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _refuse_weak(shared: Mapping[str, Any]) -> None:
    """What would show a password to the network, or believe whoever answers."""
    if "ssl" in str(shared["security.protocol"]).lower():
        for name, off in _VERIFICATION.items():
            if str(shared.get(name, "")).lower() in off:
                raise ConfigError("only a broker on this machine may go unverified", key=f"options.{name}")
    elif shared.get("sasl.password"):
        raise ConfigError(
            "a password needs TLS unless the broker is on this machine: write kafkas://", key="url"
        )
