"""``node.subscribe``: patterns, live once entered, overflow policies, groups, own messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

import pytest
import trio
import trio.testing

import mesh
from mesh.node.node import Node
from tests.node.meshes import PATIENCE, Meshes, background, take, until, values

MeshOf = Callable[..., AbstractAsyncContextManager[list[Node]]]

PATTERNS = [
    ("a/b", {"a/b"}),
    ("a/*", {"a/b", "a/c"}),
    ("*/b", {"a/b"}),
    ("*", {"a"}),
    ("**", {"a", "a/b", "a/c", "a/b/c/d"}),
    ("a/**", {"a", "a/b", "a/c", "a/b/c/d"}),
    ("**/c", {"a/c"}),
    ("a/**/d", {"a/b/c/d"}),
    ("a/*/*/d", {"a/b/c/d"}),
    ("a/b/c", set()),
]


async def test_patterns(mesh_of: MeshOf) -> None:
    topics = ["a", "a/b", "a/c", "a/b/c/d"]
    async with mesh_of(2) as (left, right), AsyncExitStack() as stack:
        subscriptions = [await stack.enter_async_context(right.subscribe(p)) for p, _ in PATTERNS]
        for topic in topics:
            await left.publish(topic, topic)
        async with right.subscribe("@end") as end:
            left._board.publishing.stream("@end").add(0, None)  # which no wildcard takes
            await take(end, 1)
        for messages, (pattern, expected) in zip(subscriptions, PATTERNS, strict=True):
            assert messages.pattern == pattern
            assert {m.topic for m in await take(messages, len(expected))} == expected, pattern
            with pytest.raises(trio.WouldBlock):
                messages.receive_nowait()


@pytest.mark.parametrize("pattern", ["", "a//b", "ab*", "***", "a/", 3, "x" * 257])
async def test_bad_patterns(meshes: Meshes, pattern: Any) -> None:
    async with meshes.open() as node:
        with pytest.raises(mesh.TopicError):
            node.subscribe(pattern)


async def test_it_is_live_on_every_peer_once_entered(mesh_of: MeshOf) -> None:
    async with mesh_of(4) as nodes:
        for round_ in range(5):
            for reader in nodes:
                async with reader.subscribe(f"live/{round_}/*") as messages:
                    for writer in nodes:
                        await writer.publish(f"live/{round_}/{writer.name}", round_)
                    received = await take(messages, 4)
                    assert Counter(m.sender.name for m in received) == Counter(n.name for n in nodes)


async def test_it_is_live_on_peers_that_come_later(meshes: Meshes) -> None:
    async with meshes.open("early") as early, early.subscribe("t") as messages, meshes.open("late") as late:
        with trio.fail_after(PATIENCE):
            await late.wait_for_peers(1)
            async with late.publisher("t") as publisher:
                await publisher.wait_for_subscribers(1)
                await publisher.publish("hello")
        (message,) = await take(messages, 1)
        assert (message.value, message.sender.name) == ("hello", "late")


async def test_nothing_arrives_after_leaving(mesh_of: MeshOf) -> None:
    async with mesh_of(2) as (left, right):
        async with right.subscribe("t") as messages:
            await left.publish("t", 1)
            assert await values(messages, 1) == [1]
        async with right.subscribe("other") as other:
            await left.publish("t", 2)
            await left.publish("other", 3)
            assert await values(other, 1) == [3]
        assert right.statistics().received == 2
        with pytest.raises(mesh.NodeClosed):
            await anext(messages)


async def test_subscribing_again_counts_no_loss(mesh_of: MeshOf) -> None:
    async with mesh_of(2) as (left, right), left.publisher("t") as publisher:
        for turn in range(3):
            async with right.subscribe("t") as messages:
                await publisher.publish(turn)
                assert await values(messages, 1) == [turn]
            await until(left, lambda: left._board.live_subscribers("t") == 0)
            await publisher.publish("for nobody")
            await publisher.flush()
        assert right.statistics().lost == 0


async def test_own_messages_reach_own_subscriptions(meshes: Meshes) -> None:
    async with meshes.open("alone") as node, node.subscribe("a/**") as first, node.subscribe("a/*") as second:
        await node.publish("a/b", {"n": 1}, headers={"k": "v"})
        for messages in (first, second):
            (message,) = await take(messages, 1)
            assert (message.value, message.headers, message.sequence) == ({"n": 1}, {"k": "v"}, 0)
            assert (message.sender.id, message.sender.name) == (node.id, "alone")


async def test_it_must_be_entered_and_only_once(meshes: Meshes) -> None:
    async with meshes.open() as node:
        messages = node.subscribe("t")
        with pytest.raises(RuntimeError, match="enter"):
            aiter(messages)
        async with messages:
            with pytest.raises(RuntimeError, match="once"):
                async with messages:
                    pass


async def test_two_tasks_share_a_subscription(mesh_of: MeshOf) -> None:
    received: list[int] = []
    done = trio.Event()

    async with mesh_of(2) as (left, right), right.subscribe("t") as messages:

        async def consume() -> None:
            async for message in messages:
                received.append(message.value)
                if len(received) == 2000:
                    done.set()

        async with background(consume, consume), left.publisher("t") as publisher:
            for value in range(2000):
                await publisher.publish(value)
            with trio.fail_after(PATIENCE):
                await done.wait()
    assert received == list(range(2000))


async def test_breaking_off_and_going_on(meshes: Meshes) -> None:
    async with meshes.open() as node, node.subscribe("t") as messages:
        for value in range(10):
            await node.publish("t", value)
        first = []
        async for message in messages:
            first.append(message.value)
            if message.value == 3:
                break
        assert first == [0, 1, 2, 3]
        assert await values(messages, 6) == [4, 5, 6, 7, 8, 9]


async def test_iterating_starves_nobody(meshes: Meshes) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with meshes.open() as node, node.subscribe("t") as messages, node.publisher("t") as publisher:
        for value in range(20000):
            publisher.publish_nowait(value)
        await publisher.flush()
        async with background(count):
            before = turns
            await take(messages, 20000)
            assert turns - before >= 20


# -- overflow ---------------------------------------------------------------------------


async def overflow(mesh_of: MeshOf, policy: str, published: int, buffer: int) -> tuple[Any, Any, list[Any]]:
    """Publish into a subscription that nobody reads; its statistics, the node's, and what was kept."""
    async with mesh_of(2) as (left, right), right.subscribe("t", buffer=buffer, overflow=policy) as messages:
        for value in range(published):
            await left.publish("t", value)
        await until(right, lambda: right.statistics().received == published)
        before = right.statistics()
        kept = await values(messages, buffer)
        return before.subscriptions[0], right.statistics(), kept


async def test_drop_oldest(mesh_of: MeshOf) -> None:
    subscription, node, kept = await overflow(mesh_of, "drop_oldest", 1300, 10)
    assert kept == list(range(1290, 1300))
    assert (subscription.received, subscription.dropped, subscription.queued) == (1300, 1290, 10)
    assert (node.delivered, node.dropped, node.lost) == (10, 1290, 0)


async def test_drop_newest(mesh_of: MeshOf) -> None:
    subscription, node, kept = await overflow(mesh_of, "drop_newest", 1300, 10)
    assert kept == list(range(10))
    assert (subscription.received, subscription.dropped, subscription.queued) == (1300, 1290, 10)
    assert (node.delivered, node.dropped, node.lost) == (10, 1290, 0)


async def test_raise(mesh_of: MeshOf) -> None:
    async with mesh_of(2) as (left, right), right.subscribe("t", buffer=3, overflow="raise") as messages:
        for value in range(5):
            await left.publish("t", value)
        await until(right, lambda: right.statistics().received == 5)
        assert await values(messages, 3) == [0, 1, 2]  # what fitted comes first
        with pytest.raises(mesh.Overflowed) as caught:
            await take(messages, 1)
        assert (caught.value.pattern, caught.value.dropped) == ("t", 2)
        await left.publish("t", 5)  # and it goes on
        assert await values(messages, 1) == [5]


async def test_raise_wakes_who_waits(meshes: Meshes) -> None:
    async with meshes.open() as node, node.subscribe("t", buffer=1, overflow="raise") as messages:
        caught: list[mesh.Overflowed] = []
        done = trio.Event()

        async def read() -> None:
            try:
                async for _ in messages:
                    pass
            except mesh.Overflowed as error:
                caught.append(error)
            done.set()

        async with background(read), node.publisher("t") as publisher:
            await trio.testing.wait_all_tasks_blocked()
            for value in range(600):
                publisher.publish_nowait(value)
            with trio.fail_after(PATIENCE):
                await done.wait()
        assert caught[0].dropped >= 511


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"overflow": "explode"}, "overflow"),
        ({"overflow": None}, "overflow"),
        ({"buffer": 0}, "buffer"),
        ({"buffer": -1}, "buffer"),
        ({"buffer": "many"}, "buffer"),
        ({"buffer": 1.5}, "buffer"),
        ({"history": -3}, "history"),
        ({"group": ""}, "group"),
        ({"group": "x" * 65}, "group"),
        ({"group": "a\nb"}, "group"),
        ({"group": 7}, "group"),
    ],
    ids=repr,
)
async def test_bad_options(meshes: Meshes, options: dict[str, Any], key: str) -> None:
    async with meshes.open() as node:
        with pytest.raises(mesh.ConfigError) as caught:
            node.subscribe("t", **options)
        assert caught.value.key == key and key in str(caught.value)


# -- groups -----------------------------------------------------------------------------


class Workers:
    """Members of a group, and what each received."""

    def __init__(self) -> None:
        self.received: dict[str, list[Any]] = {}
        self._changed = trio.Event()

    async def work(self, name: str, messages: Any) -> None:
        mine = self.received.setdefault(name, [])
        async for message in messages:
            mine.append(message.value)
            self._changed.set()
            self._changed = trio.Event()

    @property
    def everything(self) -> list[Any]:
        return sorted(value for values_ in self.received.values() for value in values_)

    async def until(self, count: int) -> None:
        with trio.fail_after(PATIENCE):
            while len(self.everything) < count:
                await self._changed.wait()


async def test_each_message_goes_to_one_member_of_each_group(mesh_of: MeshOf) -> None:
    workers, others = Workers(), Workers()
    async with mesh_of(3) as nodes, AsyncExitStack() as stack:
        tasks = []
        for node in nodes:
            messages = await stack.enter_async_context(node.subscribe("jobs/*", group="workers"))
            tasks.append(lambda node=node, messages=messages: workers.work(node.name, messages))
        other = await stack.enter_async_context(nodes[1].subscribe("jobs/**", group="auditors"))
        tasks.append(lambda: others.work("auditor", other))
        plain = await stack.enter_async_context(nodes[2].subscribe("**"))
        await stack.enter_async_context(background(*tasks))
        for value in range(300):
            await nodes[0].publish("jobs/x", value)
        await workers.until(300)
        await others.until(300)
        assert workers.everything == others.everything == list(range(300))
        assert [len(workers.received[node.name]) for node in nodes] == [100, 100, 100]  # by turns
        assert await values(plain, 300) == list(range(300))


async def test_members_of_a_group_within_one_node(mesh_of: MeshOf) -> None:
    workers = Workers()
    async with (
        mesh_of(2) as (left, right),
        right.subscribe("t", group="g") as first,
        right.subscribe("t", group="g") as second,
        background(lambda: workers.work("first", first), lambda: workers.work("second", second)),
    ):
        for value in range(100):
            await left.publish("t", value, headers={"n": str(value)})
        await workers.until(100)
        assert workers.everything == list(range(100))
        assert {len(mine) for mine in workers.received.values()} == {50}


async def test_messages_of_a_group_are_whole(mesh_of: MeshOf) -> None:
    async with mesh_of(2) as (left, right), right.subscribe("t", group="g") as messages:
        async with left.publisher("t") as publisher:
            await publisher.publish(b"raw", {"k": "v"})
            await publisher.publish({"n": 1})
        first, second = await take(messages, 2)
        assert (first.value, first.headers, first.sequence) == (b"raw", {"k": "v"}, 0)
        assert (second.value, second.headers, second.sequence) == ({"n": 1}, {}, 1)
        assert first.sender.name == left.name


async def test_a_member_that_leaves_gets_nothing_more(mesh_of: MeshOf) -> None:
    async with mesh_of(3) as (writer, staying, leaving), staying.subscribe("t", group="g") as messages:
        async with leaving.subscribe("t", group="g"), writer.publisher("t") as publisher:
            with trio.fail_after(PATIENCE):
                await publisher.wait_for_subscribers(2)
        await until(writer, lambda: writer._board.live_subscribers("t") == 1)
        for value in range(50):
            await writer.publish("t", value)
        assert await values(messages, 50) == list(range(50))


async def test_a_node_of_the_group_that_stops_gets_nothing_more(meshes: Meshes) -> None:
    async with meshes.open("writer") as writer, meshes.open("staying") as staying:
        async with meshes.open("leaving") as leaving, staying.subscribe("t", group="g") as messages:
            async with leaving.subscribe("t", group="g"), writer.publisher("t") as publisher:
                with trio.fail_after(PATIENCE):
                    await publisher.wait_for_subscribers(2)
                leaving_id = leaving.id
            await until(writer, lambda: leaving_id in writer.peers)
        await until(writer, lambda: leaving_id not in writer.peers)
        async with staying.subscribe("t", group="g") as messages:
            for value in range(20):
                await writer.publish("t", value)
            assert await values(messages, 20) == list(range(20))


async def test_groups_and_plain_subscriptions_of_one_pattern(mesh_of: MeshOf) -> None:
    """Overlapping interests of one node must neither double nor miscount anything."""
    async with (
        mesh_of(3) as (writer, both, plain),
        both.subscribe("t/*", group="g") as grouped,
        both.subscribe("t/*/x") as deeper,
        plain.subscribe("t/*") as messages,
    ):
        for value in range(10):
            await writer.publish("t/a", value)
        await writer.publish("t/a/x", "deep")
        assert await values(grouped, 10) == list(range(10))
        assert await values(messages, 10) == list(range(10))
        assert await values(deeper, 1) == ["deep"]
        seen = both.statistics()
        assert (seen.received, seen.delivered, seen.lost, seen.dropped) == (11, 11, 0, 0)
