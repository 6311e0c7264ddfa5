"""mDNS: what floods and forgeries come to, and how it ends."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from typing import Any

import pytest
import trio
from zeroconf import DNSPointer, DNSText, RecordUpdate  # type: ignore[attr-defined]

from mesh.config import Limits
from mesh.core.types import NodeId
from mesh.discovery import mdns_responder
from mesh.discovery.base import Candidate
from mesh.discovery.beacon import Beacon, Kind, encode, to_txt
from mesh.discovery.mdns import MdnsDiscovery
from mesh.discovery.mdns_responder import RESOLVES, SERVICE_TYPE, Responder
from mesh.discovery.mdns_thread import ResponderThread
from tests.discovery.contract import WITHIN, Sighted, announcement, held, running

KEY = b"the beacon key of this test"


class Heard:
    """A responder that no network is behind, and what came out of it."""

    def __init__(self) -> None:
        self.found: list[Candidate] = []
        self.rejected: Counter[str] = Counter()
        self.responder = Responder(KEY, Limits(), self.found.append, lambda reason: None, self.rejected)
        self.responder.want(announcement("a"), ())

    def packet(self, *records: Any) -> None:
        self.responder.async_update_records(None, 0.0, [RecordUpdate(record) for record in records])  # type: ignore[arg-type]
        self.responder.async_update_records_complete()


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(16, "big"))


def instance(of: bytes) -> str:
    return f"{of.hex()}.{SERVICE_TYPE}"


def pointer(name: str) -> DNSPointer:
    return DNSPointer(SERVICE_TYPE, 12, 1, 4500, name, 0.0)


def text(name: str, of: NodeId, key: bytes = KEY, kind: Kind = Kind.RECORD) -> DNSText:
    record = to_txt(encode(Beacon(of, ("tcp://10.0.0.1:7400",)), kind, key))
    return DNSText(name, 16, 1, 4500, record, 0.0)


def test_a_record_of_the_mesh_is_found() -> None:
    heard = Heard()
    heard.packet(pointer(instance(node(1))), text(instance(node(1)), node(1)))
    assert heard.found == [Candidate(node(1), ("tcp://10.0.0.1:7400",), "mdns")]
    assert not heard.rejected


def test_forgeries_are_counted_by_what_is_wrong() -> None:
    heard, own = Heard(), announcement("a").node
    heard.packet(text(instance(node(1)), node(1), key=b"another mesh"))
    heard.packet(text(instance(node(2)), node(1)))  # a member's beacon under another name
    heard.packet(text(instance(node(1)), node(1), kind=Kind.ANSWER))  # … or a scout's
    heard.packet(text(f"kitchen.{SERVICE_TYPE}", node(1)))
    heard.packet(DNSText(instance(node(1)), 16, 1, 4500, b"\x04spam", 0.0))
    heard.packet(text(instance(own), own))  # our own, come back
    heard.packet(pointer(f"kitchen.{SERVICE_TYPE}"))
    heard.packet(
        text("1.2._other._tcp.local.", node(1)), DNSPointer("_other._tcp.local.", 12, 1, 9, "x", 0.0)
    )
    assert not heard.found
    assert heard.rejected == {"mac": 1, "form": 2, "name": 2, "txt": 1}


def test_spoofed_records_make_no_call_and_no_state() -> None:
    heard = Heard()
    for number in range(2000):
        name = instance(node(number))
        heard.packet(pointer(name), text(name, node(number), key=b"a guess"))
    assert not heard.found
    assert heard.rejected == {"mac": 2000}
    assert not heard.responder._sightings.known()
    assert not heard.responder._unresolved


def test_20000_bare_names_are_asked_for_at_a_limited_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    heard, asked = Heard(), []

    class FakeZeroconf:
        def async_send(self, out: object) -> None:
            asked.append(out)

    class FakeAio:
        zeroconf = FakeZeroconf()

    monkeypatch.setattr(heard.responder, "_aio", FakeAio())
    monkeypatch.setattr(mdns_responder.time, "monotonic", lambda: 100.0)
    heard.packet(*(pointer(instance(node(number))) for number in range(20000)))
    assert len(asked) == RESOLVES
    assert heard.rejected == {"unresolved": 20000 - RESOLVES}


def test_nodes_that_a_member_made_up_are_cut_off_at_the_bound() -> None:
    heard = Heard()
    for number in range(2000):
        heard.packet(text(instance(node(number)), node(number)))
    assert len(heard.found) == Limits().candidates == 256
    assert heard.rejected == {"full": 2000 - 256}


async def test_what_waits_for_the_trio_thread_is_bounded() -> None:
    rejected: Counter[str] = Counter()
    thread = ResponderThread(KEY, Limits(), lambda reason: None, rejected)
    flood = threading.Thread(
        target=lambda: [
            thread._hand_over(Candidate(node(n), (f"tcp://10.0.0.1:{n}",), "mdns")) for n in range(20000)
        ]
    )
    flood.start()
    flood.join()  # the Trio thread is busy: nothing is taken meanwhile
    with trio.fail_after(WITHIN):
        taken = await thread.take()
    assert [each.node for each in taken] == [node(number) for number in range(256)]
    assert rejected == {"full": 20000 - 256}
    await thread.stop()


async def test_it_ends_at_once_even_while_it_starts() -> None:
    before = held()
    for _ in range(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(MdnsDiscovery(KEY).run, announcement("a"), Sighted())
            await trio.testing.wait_all_tasks_blocked(0.001)
            began = trio.current_time()
            nursery.cancel_scope.cancel()
        assert trio.current_time() - began < WITHIN
    assert held() == before


async def test_a_port_that_is_refused_is_a_reason_and_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(wanted: object) -> None:
        raise OSError(98, "Address already in use")

    mechanism, a = MdnsDiscovery(KEY), announcement("a")
    async with trio.open_nursery() as nursery:
        with monkeypatch.context() as patch:
            patch.setattr(mdns_responder, "_open", refused)
            status = await nursery.start(mechanism.run, a, Sighted())
        assert not status.active
        assert "in use" in status.reason
        mechanism.update(a)
        with trio.fail_after(WITHIN):
            while not mechanism.status.active:  # noqa: ASYNC110 - a state has no event
                await trio.sleep(0.005)
        nursery.cancel_scope.cancel()


async def test_a_bug_in_its_thread_costs_mdns_and_not_the_node(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(wanted: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(mdns_responder, "_open", broken)
    before = held()
    async with trio.open_nursery() as nursery:
        mechanism = MdnsDiscovery(KEY)
        with caplog.at_level(logging.CRITICAL):
            status = await nursery.start(mechanism.run, announcement("a"), Sighted())
        assert not status.active
        assert "a bug" in status.reason
        mechanism.look_again()  # into nothing
        mechanism.update(announcement("a"))
        nursery.cancel_scope.cancel()
    assert held() == before


@pytest.mark.usefixtures("multicast")
async def test_a_failing_callback_reaches_the_nursery() -> None:
    def found(candidate: Candidate) -> None:
        raise LookupError("the node's own fault")

    before = held()
    async with running(MdnsDiscovery(KEY), announcement("a")):
        with pytest.raises(ExceptionGroup) as caught, trio.fail_after(WITHIN):
            await MdnsDiscovery(KEY).run(announcement("b"), found)
    assert caught.group_contains(LookupError)
    assert held() == before
