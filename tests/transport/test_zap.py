"""The gate: who is let in by which rule, and that everything else is not."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import zmq

from mesh.config import Limits
from mesh.core.pace import TokenBucket
from mesh.core.types import NodeId, node_id
from mesh.transport.zap import Gate
from mesh.transport.zmqsocket import open_context, terminate
from tests.transport.contract import Recorder

KEY = b"k" * 32
PEER = node_id(KEY)


class Asked:
    """A running gate, and libzmq's part of the conversation (RFC 27)."""

    def __init__(self, gate: Gate, events: Recorder, raw: zmq.Socket[bytes]) -> None:
        self.gate = gate
        self.events = events
        self._raw = raw

    async def send(self, *frames: bytes) -> list[bytes]:
        self._raw.send_multipart([b"", *frames])
        with trio.fail_after(30):
            while True:
                try:
                    return self._raw.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    await trio.lowlevel.checkpoint()

    async def ask(
        self, domain: bytes, mechanism: bytes, *credentials: bytes, address: bytes = b"10.0.0.1"
    ) -> bytes:
        empty, version, request, status, _, user_id, metadata = await self.send(
            b"1.0", b"7", domain, address, b"", mechanism, *credentials
        )
        assert (empty, version, request, metadata) == (b"", b"1.0", b"7", b"")
        return status + user_id


@pytest.fixture
async def asked() -> AsyncIterator[Asked]:
    context = open_context()
    gate, events = Gate(Limits(handshakes_per_second=3.0, peers=2)), Recorder()
    async with trio.open_nursery() as nursery:
        await nursery.start(gate.run, context, events)
        with context.socket(zmq.DEALER) as raw:
            raw.setsockopt(zmq.LINGER, 0)
            raw.connect("inproc://zeromq.zap.01")
            yield Asked(gate, events, raw)
        nursery.cancel_scope.cancel()
    await terminate(context)


async def test_a_key_on_the_list_gets_its_owners_name(asked: Asked) -> None:
    asked.gate.allow(PEER, KEY)
    assert await asked.ask(b"direct", b"CURVE", KEY) == b"200" + PEER.hex().encode()
    assert asked.events.seen == [(PEER, "10.0.0.1")]
    assert asked.gate.owner(PEER.hex()) == PEER
    asked.gate.disallow(PEER)
    assert await asked.ask(b"direct", b"CURVE", KEY) == b"400"
    assert asked.gate.owner(PEER.hex()) is None
    assert asked.events.rejections == {("direct", "unknown_key"): 1}


async def test_a_new_key_replaces_the_peers_old_one(asked: Asked) -> None:
    asked.gate.allow(PEER, KEY)
    asked.gate.allow(PEER, b"n" * 32)
    assert await asked.ask(b"direct", b"CURVE", KEY) == b"400"
    assert (await asked.ask(b"direct", b"CURVE", b"n" * 32))[:3] == b"200"


async def test_any_key_may_introduce_itself_at_a_bounded_rate(asked: Asked) -> None:
    answers = [await asked.ask(b"intro", b"CURVE", bytes([n]) * 32) for n in range(4)]
    assert answers == [b"200", b"200", b"200", b"300"]
    assert asked.events.rejections == {("intro", "rate"): 1}


async def test_admitted_addresses_may_subscribe(asked: Asked) -> None:
    assert await asked.ask(b"broadcast", b"NULL") == b"300"
    asked.gate.admit("10.0.0.1")
    asked.gate.admit("fe80::1%eth0")
    for address in (b"10.0.0.1", b"::ffff:10.0.0.1", b"fe80::1%eth1"):
        assert await asked.ask(b"broadcast", b"NULL", address=address) == b"200"
    for address in (b"10.0.0.2", b"", b"localhost:99999:5:123", b"\xff"):
        assert await asked.ask(b"broadcast", b"NULL", address=address) == b"300"
    asked.gate.dismiss("10.0.0.1")
    asked.gate.dismiss("10.0.0.9")
    assert await asked.ask(b"broadcast", b"NULL", address=b"10.0.0.1") == b"300"


async def test_admitted_addresses_are_bounded(asked: Asked) -> None:
    for number in range(5):
        asked.gate.admit(f"10.0.0.{number}")
    assert await asked.ask(b"broadcast", b"NULL", address=b"10.0.0.0") == b"300"
    assert await asked.ask(b"broadcast", b"NULL", address=b"10.0.0.1") == b"200"


@pytest.mark.parametrize(
    ("domain", "mechanism", "credentials"),
    [
        (b"direct", b"NULL", ()),
        (b"intro", b"NULL", ()),
        (b"direct", b"PLAIN", (b"user", b"password")),
        (b"direct", b"CURVE", ()),
        (b"direct", b"CURVE", (KEY, KEY)),
        (b"direct", b"CURVE", (b"short",)),
        (b"broadcast", b"CURVE", (KEY,)),
        (b"", b"CURVE", (KEY,)),
        (b"direct ", b"CURVE", (KEY,)),
        (b"other", b"NULL", ()),
        (b"\xff", b"NULL", ()),
    ],
)
async def test_everything_else_is_refused(
    asked: Asked, domain: bytes, mechanism: bytes, credentials: tuple[bytes, ...]
) -> None:
    asked.gate.allow(PEER, KEY)
    asked.gate.admit("10.0.0.1")
    assert await asked.ask(domain, mechanism, *credentials) == b"400"
    assert sum(asked.events.rejections.values()) == 1


async def test_another_version_is_refused(asked: Asked) -> None:
    asked.gate.allow(PEER, KEY)
    answer = await asked.send(b"2.0", b"7", b"direct", b"10.0.0.1", b"", b"CURVE", KEY)
    assert answer[3] == b"400"


async def test_a_short_request_gets_no_answer_and_breaks_nothing(asked: Asked) -> None:
    asked.gate.allow(PEER, KEY)
    asked._raw.send_multipart([b"", b"1.0", b"7", b"direct"])
    assert (await asked.ask(b"direct", b"CURVE", KEY))[:3] == b"200"


async def test_the_probe_is_refused_and_not_counted(asked: Asked) -> None:
    refused: list[bool] = []
    asked.gate.expect_probe(KEY, lambda: refused.append(True))
    assert await asked.ask(b"direct", b"CURVE", KEY) == b"400"
    assert refused
    assert not asked.events.rejections


def test_a_token_bucket() -> None:
    bucket = TokenBucket(2.0, 0.0)
    assert [bucket.take(0.0) for _ in range(3)] == [True, True, False]
    assert not bucket.take(0.4)
    assert bucket.take(0.5)
    assert [bucket.take(100.0) for _ in range(3)] == [True, True, False]


def test_nobody_disallowed_is_no_fault() -> None:
    gate = Gate(Limits())
    gate.disallow(NodeId(b"x" * 16))
    assert not gate.is_allowed(NodeId(b"x" * 16))
