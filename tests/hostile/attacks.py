"""What somebody on the same network can try, with real sockets. Each gives (bytes sent, bytes got back)."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from typing import Final

import trio
import zmq

from mesh.core.codec import encode_intro
from mesh.core.identity import NodeRecord, SigningKey, issue_certificate, sign_record
from mesh.core.keys import intro_key_pair
from mesh.core.messages import HelloMessage, JoinHelloMessage
from mesh.core.types import PROTOCOL_VERSIONS, mesh_id
from tests.hostile.stage import Stage
from tests.transport import hostile

__all__ = ["ATTACKS", "quiet"]

SECONDS: Final = 1.0  # that floods last
DAY: Final = 86400


async def _reads(stream: trio.SocketStream, seconds: float = 0.3) -> bytes:
    got = b""
    with trio.move_on_after(seconds):
        try:
            while part := await stream.receive_some(65536):
                got += part
        except trio.BrokenResourceError:
            pass
    return got


async def _sends(stream: trio.SocketStream, data: bytes) -> int:
    try:
        await stream.send_all(data)
    except trio.BrokenResourceError:
        return 0  # the victim has closed, which is an answer, too
    return len(data)


async def quiet(stage: Stage) -> tuple[int, bytes]:
    """No attack, for comparison."""
    await trio.sleep(SECONDS)
    return 0, b""


async def other_mechanisms(stage: Stage) -> tuple[int, bytes]:
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
                sent += await _sends(stream, b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x04XSUB")
                sent += await _sends(stream, hostile.short_frame(b"\1"))
                got += await _reads(stream)
    return sent, got


def _dealer(context: zmq.Context[zmq.Socket[bytes]], endpoint: str, server: bytes) -> zmq.Socket[bytes]:
    public, secret = zmq.curve_keypair()
    raw = context.socket(zmq.DEALER)
    raw.linger = 0
    raw.setsockopt(zmq.CURVE_SERVERKEY, server)
    raw.setsockopt(zmq.CURVE_PUBLICKEY, public)
    raw.setsockopt(zmq.CURVE_SECRETKEY, secret)
    raw.connect(endpoint)
    return raw


async def random_keys(stage: Stage) -> tuple[int, bytes]:
    """CURVE with fresh keys on the direct plane: with a guessed server key, and with the right one."""
    sent, got = 0, b""
    with zmq.Context() as context:
        raws = [
            _dealer(context, stage.direct, server)
            for server in (os.urandom(32), stage.link_key)
            for _ in range(10)
        ]
        for raw in raws:
            raw.send(b"let me in" * 100, zmq.NOBLOCK)
            sent += 900
        await trio.sleep(SECONDS)
        for raw in raws:
            if raw.poll(0):
                got += raw.recv()
            raw.close()
    return sent, got


async def a_stranger_subscribes(stage: Stage) -> tuple[int, bytes]:
    """From an address that a peer has: to everything, and with MACs that are guesses."""
    sent = 0
    async with await hostile.connect(stage.broadcast) as stream:
        await hostile.null_handshake(stream, b"XSUB")
        for tag in (b"", b"D", b"S", os.urandom(16) + bytes(4) + os.urandom(16) + b"D"):
            sent += await _sends(stream, hostile.short_frame(b"\1" + tag))
        return sent, await _reads(stream, SECONDS)


async def a_hundred_thousand_subscriptions(stage: Stage) -> tuple[int, bytes]:
    """As fast as they go, over as many connections as it takes."""
    sent, left = 0, 100_000  # what a connection does not take counts as tried
    give_up = trio.current_time() + 3 * SECONDS
    while left > 0 and trio.current_time() < give_up:
        async with await hostile.connect(stage.broadcast) as stream:
            try:
                await hostile.null_handshake(stream, b"XSUB")
                while left > 0:
                    frames = b"".join(hostile.short_frame(b"\1" + os.urandom(60)) for _ in range(500))
                    await stream.send_all(frames)
                    sent += len(frames)
                    left -= 500
            except trio.BrokenResourceError:
                left -= 500
    return sent, b""


async def huge_frames(stage: Stage) -> tuple[int, bytes]:
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
                sent += await _sends(stream, head)
                for _ in range(16):
                    sent += await _sends(stream, bytes(65536))
    return sent, b""


async def a_flood_of_handshakes(stage: Stage) -> tuple[int, bytes]:
    """Connections that begin a CURVE handshake and go away, as many as one process can make."""
    sent, end = 0, time.monotonic() + SECONDS
    while time.monotonic() < end:
        for endpoint in (stage.intro, stage.direct):
            async with await hostile.connect(endpoint) as stream:
                await stream.send_all(hostile.GREETING + b"CURVE".ljust(20, b"\0") + b"\0" + bytes(31))
                await stream.send_all(b"\x04\xc8\x05HELLO\x01\x00" + bytes(193))
                sent += 300
    return sent, b""


async def silent_connections(stage: Stage) -> tuple[int, bytes]:
    """Two hundred connections that never say a word."""
    streams = [await hostile.connect(stage.intro) for _ in range(100)]
    streams += [await hostile.connect(stage.broadcast) for _ in range(100)]
    await trio.sleep(SECONDS)
    got = b""
    for stream in streams:
        got += await _reads(stream, 0.001)
        await stream.aclose()
    return 0, got


async def _introduced(stage: Stage, messages: list[bytes]) -> tuple[int, bytes]:
    """Say these on the intro plane, as somebody who knows the mesh's id."""
    server, _ = intro_key_pair(stage.home.credentials().mesh)
    sent, got = 0, b""
    with zmq.Context() as context:
        for message in messages:
            raw = _dealer(context, stage.intro, server)
            raw.send(message, zmq.NOBLOCK)
            sent += len(message)
            with trio.move_on_after(2.0):
                while not raw.poll(0):  # noqa: ASYNC110 - libzmq's thread
                    await trio.sleep(0.01)
                got += raw.recv()
            raw.close()
    return sent, got


async def bad_papers(stage: Stage) -> tuple[int, bytes]:
    """Certificates that are expired, of the future, of another mesh or revoked, and a record signed by another."""
    now = int(time.time())
    ca = SigningKey.from_seed(bytes.fromhex(stage.home._folder.read("ca.json")["seed"]))  # type: ignore[index]
    key, other = SigningKey.from_seed(os.urandom(32)), SigningKey.from_seed(os.urandom(32))
    revoked = SigningKey.from_seed(os.urandom(32))
    stage.home.issue(revoked.public, "revoked")
    stage.home.revoke(revoked.member_id)
    await trio.sleep(4.0)  # the victim hears of it from its home

    def hello(signer: SigningKey, holder: SigningKey, begins: int, ends: int, speaker: SigningKey) -> bytes:
        certificate = issue_certificate(
            signer, public_key=holder.public, name="stranger", not_before=begins, expires=ends, serial=9
        )
        record = NodeRecord(
            mesh_id(signer.public),
            os.urandom(32),
            "stranger",
            1,
            1,
            (),
            now - 1,
            now + DAY,
            PROTOCOL_VERSIONS,
        )
        return encode_intro(HelloMessage(list(PROTOCOL_VERSIONS), certificate, sign_record(speaker, record)))

    return await _introduced(
        stage,
        [
            hello(ca, key, now - 2 * DAY, now - DAY, key),
            hello(ca, key, now + DAY, now + 2 * DAY, key),
            hello(other, key, now - DAY, now + DAY, key),
            hello(ca, revoked, now - DAY, now + DAY, revoked),
            hello(ca, key, now - DAY, now + DAY, other),
        ],
    )


async def guessed_invitations(stage: Stage) -> tuple[int, bytes]:
    """Joins with invitations that nobody made."""
    hellos = [
        encode_intro(JoinHelloMessage(os.urandom(8), os.urandom(16), os.urandom(32), "me")) for _ in range(20)
    ]
    return await _introduced(stage, hellos)


ATTACKS: Final[dict[str, Callable[[Stage], Awaitable[tuple[int, bytes]]]]] = {
    attack.__name__: attack
    for attack in (
        other_mechanisms,
        random_keys,
        a_stranger_subscribes,
        a_hundred_thousand_subscriptions,
        huge_frames,
        a_flood_of_handshakes,
        silent_connections,
        guessed_invitations,
        bad_papers,
    )
}
