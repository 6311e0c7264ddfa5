"""``node.publish`` and ``node.publisher``: what may be sent, and that it arrives as it was sent."""

from __future__ import annotations

import datetime
import enum
import ipaddress
import math
import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
import trio

import mesh
from mesh.node.node import Node
from tests.node.meshes import PATIENCE, Meshes, background, take, values

MeshOf = Callable[..., AbstractAsyncContextManager[list[Node]]]

CARRIED: list[Any] = [
    b"",
    b"\x00\xff raw",
    "text, ✓ and \N{GRINNING FACE}",
    "",
    0,
    -1,
    2**63,
    2**200,
    -(2**200),
    1.5,
    -0.0,
    math.inf,
    True,
    False,
    None,
    [],
    [1, [2, [3, [b"4"]]]],
    {},
    {"a": {"b": [1, 2.5, None]}, b"bytes": 1},
    {"a", "b"},
    datetime.datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=datetime.UTC),
    Decimal("3.14159265358979323846"),
    Fraction(1, 3),
    uuid.UUID("12345678123456781234567812345678"),
    ipaddress.IPv4Address("192.0.2.1"),
    1 + 2j,
]


async def test_values_arrive_as_they_were(mesh_of: MeshOf) -> None:
    async with mesh_of(2) as (left, right), right.subscribe("values") as messages:
        for value in CARRIED:
            await left.publish("values", value)
        for sent, message in zip(CARRIED, await take(messages, len(CARRIED)), strict=True):
            assert message.value == sent and type(message.value) is type(sent)
            assert message.value is message.value  # decoded once
        await left.publish("values", math.nan)
        assert math.isnan((await values(messages, 1))[0])


async def test_bytes_travel_untouched(mesh_of: MeshOf) -> None:
    async with mesh_of(2) as (left, right), right.subscribe("raw") as messages:
        await left.publish("raw", b"\xa1")  # half of a CBOR map
        await left.publish("raw", bytearray(b"array"))
        await left.publish("raw", memoryview(b"view"))
        received = await take(messages, 3)
        assert [m.data for m in received] == [m.value for m in received] == [b"\xa1", b"array", b"view"]
        await left.publish("raw", "text")
        (message,) = await take(messages, 1)
        assert message.value == "text"
        assert message.data == b"\x64text"  # its CBOR


def test_a_tuple_is_a_list() -> None:
    """As in JSON; said here because it is the one value that changes its type."""
    from mesh.core.codec import decode_value, encode_value

    assert decode_value(*encode_value((1, 2))) == [1, 2]


class Colour(enum.Enum):
    RED = 1


REFUSED: list[Any] = [
    object(),
    lambda: None,
    Colour.RED,
    {1: "a key that is no text"},
    {"set": {1, 2}},
    {"nested": [{None: 0}]},
    "\ud800",
    ["\udfff"],
]


@pytest.mark.parametrize("value", REFUSED)
async def test_what_cannot_be_sent_is_refused_and_nothing_else_suffers(meshes: Meshes, value: Any) -> None:
    async with meshes.open() as node, node.subscribe("values") as messages:
        await node.publish("values", 1)
        with pytest.raises(mesh.ValueEncodingError) as caught:
            await node.publish("values", value)
        assert caught.value.type_name
        await node.publish("values", b"2")
        assert await values(messages, 2) == [1, b"2"]


async def test_a_list_that_contains_itself_is_refused(meshes: Meshes) -> None:
    value: list[Any] = []
    value.append(value)
    async with meshes.open() as node:
        with pytest.raises(mesh.ValueEncodingError):
            await node.publish("values", value)


async def test_sizes(mesh_of: MeshOf) -> None:
    async with mesh_of(2) as (left, right), right.subscribe("big") as messages:
        largest = left.config.limits.value_bytes
        headers = {"name": "x" * (left.config.limits.header_bytes - 4)}
        await left.publish("big", bytes(largest), headers=headers)
        with pytest.raises(mesh.MessageTooLarge) as caught:
            await left.publish("big", bytes(largest + 1))
        assert (caught.value.size, caught.value.limit) == (largest + 1, largest)
        await left.publish("big", b"after it")
        first, second = await take(messages, 2)
        assert (len(first.data), dict(first.headers), second.data) == (largest, headers, b"after it")


async def test_a_message_says_where_it_comes_from(mesh_of: MeshOf) -> None:
    async with mesh_of(2) as (left, right), right.subscribe("a/*") as messages:
        for value in range(3):
            await left.publish("a/b", value)
        await left.publish("a/c", 0)
        received = await take(messages, 4)
        assert [(m.topic, m.sequence) for m in received] == [("a/b", 0), ("a/b", 1), ("a/b", 2), ("a/c", 0)]
        assert {m.sender for m in received} == {right.peers[left.id]}
        stamp = datetime.datetime.fromtimestamp(received[0].timestamp, datetime.UTC)
        assert abs(datetime.datetime.now(datetime.UTC) - stamp) < datetime.timedelta(seconds=PATIENCE)
        assert "a/b #0 from node-0" in repr(received[0])


# -- headers -----------------------------------------------------------------------------


async def test_each_message_has_its_own_headers(mesh_of: MeshOf) -> None:
    async with mesh_of(2) as (left, right), right.subscribe("h") as messages:
        await left.publish("h", 0)
        await left.publish("h", 1, headers={"unit": "°C", "": "empty"})
        await left.publish("h", 2, headers={})
        await left.publish("h", 3, headers={"only": "here"})
        received = await take(messages, 4)
        assert [dict(m.headers) for m in received] == [{}, {"unit": "°C", "": "empty"}, {}, {"only": "here"}]


async def test_headers_are_copied(meshes: Meshes) -> None:
    headers = {"k": "v"}
    async with meshes.open() as node, node.subscribe("h") as messages:
        await node.publish("h", 1, headers=headers)
        headers["k"] = "changed"
        assert (await take(messages, 1))[0].headers == {"k": "v"}


@pytest.mark.parametrize(
    "headers", [{"k": 1}, {1: "v"}, ["k"], "text", {"k": "\ud800"}, {str(n): "" for n in range(65)}], ids=repr
)
async def test_headers_map_text_to_text(meshes: Meshes, headers: Any) -> None:
    async with meshes.open() as node, node.subscribe("h") as messages, node.publisher("h") as publisher:
        with pytest.raises(mesh.ValueEncodingError):
            await node.publish("h", 1, headers=headers)
        with pytest.raises(mesh.ValueEncodingError):
            await publisher.publish(1, headers)
        await node.publish("h", 2)
        assert await values(messages, 1) == [2]


async def test_headers_have_a_bound(meshes: Meshes) -> None:
    async with meshes.open() as node:
        with pytest.raises(mesh.MessageTooLarge):
            await node.publish("h", 1, headers={"k": "é" * (node.config.limits.header_bytes // 2)})


async def test_many_messages_with_full_headers(mesh_of: MeshOf) -> None:
    """Headers count towards the size of a batch: a frame that is too large would end the link."""
    headers = {f"{n:02}": "x" * 120 for n in range(60)}
    async with (
        mesh_of(2) as (left, right),
        right.subscribe("h") as messages,
        left.publisher("h") as publisher,
    ):
        for value in range(400):
            await publisher.publish(value, headers)
        assert await values(messages, 400) == list(range(400))
        assert right.statistics().lost == 0


# -- to one peer ---------------------------------------------------------------------------


async def test_to_one_peer_by_object_id_and_name(mesh_of: MeshOf) -> None:
    async with (
        mesh_of(3) as (sender, chosen, other),
        chosen.subscribe("**") as first,
        chosen.subscribe("t") as second,
        chosen.subscribe("else") as third,
        other.subscribe("**") as elsewhere,
    ):
        for value, to in enumerate([sender.peers[chosen.id], chosen.id, "node-1"]):
            await sender.publish("t", value, to=to, headers={"n": str(value)})
        for messages in (first, second):
            received = await take(messages, 3)
            assert [(m.value, m.sequence, m.headers["n"]) for m in received] == [
                (0, 0, "0"),
                (1, 1, "1"),
                (2, 2, "2"),
            ]
            assert received[0].sender.name == "node-0"
        await sender.publish("t", "all")
        assert await values(elsewhere, 1) == ["all"]
        assert third.queued == 0
        assert sender.statistics().published == 4


async def test_to_nobody(mesh_of: MeshOf) -> None:
    async with mesh_of(2) as (left, right):
        with pytest.raises(mesh.UnknownPeer) as caught:
            await left.publish("t", 1, to="nobody")
        assert caught.value.peer == "nobody"
        gone = mesh.Peer("00" * 16, "gone", "", (), "left", None)
        with pytest.raises(mesh.PeerGone):
            await left.publish("t", 1, to=gone)
        with pytest.raises(mesh.TopicError):
            await left.publish("@t", 1, to=right.id)
        with pytest.raises(mesh.MessageTooLarge):
            await left.publish("t", bytes(17 << 20), to=right.id)


async def test_two_of_one_name_are_told_apart_by_id(meshes: Meshes) -> None:
    async with meshes.open("one") as one, meshes.open("twin") as twin, meshes.open("twin"):
        with trio.fail_after(PATIENCE):
            await one.wait_for_peers(2)
        with pytest.raises(mesh.UnknownPeer, match="several"):
            await one.publish("t", 1, to="twin")
        await one.publish("t", 1, to=twin.id)


# -- topics -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "topic", ["", "/", "a//b", "a/", "/a", "a/*", "**", "a\0b", "x" * 257, None, 7, "@mesh/x"]
)
async def test_bad_topics(meshes: Meshes, topic: Any) -> None:
    async with meshes.open() as node:
        with pytest.raises(mesh.TopicError) as caught:
            await node.publish(topic, 1)
        assert caught.value.reason
        with pytest.raises(mesh.TopicError):
            node.publisher(topic)


async def test_an_at_sign_further_on_is_anybodys(meshes: Meshes) -> None:
    async with meshes.open() as node, node.subscribe("**") as messages:
        await node.publish("a/@b", 1)
        assert await values(messages, 1) == [1]


# -- publishers ---------------------------------------------------------------------------------


async def test_a_publisher(mesh_of: MeshOf) -> None:
    count = 3000
    async with mesh_of(2) as (left, right), right.subscribe("p") as messages:
        async with left.publisher("p") as publisher:
            assert publisher.topic == "p"
            for value in range(count):
                await publisher.publish(value)
            publisher.publish_nowait(b"last", {"k": "v"})
        received = await take(messages, count + 1)
        assert [m.value for m in received] == [*range(count), b"last"]
        assert [m.sequence for m in received] == list(range(count + 1))
        assert received[-1].headers == {"k": "v"}
        for refused in (publisher.publish(1),):
            with pytest.raises(mesh.NodeClosed):
                await refused
        with pytest.raises(mesh.NodeClosed):
            publisher.publish_nowait(1)


async def test_publishers_and_publish_of_one_topic_share_its_numbers(mesh_of: MeshOf) -> None:
    async with mesh_of(2) as (left, right), right.subscribe("p") as messages:
        async with left.publisher("p") as first, left.publisher("p") as second:
            await first.publish("a")
            await second.publish("b")
            await left.publish("p", "c")
        assert [(m.value, m.sequence) for m in await take(messages, 3)] == [("a", 0), ("b", 1), ("c", 2)]


async def test_flush_hands_everything_over(mesh_of: MeshOf) -> None:
    async with (
        mesh_of(2) as (left, right),
        right.subscribe("p") as messages,
        left.publisher("p") as publisher,
    ):
        publisher.publish_nowait(1)
        with trio.fail_after(PATIENCE):
            await publisher.flush()
        assert await values(messages, 1) == [1]


async def test_waiting_for_subscribers(mesh_of: MeshOf) -> None:
    async with mesh_of(3) as (left, middle, right), left.publisher("p/q") as publisher:
        waited = trio.Event()

        async def wait() -> None:
            await publisher.wait_for_subscribers(3)
            waited.set()

        async with background(wait), middle.subscribe("p/*") as first, left.subscribe("p/q") as own:
            assert not waited.is_set()
            async with right.subscribe("other"):
                assert not waited.is_set()
                async with right.subscribe("**") as second:
                    with trio.fail_after(PATIENCE):
                        await waited.wait()
                    publisher.publish_nowait("now")
                    for messages in (first, own, second):
                        assert await values(messages, 1) == ["now"]


async def test_order_across_awaits_and_tasks(mesh_of: MeshOf) -> None:
    """In order for each publisher and topic, whatever the ticks and batches."""
    async with mesh_of(2) as (left, right), right.subscribe("o/*") as messages:

        async def publish(topic: str) -> None:
            for value in range(200):
                await left.publish(topic, value)
                if value % 7 == 0:
                    await trio.lowlevel.checkpoint()

        async with background(*(lambda n=n: publish(f"o/{n}") for n in range(5))):  # type: ignore[misc]
            received = await take(messages, 1000)
        for n in range(5):
            assert [m.value for m in received if m.topic == f"o/{n}"] == list(range(200))
