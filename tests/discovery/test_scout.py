"""What strangers may send a scout, and what it costs: everything is refused, counted and bounded."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest
import trio
import trio.lowlevel

from mesh.core.types import NodeId
from mesh.discovery import scout
from mesh.discovery.beacon import BEACON_BYTES, Beacon, Kind, decode, encode
from mesh.discovery.multicast import GROUP_IPV4
from mesh.discovery.scout import ScoutDiscovery
from tests.discovery.contract import WITHIN, Sighted, announcement, held, running

KEY = b"the beacon key of this test"
PORT = 20000 + (os.getpid() + 7) % 20000

pytestmark = pytest.mark.usefixtures("multicast")


class Stranger:
    """Sends to the group on loopback, and gets answers."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        loopback = struct.pack("=4s4si", bytes(4), bytes(4), socket.if_nametoindex("lo"))
        self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, loopback)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)

    def send(self, data: bytes) -> None:
        self.socket.sendto(data, (GROUP_IPV4, PORT))

    def answers(self) -> list[bytes]:
        found = []
        while True:
            try:
                found.append(self.socket.recv(2048))
            except BlockingIOError:
                return found


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    made = Stranger()
    with made.socket:
        yield made


def question(node: bytes, *intros: str, key: bytes = KEY) -> bytes:
    return encode(Beacon(NodeId(node), intros), Kind.QUESTION, key)


async def until(mechanism: ScoutDiscovery, *words: str) -> None:
    """Wait until each of these words has been counted."""
    with trio.fail_after(WITHIN):
        while not all(mechanism.rejected[word] for word in words):  # noqa: ASYNC110 - a counter has no event
            await trio.sleep(0.002)


async def test_bad_datagrams_are_counted_by_what_is_wrong(stranger: Stranger) -> None:
    mechanism = ScoutDiscovery(KEY, port=PORT)
    async with running(mechanism, announcement("a")) as sighted:
        stranger.send(b"")
        stranger.send(b"x" * 200)
        stranger.send(b"x" * 9000)
        stranger.send(question(b"s" * 16, "tcp://10.0.0.1:1", key=b"another mesh"))
        stranger.send(encode(Beacon(NodeId(b"s" * 16), ("tcp://10.0.0.1:1",)), Kind.ANSWER, KEY))
        stranger.send(encode(Beacon(NodeId(b"s" * 16), ("tcp://10.0.0.1:1",)), Kind.RECORD, KEY))
        await until(mechanism, "size", "magic", "mac", "form")
        # Counted in order, so everything above has been read once this has been answered.
        stranger.send(question(b"q" * 16))
        with trio.fail_after(WITHIN):
            await trio.lowlevel.wait_readable(stranger.socket)
        assert mechanism.rejected == {"size": 2, "magic": 1, "mac": 1, "form": 2}
    assert not sighted.candidates


async def test_the_answer_says_who_and_is_no_longer_than_the_question(stranger: Stranger) -> None:
    a = announcement("a", *range(7400, 7408))
    async with running(ScoutDiscovery(KEY, port=PORT), a):
        asked = question(b"q" * 16)
        stranger.send(asked)
        with trio.fail_after(WITHIN):
            await trio.lowlevel.wait_readable(stranger.socket)
        (answer,) = stranger.answers()
        assert len(answer) <= len(asked) == BEACON_BYTES
        assert decode(answer, KEY) == (Kind.ANSWER, Beacon(a.node, a.intros))


async def test_loopback_and_ipc_are_told_to_this_machine_only(stranger: Stranger) -> None:
    a = announcement("a")
    everything = (*a.intros, "tcp://127.0.0.1:7400", "ipc:///run/intro")
    mechanism = ScoutDiscovery(KEY, port=PORT)
    async with running(mechanism, type(a)(a.node, everything)):
        stranger.send(question(b"q" * 16))
        with trio.fail_after(WITHIN):
            await trio.lowlevel.wait_readable(stranger.socket)
        assert decode(stranger.answers()[0], KEY)[1].intros == everything
        assert decode(mechanism._beacon(Kind.QUESTION, local=False), KEY)[1].intros == a.intros


async def test_a_replayed_question_is_answered_at_a_limited_rate(stranger: Stranger) -> None:
    mechanism = ScoutDiscovery(KEY, port=PORT)
    async with running(mechanism, announcement("a")) as sighted:
        recorded = question(b"q" * 16, "tcp://10.0.0.1:1")
        began = trio.current_time()
        sent = answered = 0
        while not mechanism.rejected["answers"]:
            for _ in range(20):
                stranger.send(recorded)
                sent += 1
            await trio.sleep(0.001)
            answered += len(stranger.answers())
            assert sent < 20000
        rate, burst = scout.ANSWERS
        assert answered <= burst + rate * (trio.current_time() - began) + 1
        # One node, however often it is heard of.
        assert len(sighted.candidates) <= 2 + (trio.current_time() - began) / 2


async def test_a_flood_of_garbage_costs_little_and_blocks_nobody_for_long(
    stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scout, "READS", (100.0, 50.0))  # so that any machine can flood
    a, b = announcement("a"), announcement("b")
    mechanism = ScoutDiscovery(KEY, port=PORT)
    async with running(mechanism, a) as sighted:
        began = trio.current_time()
        while not mechanism.rejected["rate"]:
            stranger.send(b"ZB" + os.urandom(100))  # just as fast as it is read
            await trio.lowlevel.checkpoint()
            assert trio.current_time() - began < WITHIN
        for _ in range(20000):
            stranger.send(b"ZB" + os.urandom(100))  # much faster: the kernel drops most
        rate, burst = scout.READS
        elapsed = trio.current_time() - began
        assert mechanism.rejected["mac"] <= burst + rate * elapsed + mechanism.rejected["rate"]
        async with running(ScoutDiscovery(KEY, port=PORT), b) as of_second:
            await sighted.of(b)
            await of_second.of(a)
    assert {each.node for each in sighted.candidates} == {b.node}


async def test_a_member_that_makes_nodes_up_is_bounded(stranger: Stranger) -> None:
    mechanism = ScoutDiscovery(KEY, port=PORT)
    async with running(mechanism, announcement("a")) as sighted:
        for number in range(1, 100000):
            stranger.send(question(number.to_bytes(16, "big"), "tcp://10.0.0.1:1"))
            if number % 20 == 0:
                await trio.sleep(0.005)
            if mechanism.rejected["full"] >= 100:
                break
        assert len({each.node for each in sighted.candidates}) == 256


async def test_a_port_that_cannot_be_had_is_a_reason_and_is_tried_again() -> None:
    before = held()
    mechanism, port = ScoutDiscovery(KEY, port=PORT + 1), PORT + 1
    async with trio.open_nursery() as nursery:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as four,
            socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as six,
        ):
            six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            four.bind(("", port))
            six.bind(("::", port))
            sighted = Sighted()
            status = await nursery.start(mechanism.run, announcement("a"), sighted)
            assert not status.active
            assert f"UDP port {port}" in status.reason
            assert "in use" in status.reason
        mechanism.look_again()
        async with running(ScoutDiscovery(KEY, port=port), announcement("b")):
            await sighted.of(announcement("b"))
            assert mechanism.status.active
        nursery.cancel_scope.cancel()
    assert held() == before


async def test_its_own_questions_coming_back_show_that_multicast_works() -> None:
    mechanism = ScoutDiscovery(KEY, port=PORT)
    async with running(mechanism, announcement("a")):
        with trio.fail_after(WITHIN):
            while not mechanism.echoes:  # noqa: ASYNC110 - a counter has no event
                await trio.sleep(0.002)
    assert not mechanism.rejected


async def test_looking_again_without_end_asks_at_a_limited_rate() -> None:
    first, second = ScoutDiscovery(KEY, port=PORT), ScoutDiscovery(KEY, port=PORT)
    async with running(first, announcement("a")), running(second, announcement("b")):
        before, began = first.echoes, trio.current_time()
        with trio.move_on_after(0.5):
            while True:
                first.look_again()
                await trio.lowlevel.checkpoint()
        rounds = (trio.current_time() - began) / scout.MIN_GAP + 1
        assert first.echoes - before <= rounds * 3 * max(1, len(first._interfaces))
