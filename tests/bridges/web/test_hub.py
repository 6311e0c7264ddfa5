"""One round for many clients: what each gets, by its own id and format, and what it gets no more."""

from __future__ import annotations

import json

import trio

import mesh
from bridges.web.bounds import Bounds
from bridges.web.encoding import CBOR, JSON, Format, Id
from bridges.web.hub import Hub
from bridges.web.outbox import Feed, Outbox
from tests.bridges.web.clients import PATIENCE


class Reader:
    """A client that takes what is offered while it is ``open``; the rest waits in its outbox."""

    def __init__(self, form: Format, *, is_open: bool = True) -> None:
        self.outbox = Outbox(form, 1 << 20)
        self.is_open = is_open
        self.offered: list[bytes] = []
        self.got = trio.Event()

    def offer(self, data: bytes, messages: int) -> bool:
        if not self.is_open or self.outbox:
            return False
        self.offered.append(data)
        self.got.set()
        return True

    def kick(self) -> None:
        self.got.set()


async def joined(hub: Hub, reader: Reader, identifier: Id = 1) -> Feed:
    feed = Feed(identifier, "a")
    await hub.join(feed, reader, lambda: None)
    return feed


def values(frames: bytes) -> list[object]:
    """The values in JSON frames of fewer than 126 bytes, or of fewer than 64 KiB."""
    found = []
    while frames:
        size, head = (frames[1], 2) if frames[1] < 126 else (int.from_bytes(frames[2:4]), 4)
        found.append(json.loads(frames[head : head + size])["value"])
        frames = frames[head + size :]
    return found


async def test_the_same_bytes_for_all_that_want_the_same(near: mesh.Node, far: mesh.Node) -> None:
    async with trio.open_nursery() as nursery:
        hub = Hub(near, Bounds())
        await nursery.start(hub.run)
        alike = [Reader(JSON) for _ in range(3)]
        other, binary, full = Reader(JSON), Reader(CBOR), Reader(JSON, is_open=False)
        for reader in (*alike, binary, full):
            await joined(hub, reader)
        await joined(hub, other, "x")
        await far.publish("a", "hello")
        with trio.fail_after(PATIENCE):
            for reader in (*alike, other, binary, full):
                await reader.got.wait()
        first = alike[0].offered[0]
        assert all(reader.offered[0] is first for reader in alike)
        assert b'"id":1,' in first
        assert b'"id":"x",' in other.offered[0]
        assert binary.offered[0][0] == 0x82
        assert full.outbox.take() == first
        nursery.cancel_scope.cancel()


async def test_who_left_in_the_middle_of_a_round_gets_nothing(near: mesh.Node, far: mesh.Node) -> None:
    """A round is long with many clients, and others run in between: here all but the last leave once the first is served."""
    async with trio.open_nursery() as nursery:
        hub = Hub(near, Bounds())
        await nursery.start(hub.run)
        readers = [Reader(JSON) for _ in range(200)]
        feeds = [await joined(hub, reader) for reader in readers]
        await far.publish("a", 1)
        with trio.fail_after(PATIENCE):
            await readers[0].got.wait()
        for feed in feeds[:-1]:
            hub.leave(feed)
        with trio.fail_after(PATIENCE):
            await readers[-1].got.wait()
        served = sum(bool(reader.offered or reader.outbox) for reader in readers)
        assert 1 < served < 200
        nursery.cancel_scope.cancel()


async def test_a_round_that_is_large_goes_by_the_outbox(near: mesh.Node, far: mesh.Node) -> None:
    async with trio.open_nursery() as nursery:
        hub = Hub(near, Bounds())
        await nursery.start(hub.run)
        reader = Reader(JSON)
        await joined(hub, reader)
        await far.publish("a", "x" * 100_000)
        with trio.fail_after(PATIENCE):
            await reader.got.wait()
        assert not reader.offered
        assert len(reader.outbox.take()) > 100_000
        await far.publish("a", "small")
        with trio.fail_after(PATIENCE):
            while not reader.offered:  # noqa: ASYNC110 - what is offered next
                await trio.sleep(0.001)
        assert values(reader.offered[0]) == ["small"]
        nursery.cancel_scope.cancel()
