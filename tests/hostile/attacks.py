"""What somebody on the same network can try with real sockets, who has no papers and sits on no path.

Each attack is a function of the stage that tells what it ``Did``; its chance comes from the stage's seed.
"""

from __future__ import annotations

import trio
import zmq

from mesh.core.keys import intro_key_pair
from mesh.transport.zmqbroadcast import PENALTY
from tests.hostile.stage import Did, Stage
from tests.transport import hostile

__all__ = [
    "a_flood_of_handshakes",
    "a_hundred_thousand_subscriptions",
    "a_stranger_subscribes",
    "dealer",
    "huge_frames",
    "long_subscriptions",
    "many_connections_subscribe",
    "other_mechanisms",
    "quiet",
    "random_keys",
    "reads",
    "sends",
    "silent_connections",
]


async def reads(stream: trio.SocketStream, seconds: float = 0.3) -> bytes:
    got = b""
    with trio.move_on_after(seconds):
        try:
            while part := await stream.receive_some(65536):
                got += part
        except trio.BrokenResourceError:
            pass
    return got


async def sends(stream: trio.SocketStream, data: bytes) -> int:
    try:
        await stream.send_all(data)
    except trio.BrokenResourceError:
        return 0  # the victim has closed, which is an answer, too
    return len(data)


async def quiet(stage: Stage) -> Did:
    """No attack, for comparison."""
    await trio.sleep(stage.seconds)
    return Did()


async def other_mechanisms(stage: Stage) -> Did:
    """NULL and PLAIN where CURVE is wanted, CURVE where NULL is."""
    sent, got = 0, b""
    for endpoint, mechanisms in (
        (stage.intro, (b"NULL", b"PLAIN")),
        (stage.direct, (b"NULL", b"PLAIN")),
        (stage.broadcast, (b"PLAIN", b"CURVE")),
    ):
        for mechanism in mechanisms:
            async with await hostile.connect(endpoint) as stream:
                await hostile.greet(stream, mechanism)
                sent += await sends(stream, b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x04XSUB")
                sent += await sends(stream, hostile.short_frame(b"\1"))
                got += await reads(stream)
    return Did(sent, got)


def dealer(context: zmq.Context[zmq.Socket[bytes]], endpoint: str, server: bytes) -> zmq.Socket[bytes]:
    public, secret = zmq.curve_keypair()
    raw = context.socket(zmq.DEALER)
    raw.linger = 0
    raw.setsockopt(zmq.CURVE_SERVERKEY, server)
    raw.setsockopt(zmq.CURVE_PUBLICKEY, public)
    raw.setsockopt(zmq.CURVE_SECRETKEY, secret)
    raw.connect(endpoint)
    return raw


async def random_keys(stage: Stage) -> Did:
    """CURVE with fresh keys on the direct plane: with a guessed server key, and with the right one."""
    sent, got = 0, b""
    with zmq.Context() as context:
        raws = [
            dealer(context, stage.direct, server)
            for server in (stage.random.randbytes(32), stage.link_key)
            for _ in range(10)
        ]
        for raw in raws:
            raw.send(b"let me in" * 100, zmq.NOBLOCK)
            sent += 900
        await trio.sleep(stage.seconds)
        for raw in raws:
            if raw.poll(0):
                got += raw.recv()
            raw.close()
    return Did(sent, got)


async def a_stranger_subscribes(stage: Stage) -> Did:
    """From an address that a peer has: to everything, and with MACs that are guesses."""
    sent = 0
    async with await hostile.connect(stage.broadcast) as stream:
        await hostile.null_handshake(stream, b"XSUB")
        for tag in (
            b"",
            b"D",
            b"S",
            stage.random.randbytes(16) + bytes(4) + stage.random.randbytes(16) + b"D",
        ):
            sent += await sends(stream, hostile.short_frame(b"\1" + tag))
        return Did(sent, await reads(stream, stage.seconds))


async def a_hundred_thousand_subscriptions(stage: Stage) -> Did:
    """As fast as they go, over as many connections as it takes."""
    return await _subscribe(stage, stage.count(100_000), 60)


async def long_subscriptions(stage: Stage) -> Did:
    """As long as they may be: libzmq keeps a node of a tree for each byte."""
    return await _subscribe(stage, stage.count(20_000), 1000)


async def many_connections_subscribe(stage: Stage) -> Did:
    """A hundred connections that all do it at the same time."""
    await trio.sleep(PENALTY)
    streams = [await hostile.connect(stage.broadcast) for _ in range(stage.count(100))]
    sent = 0

    async def flood(stream: trio.SocketStream) -> None:
        nonlocal sent
        async with stream:
            with trio.move_on_after(stage.seconds):
                try:
                    await hostile.null_handshake(stream, b"XSUB")
                    while True:
                        frame = hostile.long_frame(1001, b"\1" + stage.random.randbytes(1000))
                        await stream.send_all(frame)
                        sent += len(frame)
                except trio.BrokenResourceError:
                    pass

    async with trio.open_nursery() as nursery:
        for stream in streams:
            nursery.start_soon(flood, stream)
    return Did(sent)


async def _subscribe(stage: Stage, left: int, size: int) -> Did:
    sent = 0  # what a connection does not take counts as tried
    await trio.sleep(PENALTY)  # for the attack before this one
    with trio.move_on_after(stage.seconds):
        while left > 0:
            async with await hostile.connect(stage.broadcast) as stream:
                try:
                    await hostile.null_handshake(stream, b"XSUB")
                    while left > 0:
                        left -= 500
                        some = (stage.random.randbytes(size) for _ in range(500))
                        frames = b"".join(hostile.long_frame(1 + size, b"\1" + each) for each in some)
                        await stream.send_all(frames)
                        sent += len(frames)
                except trio.BrokenResourceError:
                    left -= 500
    return Did(sent)


async def huge_frames(stage: Stage) -> Did:
    """A gigabyte is announced on each plane, before and behind the handshake."""
    sent = 0
    for endpoint in (stage.intro, stage.direct, stage.broadcast):
        for early in (True, False):
            async with await hostile.connect(endpoint) as stream:
                if early or endpoint != stage.broadcast:
                    await hostile.greet(stream, b"NULL" if endpoint == stage.broadcast else b"CURVE")
                    head = b"\x06" + (1 << 30).to_bytes(8, "big")
                else:
                    await hostile.null_handshake(stream, b"XSUB")
                    head = hostile.long_frame(1 << 30, b"")
                sent += await sends(stream, head)
                for _ in range(16):
                    sent += await sends(stream, bytes(65536))
    server, _ = intro_key_pair(stage.home.credentials().mesh)
    with zmq.Context() as context:  # who knows the mesh's id gets through the intro plane's handshake
        for _ in range(stage.count(10)):
            raw = dealer(context, stage.intro, server)
            raw.send(bytes(16 << 20), zmq.NOBLOCK)
            sent += 16 << 20
            await trio.sleep(0.1)
            raw.close()
    return Did(sent)


async def a_flood_of_handshakes(stage: Stage) -> Did:
    """Connections that begin a CURVE handshake and go away, as many as one process can make."""
    sent, end = 0, trio.current_time() + stage.seconds
    while trio.current_time() < end:
        for endpoint in (stage.intro, stage.direct):
            async with await hostile.connect(endpoint) as stream:
                sent += await sends(stream, hostile.GREETING + b"CURVE".ljust(20, b"\0") + b"\0" + bytes(31))
                sent += await sends(stream, b"\x04\xc8\x05HELLO\x01\x00" + bytes(193))
    return Did(sent)


async def silent_connections(stage: Stage) -> Did:
    """Connections that never say a word: two hundred to each socket."""
    streams = [
        await hostile.connect(endpoint)
        for endpoint in (stage.intro, stage.direct, stage.broadcast)
        for _ in range(stage.count(200))
    ]
    await trio.sleep(stage.seconds)
    got = b""
    for stream in streams:
        got += await reads(stream, 0.001)
        await stream.aclose()
    return Did(0, got)
