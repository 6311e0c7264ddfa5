"""Batches: their bounds, order, kinds and headers, and where they go."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

import mesh
from mesh.core.codec import decode_batch, decode_value, encode_batch
from mesh.core.messages import Batch
from mesh.core.router import LOCAL, Member, Route
from mesh.node.publisher import Publisher, Publishing, Stream
from tests.node.fakes import FakeOutlet, FakeTransport, as_any, nobody_waits, node

HERE = Route((1,), (), {})
EVERYWHERE = Route((1, 2), (Member(node(1), 7),), {})


def stream(outlet: FakeOutlet, transport: FakeTransport | None = None) -> tuple[Stream, Publishing]:
    publishing = Publishing(
        outlet, as_any(transport or FakeTransport()), outlet.config, nobody_waits(outlet.config)
    )
    return publishing.stream("t"), publishing


def batches(outlet: FakeOutlet) -> list[Batch]:
    return [batch for _, batch in outlet.local]


def messages(outlet: FakeOutlet) -> list[tuple[int, Any, dict[str, str]]]:
    """(sequence, value, headers) of every message that was delivered here."""
    found = []
    for batch in batches(outlet):
        for index, data in enumerate(batch.values):
            kind = batch.kinds if isinstance(batch.kinds, int) else batch.kinds[index]
            headers = (batch.headers or {}).get(index, {})
            found.append((batch.sequence + index, decode_value(kind, data), dict(headers)))
    return found


# -- bounds -------------------------------------------------------------------------------


def test_a_batch_has_512_messages() -> None:
    outlet = FakeOutlet(HERE)
    it, publishing = stream(outlet)
    flushed = [it.add(b"x", None) for _ in range(1100)]
    assert [index for index, was in enumerate(flushed) if was] == [511, 1023]
    publishing.flush()
    assert [(batch.sequence, len(batch.values)) for batch in batches(outlet)] == [
        (0, 512),
        (512, 512),
        (1024, 76),
    ]


def test_a_batch_has_64_kib() -> None:
    outlet = FakeOutlet(HERE)
    it, publishing = stream(outlet)
    for _ in range(200):
        it.add(bytes(1000), None)
    publishing.flush()
    assert {len(batch.values) for batch in batches(outlet)[:-1]} == {64}
    assert all(len(encode_batch(batch)) <= 64 << 10 for batch in batches(outlet))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([65536], [1]),
        ([65519], [1]),
        ([65520], [1]),
        ([65519, 0], [1, 1]),
        ([10, 1_000_000, 10], [1, 1, 1]),
        ([1_000_000, 1_000_000], [1, 1]),
        ([32000, 32000], [2]),
        ([32752, 32752], [2]),
        ([32752, 32753], [1, 1]),
    ],
)
def test_a_frame_holds_64_kib_or_one_message(sizes: list[int], expected: list[int]) -> None:
    outlet = FakeOutlet(HERE)
    it, publishing = stream(outlet)
    for size in sizes:
        it.add(bytes(size), None)
    publishing.flush()
    assert [len(batch.values) for batch in batches(outlet)] == expected
    assert [len(value) for batch in batches(outlet) for value in batch.values] == sizes


def test_headers_count_towards_the_size() -> None:
    outlet = FakeOutlet(HERE)
    it, publishing = stream(outlet)
    headers = {"name": "x" * 8000}
    for _ in range(40):
        it.add(b"", headers)
    publishing.flush()
    assert all(len(encode_batch(batch)) <= 64 << 10 for batch in batches(outlet))
    assert sum(len(batch.values) for batch in batches(outlet)) == 40


def test_bounds_come_from_the_config() -> None:
    outlet = FakeOutlet(HERE, mesh.Config.local(batch_messages=2, batch_bytes=100))
    it, publishing = stream(outlet)
    for size in (1, 1, 1, 90, 1):
        it.add(bytes(size), None)
    publishing.flush()
    assert [[len(value) for value in batch.values] for batch in batches(outlet)] == [[1, 1], [1], [90], [1]]


# -- order, kinds, headers -------------------------------------------------------------------

sent = st.lists(
    st.tuples(
        st.one_of(
            st.binary(max_size=40), st.integers(), st.text(max_size=20), st.none(), st.binary(min_size=90)
        ),
        st.none() | st.dictionaries(st.text(max_size=5), st.text(max_size=5), min_size=1, max_size=2),
        st.booleans(),
    ),
    max_size=40,
)


@given(sent, st.integers(1, 10), st.integers(50, 300))
def test_order_kinds_and_headers(
    sent: list[tuple[Any, dict[str, str] | None, bool]], most: int, most_bytes: int
) -> None:
    outlet = FakeOutlet(EVERYWHERE, mesh.Config.local(batch_messages=most, batch_bytes=most_bytes))
    it, publishing = stream(outlet)
    for value, headers, end_of_tick in sent:
        it.add(value, headers)
        if end_of_tick:
            publishing.flush()
    publishing.flush()
    assert messages(outlet) == [(n, value, headers or {}) for n, (value, headers, _) in enumerate(sent)]
    assert all(len(batch.values) <= most for batch in batches(outlet))
    # What goes to peers is the same, and passes their checks.
    sealed = [decode_batch(plaintext) for _, plaintext in outlet.sealed]
    assert sealed == [batch._replace(headers=batch.headers or None) for batch in batches(outlet)]
    assert publishing.published == len(sent)


def test_kinds_are_one_number_where_they_can_be() -> None:
    outlet = FakeOutlet(HERE)
    it, publishing = stream(outlet)
    for group in ([b"0", b"1"], [0, 1], [b"0", 1], [0, b"1"]):
        for value in group:
            it.add(value, None)
        publishing.flush()
    assert [batch.kinds for batch in batches(outlet)] == [0, 1, b"\0\1", b"\1\0"]


def test_a_refused_value_leaves_no_trace() -> None:
    outlet = FakeOutlet(HERE)
    it, publishing = stream(outlet)
    for good, bad in ((b"0", object()), (1, bytes(17 << 20)), (b"2", {1: 2}), (3, "\ud800")):
        it.add(good, {"n": str(good)})
        with pytest.raises((mesh.ValueEncodingError, mesh.MessageTooLarge)):
            it.add(bad, {"never": "seen"})
    publishing.flush()
    assert [(n, value) for n, value, _ in messages(outlet)] == [(0, b"0"), (1, 1), (2, b"2"), (3, 3)]
    assert all("never" not in headers for _, _, headers in messages(outlet))


def test_each_batch_has_the_time_at_which_it_was_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000_000_000_000_000
    monkeypatch.setattr("time.time_ns", lambda: now)
    outlet = FakeOutlet(HERE)
    it, publishing = stream(outlet)
    it.add(b"", None)
    now += 5_000_000
    it.add(b"", None)
    publishing.flush()
    it.add(b"", None)
    publishing.flush()
    assert [batch.timestamp for batch in batches(outlet)] == [1_000_000_000_000_000, 1_000_000_000_005_000]


# -- where batches go ---------------------------------------------------------------------------


def test_with_nobody_interested_nothing_is_sealed_but_numbers_go_on() -> None:
    outlet = FakeOutlet()
    transport = FakeTransport()
    it, publishing = stream(outlet, transport)
    it.add(b"0", None)
    publishing.flush()
    assert (outlet.local, outlet.sealed, transport.published, publishing.published) == ([], [], [], 1)
    outlet.reroute(EVERYWHERE)
    it.add(b"1", None)
    publishing.flush()
    assert messages(outlet) == [(1, b"1", {})]
    assert [tag for tag, _ in transport.published] == [b"tag t"]


def test_several_peers_cost_one_frame() -> None:
    outlet = FakeOutlet(Route((), (Member(node(1), 1), Member(node(2), 1), Member(node(2), 2)), {}))
    transport = FakeTransport()
    it, publishing = stream(outlet, transport)
    it.add(b"0", None)
    publishing.flush()
    assert len(outlet.sealed) == len(transport.published) == 1


def test_a_group_of_one_gets_whole_batches() -> None:
    outlet = FakeOutlet(Route((), (), {"g": (Member(node(1), 3),), "own": (Member(LOCAL, 5),)}))
    it, publishing = stream(outlet)
    it.add(b"0", None)
    it.add(b"1", {"k": "v"})
    publishing.flush()
    ((peer, group, batch),) = outlet.directed
    assert (peer, group, batch.values, batch.headers) == (node(1), "g", [b"0", b"1"], {1: {"k": "v"}})
    assert [(numbers, batch.values) for numbers, batch in outlet.local] == [((5,), [b"0", b"1"])]


def test_a_larger_group_gets_single_messages_with_their_own_numbers() -> None:
    members = (Member(node(1), 3), Member(node(2), 1))
    outlet = FakeOutlet(Route((), (), {"g": members}))
    it, publishing = stream(outlet)
    for n in range(3):
        it.add(n if n == 1 else b"raw", {"n": str(n)} if n else None)
    publishing.flush()
    seen = [(peer, b.sequence, b.kinds, len(b.values), b.headers) for peer, _, b in outlet.directed]
    assert seen == [
        (node(1), 0, 0, 1, None),
        (node(2), 1, 1, 1, {0: {"n": "1"}}),
        (node(1), 2, 0, 1, {0: {"n": "2"}}),
    ]


def test_directed_messages_count_for_each_peer_and_topic() -> None:
    outlet = FakeOutlet()
    _, publishing = stream(outlet)
    numbers = [
        publishing.directed(peer, topic, b"", None).sequence
        for peer, topic in ((node(1), "t"), (node(1), "t"), (node(2), "t"), (node(1), "u"))
    ]
    assert numbers == [0, 1, 0, 0]
    publishing.forget(node(1))
    assert publishing.directed(node(1), "t", b"", None).sequence == 0
    assert publishing.directed(node(2), "t", b"", None).sequence == 1


# -- publishers ------------------------------------------------------------------------------------


async def test_a_tick_is_one_batch() -> None:
    outlet = FakeOutlet(HERE)
    it, publishing = stream(outlet)
    publisher = Publisher(it, publishing)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publishing.run)
        for value in range(3):
            await publisher.publish(value)
        assert outlet.local == []
        await trio.testing.wait_all_tasks_blocked()
        assert [len(batch.values) for batch in batches(outlet)] == [3]
        publisher.publish_nowait(3)
        await trio.testing.wait_all_tasks_blocked()
        assert [len(batch.values) for batch in batches(outlet)] == [3, 1]
        nursery.cancel_scope.cancel()


async def test_publishers_wait_while_the_airlock_is_full() -> None:
    outlet = FakeOutlet(EVERYWHERE, mesh.Config.local(congestion_patience=1000))
    transport = FakeTransport(full=True)
    it, publishing = stream(outlet, transport)
    publisher = Publisher(it, publishing)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publishing.airlock.run)
        while not publishing.airlock.full:
            await publisher.publish(bytes(500_000))
        before = publishing.published
        with pytest.raises(trio.WouldBlock):
            publisher.publish_nowait(b"no room")
        with trio.move_on_after(0.01) as scope:
            await publisher.publish(b"no room")
        assert scope.cancelled_caught and publishing.published == before  # cancelled: not published
        nursery.start_soon(publisher.publish, b"waits")
        await trio.testing.wait_all_tasks_blocked()
        transport.unblock()
        with trio.fail_after(30):
            await publisher.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert publishing.published == before + 1
        nursery.cancel_scope.cancel()


async def test_flush_and_close_send_what_waits() -> None:
    outlet = FakeOutlet(HERE)
    it, publishing = stream(outlet)
    async with Publisher(it, publishing) as publisher:
        publisher.publish_nowait(b"0")
        await publisher.flush()
        assert len(outlet.local) == 1
        publisher.publish_nowait(b"1")
    assert len(outlet.local) == 2


@given(
    st.lists(
        st.sampled_from([b"", b"x", bytes(100), bytes(113), bytes(5000), bytes(70_000), "text", 1]),
        max_size=80,
    ),
    st.sampled_from([4, 512]),
)
def test_the_short_way_of_a_publisher_keeps_order_and_bounds(values: list[Any], most: int) -> None:
    outlet = FakeOutlet(HERE, mesh.Config(batch_messages=most))
    it, publishing = stream(outlet)
    publisher = Publisher(it, publishing)

    async def main() -> None:
        for value in values:
            await publisher.publish(value)
        publishing.flush()

    trio.run(main)
    assert [(number, value) for number, value, _ in messages(outlet)] == list(enumerate(values))
    for batch in batches(outlet):
        assert len(batch.values) <= most
        assert sum(map(len, batch.values)) <= 65536 or len(batch.values) == 1


async def test_a_closed_publisher_stays_closed_while_another_fills_the_batch() -> None:
    outlet = FakeOutlet(HERE)
    it, publishing = stream(outlet)
    async with Publisher(it, publishing) as closed:
        await closed.publish(b"1")
    other = Publisher(it, publishing)
    await other.publish(b"2")
    assert it.room > 0
    with pytest.raises(mesh.NodeClosed):
        await closed.publish(b"3")
    publishing.flush()
    assert [value for _, value, _ in messages(outlet)] == [b"1", b"2"]


async def test_waiting_for_subscribers() -> None:
    outlet = FakeOutlet()
    it, publishing = stream(outlet)
    publisher = Publisher(it, publishing)
    await publisher.wait_for_subscribers(0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publisher.wait_for_subscribers, 2)
        for live in (1, 2):
            await trio.testing.wait_all_tasks_blocked()
            assert nursery.child_tasks
            outlet.live = live
            outlet.changed.unpark_all()
