"""zenoh-python: two peers over TCP or TLS on loopback, multicast and shared memory off.

Publications wait for a slow subscriber (``CongestionControl.BLOCK``), so that nothing is lost.  A sample's payload is not
touched, as our subscriber touches none.  With TLS the server shows a certificate of a fresh CA, and the client is
not asked for one.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

from benchmarks.adapter import Adapter, Control, RoleFunction, free_port
from benchmarks.workload import IN_FLIGHT, Asker, Meter, Role, Workload

__all__ = ["ADAPTERS"]

_KEY = "bench/one"
_QUEUE = 2_000_000
"""Samples that a subscriber's queue holds: a whole run, as for the others."""


def _certificate(folder: Path) -> None:
    """A key and a self-signed certificate for 127.0.0.1."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def _open(settings: dict[str, Any]) -> Any:
    import zenoh

    config = zenoh.Config()
    quiet = {
        "mode": "peer",
        "scouting/multicast/enabled": False,
        "scouting/gossip/enabled": False,
        "transport/shared_memory/enabled": False,
    }
    for key, value in {**quiet, **settings}.items():
        config.insert_json5(key, json.dumps(value))
    return zenoh.open(config)


@contextmanager
def _first(*, tls: bool) -> Iterator[tuple[Any, dict[str, Any]]]:
    with tempfile.TemporaryDirectory(prefix="zenoh-bench-") as folder:
        endpoint = f"{'tls' if tls else 'tcp'}/127.0.0.1:{free_port()}"
        settings: dict[str, Any] = {"listen/endpoints": [endpoint]}
        if tls:
            _certificate(Path(folder))
            settings["transport/link/tls"] = {
                "listen_certificate": f"{folder}/certificate.pem",
                "listen_private_key": f"{folder}/key.pem",
            }
        with _open(settings) as session:
            yield session, {"endpoint": endpoint, "ca": f"{folder}/certificate.pem" if tls else None}


def _second(control: Control) -> Any:
    settings: dict[str, Any] = {
        "connect/endpoints": [control.details["endpoint"]],
        "listen/endpoints": [],
    }
    if control.details["ca"]:
        settings["transport/link/tls"] = {"root_ca_certificate": control.details["ca"]}
    return _open(settings)


def _publisher(control: Control, workload: Workload, *, tls: bool) -> None:
    import zenoh

    data, total = workload.payload(), workload.total
    with _first(tls=tls) as (session, details):
        publisher = session.declare_publisher(_KEY, congestion_control=zenoh.CongestionControl.BLOCK)
        matched = Event()
        listener = publisher.declare_matching_listener(lambda status: matched.set())
        control.listening(details)
        matched.wait()
        control.ready()
        control.go.wait()
        put = publisher.put
        with control.measured():
            for _ in range(total):
                put(data)
        control.done({"sent": total})
        control.close.wait()
        listener.undeclare()


def _subscriber(control: Control, workload: Workload) -> None:
    import zenoh

    meter = Meter(workload)
    with _second(control) as session:
        subscriber = session.declare_subscriber(_KEY, zenoh.handlers.FifoChannel(_QUEUE))

        def stop() -> None:
            control.stop.wait()
            subscriber.undeclare()

        Thread(target=stop, daemon=True).start()
        control.ready()
        seen, mark = 0, meter.first
        with control.measured():
            try:
                for _ in subscriber:
                    seen += 1
                    if seen == mark:
                        mark = meter.stamp(seen)
                        if not mark:
                            break
            except zenoh.ZError:
                pass  # undeclared: told to stop
        control.done({"received": seen, "stamps": meter.stamps})
        control.close.wait()


def _server(control: Control, workload: Workload, *, tls: bool) -> None:
    served = 0

    def answer(query: Any) -> None:
        nonlocal served
        query.reply(_KEY, query.payload.to_bytes())
        served += 1

    with _first(tls=tls) as (session, details):
        queryable = session.declare_queryable(_KEY, answer)
        control.listening(details)
        control.ready()
        with control.measured():
            control.stop.wait()
        control.done({"served": served})
        control.close.wait()
        queryable.undeclare()


def _client(control: Control, workload: Workload) -> None:
    asker = Asker(workload)
    with _second(control) as session:

        def begin(data: bytes) -> Any:
            return session.get(_KEY, payload=data)

        def end(replies: Any) -> bytes:
            return bytes(replies.recv().ok.payload.to_bytes())

        def ask(data: bytes) -> bytes:
            return end(begin(data))

        while True:  # until the queryable is known here
            first = begin(asker.data).try_recv() or next(iter(begin(asker.data)), None)
            if first is not None and first.ok is not None:
                break
        control.ready()
        control.go.wait()
        with control.measured():
            if workload.kind == "inflight":
                _many(asker, begin, end)
            else:
                asker.one_by_one_blocking(ask)
        control.done(asker.numbers())
        control.close.wait()


def _many(asker: Asker, begin: Any, end: Any) -> None:
    """As many gets under way as it takes, without a thread for each: the oldest is waited for."""
    under_way: deque[tuple[int, Any]] = deque()
    for _ in range(asker.workload.total):
        if len(under_way) == IN_FLIGHT:
            asker.took(*_finish(under_way, end))
        under_way.append((asker.now(), begin(asker.data)))
    while under_way:
        asker.took(*_finish(under_way, end))


def _finish(under_way: deque[tuple[int, Any]], end: Any) -> tuple[int, bytes]:
    began, replies = under_way.popleft()
    return began, end(replies)


def _roles(*, tls: bool) -> dict[Role, RoleFunction]:
    return {
        "publisher": partial(_publisher, tls=tls),
        "subscriber": _subscriber,
        "server": partial(_server, tls=tls),
        "client": _client,
    }


_NEEDS = (("eclipse-zenoh",), ("zenoh",))

ADAPTERS = [
    Adapter("zenoh", "zenoh-python, TCP", False, _roles(tls=False), *_NEEDS),
    Adapter("zenoh-tls", "zenoh-python, TLS", True, _roles(tls=True), *_NEEDS),
]
