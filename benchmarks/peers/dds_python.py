"""cyclonedds with blocking calls: two participants on loopback, reliable and keep-all, so that a writer waits rather than
loses; requests as two topics, as DDS programs do them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.adapter import Adapter, Control
from benchmarks.workload import Asker, Meter, Unsupported, Workload

__all__ = ["ADAPTERS"]

_ASK_STOP = 0.1
"""Seconds after which a sink that hears nothing looks whether it shall stop."""

_CONFIGURATION = """
<CycloneDDS><Domain>
  <General><Interfaces><NetworkInterface name="lo" multicast="false"/></Interfaces><AllowMulticast>false</AllowMulticast></General>
  <Discovery><ParticipantIndex>auto</ParticipantIndex><Peers><Peer address="127.0.0.1"/></Peers></Discovery>
</Domain></CycloneDDS>
"""


class _Domain:
    """A participant, and readers and writers of bytes."""

    def __init__(self, number: int) -> None:
        os.environ["CYCLONEDDS_URI"] = (
            _CONFIGURATION  # read when the first participant of the process is made
        )
        from dataclasses import make_dataclass

        from cyclonedds.core import Policy, Qos
        from cyclonedds.domain import DomainParticipant
        from cyclonedds.idl import IdlStruct
        from cyclonedds.idl.types import sequence, uint8
        from cyclonedds.util import duration

        self.number = number
        self.Blob: Any = make_dataclass(
            "Blob", [("data", sequence[uint8])], bases=(IdlStruct,), namespace={"__module__": __name__}
        )
        self._qos = Qos(Policy.Reliability.Reliable(duration(seconds=10)), Policy.History.KeepAll)
        self._participant = DomainParticipant(number)
        self._patience = duration(seconds=_ASK_STOP)

    def _topic(self, name: str) -> Any:
        from cyclonedds.topic import Topic

        return Topic(self._participant, name, self.Blob, qos=self._qos)

    def writer(self, name: str) -> Any:
        from cyclonedds.pub import DataWriter

        return DataWriter(self._participant, self._topic(name), qos=self._qos)

    def reader(self, name: str) -> Any:
        from cyclonedds.sub import DataReader

        return DataReader(self._participant, self._topic(name), qos=self._qos)

    def samples(self, reader: Any, control: Control) -> Iterator[Any]:
        """What arrives, until the harness says stop."""
        while not control.stop.is_set():
            yield from reader.take_iter(timeout=self._patience)


def _matched(control: Control, *ends: Any) -> None:
    """Return when each writer has its reader and each reader its writer, or on ``control.stop``."""
    for end in ends:
        ask = getattr(end, "get_matched_subscriptions", None) or end.get_matched_publications
        while not ask() and not control.stop.wait(0.01):
            pass


@contextmanager
def _domain(control: Control) -> Iterator[_Domain]:
    """The first role's process chooses the domain: its ports follow from the number."""
    yield _Domain(control.details.get("domain", 1 + os.getpid() % 200))
    control.close.wait()


def _publisher(control: Control, workload: Workload) -> None:
    with _domain(control) as domain:
        writer = domain.writer("way")
        control.listening({"domain": domain.number})
        _matched(control, writer)
        control.ready()
        message, write = domain.Blob(data=workload.payload()), writer.write
        control.go.wait()
        with control.measured():
            for _ in range(workload.total):
                write(message)
        control.done({"sent": workload.total})


def _subscriber(control: Control, workload: Workload) -> None:
    meter = Meter(workload)
    with _domain(control) as domain:
        reader = domain.reader("way")
        _matched(control, reader)
        control.ready()
        seen, mark = 0, meter.first
        with control.measured():
            for _ in domain.samples(reader, control):
                seen += 1
                if seen == mark:
                    mark = meter.stamp(seen)
                    if not mark:
                        break
        control.done({"received": seen, "stamps": meter.stamps})


def _server(control: Control, workload: Workload) -> None:
    served = 0
    with _domain(control) as domain:
        asked, answers = domain.reader("ask"), domain.writer("answer")
        control.listening({"domain": domain.number})
        _matched(control, asked, answers)
        control.ready()
        with control.measured():
            for request in domain.samples(asked, control):
                answers.write(request)
                served += 1
        control.done({"served": served})


def _client(control: Control, workload: Workload) -> None:
    if workload.kind == "inflight":
        raise Unsupported("requests are two topics, and which reply is whose is the program's affair")
    asker = Asker(workload)
    with _domain(control) as domain:
        asks, answered = domain.writer("ask"), domain.reader("answer")
        _matched(control, asks, answered)
        replies = domain.samples(answered, control)

        def ask(data: bytes) -> bytes:
            asks.write(domain.Blob(data=data))
            return bytes(next(replies).data)

        control.ready()
        control.go.wait()
        with control.measured():
            asker.one_by_one_blocking(ask)
        control.done(asker.numbers())


ADAPTERS = [
    Adapter(
        "cyclonedds",
        "cyclonedds",
        sealed=False,
        roles={"publisher": _publisher, "subscriber": _subscriber, "server": _server, "client": _client},
        distributions=("cyclonedds",),
        modules=("cyclonedds",),
        share=0.2,
    )
]
