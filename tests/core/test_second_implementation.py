"""The specification is enough: a node written from it alone joins, meets and talks to a real one."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

import mesh
from mesh.core.token import encode_token
from mesh.home import Admission, Home
from tests.core.second_implementation import CUT_OFF, INTERESTS_WANTED, PING, WINDOW_WANTED, Stranger
from tests.sources import imports

LARGE = bytes(range(256)) * (9 << 10)
"""Does not fit a frame."""


async def blocking(step: Callable[..., Any], *args: Any) -> Any:
    """A step of the stranger, which blocks, in a thread; the real node goes on meanwhile."""
    return await trio.to_thread.run_sync(step, *args)


@asynccontextmanager
async def listening(stranger: Stranger) -> AsyncIterator[None]:
    """The stranger takes in what comes, for as long as the block lasts."""
    over = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(blocking, stranger.until, lambda: over)
        try:
            yield
        finally:
            over = True


def test_it_shares_no_code_with_the_first() -> None:
    tops = {each.target.split(".")[0] for each in imports(Path("tests/core/second_implementation.py"))}
    assert tops - sys.stdlib_module_names == {"zmq", "cryptography"}


async def test_a_node_written_from_the_specification(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    credentials = home.init("den", "kitchen")
    with trio.fail_after(30):
        async with mesh.open_node(
            "kitchen",
            home=home.path,
            listen=["tcp://127.0.0.1:0"],
            discovery=(),
            config=mesh.Config.lan(backpressure_patience=60.0),
        ) as node:
            node.answer_joins(Admission(home, credentials.ca_public_key))
            token = encode_token(home.invite(endpoints=node.endpoints))
            with Stranger(token, "stranger") as stranger:
                await blocking(stranger.join)
                assert {member.name for member in home.members()} == {"kitchen", "stranger"}
                await blocking(stranger.introduce)
                await blocking(stranger.attach)
                await it_hears(node, stranger)
                await it_is_heard(node, stranger)
                await it_is_waited_for(node, stranger)
                await it_answers(node, stranger)
                await it_knows_large_values(node, stranger)
                assert node.statistics().rejected == 0
                await it_leaves(node, stranger)


async def it_hears(node: mesh.Node, stranger: Stranger) -> None:
    """It subscribes, and receives what is published from then on."""
    await blocking(stranger.want, "s", "home/*/temperature")
    await node.wait_for_peers(1)
    (peer,) = node.peers.values()
    assert (peer.id, peer.name, peer.member) == (stranger.node.hex(), "stranger", "stranger")
    assert peer.state == "alive"
    for number in range(3):
        await node.publish("home/kitchen/temperature", 21.5 + number, headers={"unit": "°C"})
        await trio.lowlevel.checkpoint()
    await blocking(stranger.until, lambda: sum(len(batch[4]) for batch in stranger.batches) == 3)
    assert {batch[0] for batch in stranger.batches} == {"home/kitchen/temperature"}
    assert [value for batch in stranger.batches for value in batch[4]] == [
        b"\xfb" + bits
        for bits in map(bytes.fromhex, ("4035800000000000", "4036800000000000", "4037800000000000"))
    ]
    assert stranger.batches[0][1] == 0  # sequence
    assert stranger.batches[0][5][0] == [0, {"unit": "°C"}]


async def it_is_heard(node: mesh.Node, stranger: Stranger) -> None:
    """It verifies the MAC of a subscription, says where it stands, echoes its barrier, and publishes to it."""
    async with listening(stranger):
        subscription = await node.subscribe("from/**").__aenter__()  # live, by the stranger's echo
    assert any(tag[:1] == b"D" for tag in stranger.subscribed)
    for number in range(3):
        await blocking(stranger.publish, "from/stranger", {"number": number})
    for number in range(3):
        message = await subscription.__anext__()
        assert (message.topic, message.value) == ("from/stranger", {"number": number})
        assert (message.sequence, message.sender.id) == (number, stranger.node.hex())
    await blocking(stranger.publish, "from/stranger", LARGE)  # in pieces
    assert (await subscription.__anext__()).value == LARGE
    (session,) = node._engine.links.sessions.values()
    assert session.settled == node._engine.subscriber.version
    await subscription.__aexit__(None, None, None)


async def it_is_waited_for(node: mesh.Node, stranger: Stranger) -> None:
    """A publisher is no further ahead than its window lets it, and gives up when it says nothing."""
    await blocking(stranger.want, "s", "slow/*", 3)
    published = 0

    async def publish() -> None:
        nonlocal published
        for number in range(8):
            await node.publish("slow/topic", number)
            published += 1

    def heard(code: int) -> int:
        return sum(message[0] == code for message in stranger.heard)

    def seen() -> int:
        return sum(len(batch[4]) for batch in stranger.batches if batch[0] == "slow/topic")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish)
        await blocking(stranger.until, lambda: seen() == 3 and heard(WINDOW_WANTED))
        assert published == 2  # the third was sent, and waits
        stranger.open_window(4, [["slow/topic", 2]])
        await blocking(stranger.until, lambda: seen() == 6)
        assert published == 5
        stranger.open_window(100, [["slow/topic", 6]])
        await blocking(stranger.until, lambda: seen() == 8)
    stranger.open_window(1, [])  # begins anew
    while node.statistics().windows[0].messages != 1:  # noqa: ASYNC110 - nothing else tells
        await trio.sleep(0.01)
    with trio.move_on_after(0.2) as scope:
        await node.publish("slow/topic", 8)
    assert scope.cancelled_caught  # it has a window of one, and says nothing
    assert not heard(CUT_OFF)


async def it_answers(node: mesh.Node, stranger: Stranger) -> None:
    """It serves a topic and answers pings; its digest is right, so nobody asks for its interests again."""
    stranger.handler = lambda topic, value: [topic, value, "done"]
    await blocking(stranger.want, "r", "stranger/jobs")
    async with listening(stranger):
        assert await node.request("stranger/jobs", 7) == ["stranger/jobs", 7, "done"]
        assert 0 < await node.ping("stranger") < 5
    heard = [message[0] for message in stranger.heard]
    assert PING in heard
    assert INTERESTS_WANTED not in heard


async def it_knows_large_values(node: mesh.Node, stranger: Stranger) -> None:
    """What does not fit a frame goes in pieces, each way on each plane."""
    stranger.batches.clear()
    await node.publish("home/hall/temperature", LARGE)
    await blocking(stranger.until, lambda: bool(stranger.batches))
    assert stranger.batches[0][4] == [LARGE]
    async with listening(stranger):
        assert await node.request("stranger/jobs", LARGE) == ["stranger/jobs", LARGE, "done"]


async def it_leaves(node: mesh.Node, stranger: Stranger) -> None:
    """It says goodbye, and is gone at once."""
    events = node.watch_peers()
    await blocking(stranger.leave)
    async for event in events:
        if isinstance(event, mesh.PeerLeft):
            assert (event.peer.name, event.why) == ("stranger", "said goodbye")
            break
    assert not node.peers
