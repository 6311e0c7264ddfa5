"""Somebody on the path between victim and friend, whose every byte passes through the stage's taps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack

import trio

from tests.hostile.actor import NUMBERS
from tests.hostile.attacks import reads, sends
from tests.hostile.stage import Did, Stage
from tests.hostile.tap import GREETING, Message, messages
from tests.transport import hostile

__all__ = [
    "a_replayed_link",
    "a_replayed_subscription",
    "a_stalled_copy_of_a_subscriber",
    "a_wiretap",
    "every_bit_flipped",
    "reordered_frames",
    "replayed_frames",
]

SEALED = b"ZM\x01"


async def a_wiretap(stage: Stage) -> Did:
    """Everything that has passed so far."""
    await trio.sleep(stage.seconds)
    heard = b"".join(tap.said() for taps in stage.taps.values() for tap in taps)
    assert SEALED in heard
    assert b"CURVE" in heard
    assert NUMBERS.encode() not in heard
    return Did(0, heard)


def _subscriptions(stage: Stage) -> list[bytes]:
    """What the friend subscribed at the victim, as it passed: the newest connection's."""
    [*_, newest] = [stream for stream in stage.taps["victim"][2].outbound if len(stream) > GREETING]
    found = [parts for parts in messages(bytearray(newest[GREETING:])) if len(parts) > 1]
    return [command[1] for command in found]


async def a_replayed_subscription(stage: Stage) -> Did:
    """What the friend said to subscribe is said again on a connection of one's own: sealed frames come, and no more."""
    sent, got = 0, b""
    async with await hostile.connect(stage.broadcast) as stream:
        await hostile.null_handshake(stream, b"XSUB")
        for _ in range(stage.count(200)):
            for command in _subscriptions(stage):
                if b"READY" not in command:
                    sent += await sends(stream, command)
        got += await reads(stream, stage.seconds)
    return Did(sent, got)


async def a_stalled_copy_of_a_subscriber(stage: Stage) -> Did:
    """The same, on as many connections as are to be had, by somebody who then reads nothing."""
    sent = 0
    async with AsyncExitStack() as stack:
        for _ in range(stage.count(60)):
            stream = await stack.enter_async_context(await hostile.connect(stage.broadcast))
            try:
                await hostile.null_handshake(stream, b"XSUB")
            except trio.BrokenResourceError:
                continue  # one too many from this address
            for command in _subscriptions(stage):
                if b"READY" not in command:
                    sent += await sends(stream, command)
        await trio.sleep(stage.seconds)
    return Did(sent)


async def a_replayed_link(stage: Stage) -> Did:
    """A whole recorded CURVE connection, on the direct plane and on the intro plane."""
    sent, got = 0, b""
    for tap, endpoint in zip(stage.taps["victim"][:2], (stage.intro, stage.direct), strict=True):
        for recorded in list(tap.outbound)[:4]:
            async with await hostile.connect(endpoint) as stream:
                sent += await sends(stream, bytes(recorded))
                got += await reads(stream)
    return Did(sent, got)


async def _meddled(stage: Stage, meddle: Callable[[Message], list[Message]], seconds: float) -> Did:
    """For so long, what the friend publishes goes through this."""
    tap = stage.taps["friend"][2]
    sent = 0

    def counted(message: Message) -> list[Message]:
        nonlocal sent
        made = meddle(message)
        sent += sum(len(part) for each in made for part in each)
        return made

    tap.meddle = counted
    await trio.sleep(seconds)
    tap.meddle = None
    await trio.sleep(0.1)
    return Did(sent)


async def replayed_frames(stage: Stage) -> Did:
    """Each frame again and again, and with it frames from long before."""
    past: list[Message] = []

    def meddle(message: Message) -> list[Message]:
        past.append(message)
        return [message] * 5 + [stage.random.choice(past) for _ in range(20)]

    return await _meddled(stage, meddle, stage.seconds)


async def reordered_frames(stage: Stage) -> Did:
    """Held back by eights and let go in another order."""
    held: list[Message] = []

    def meddle(message: Message) -> list[Message]:
        held.append(message)
        if len(held) < 8:
            return []
        shuffled = stage.random.sample(held, len(held))
        held.clear()
        return shuffled

    return await _meddled(stage, meddle, stage.seconds)


async def every_bit_flipped(stage: Stage) -> Did:
    """In front of a frame come all that differ from it in one bit, of its tag and of what is sealed."""
    left = stage.count(20)

    def meddle(message: Message) -> list[Message]:
        nonlocal left
        if left <= 0 or len(message) != 2:
            return [message]
        left -= 1
        made = []
        for number, part in enumerate(message):
            for bit in range(8 * len(part)):
                flipped = bytearray(part)
                flipped[bit // 8] ^= 1 << bit % 8
                made.append([*message[:number], bytes(flipped), *message[number + 1 :]])
        return [*made, message]

    did = await _meddled(stage, meddle, max(2.0, stage.seconds))
    assert left <= 0
    return did
