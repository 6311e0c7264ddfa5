"""Disconnecting a publisher whose message has just been looked at: libzmq must not be left with half of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing
import zmq

from mesh.config import Config, Limits
from mesh.core.types import NodeId
from mesh.transport.base import IntroRoute, TransportEvents, Verdict
from mesh.transport.zap import Gate
from mesh.transport.zmqbroadcast import BroadcastPlane
from mesh.transport.zmqsocket import open_context, terminate

PEER = NodeId(b"p" * 16)


class Heard(TransportEvents):
    """What the plane brought."""

    def __init__(self) -> None:
        self.frames: list[tuple[bytes, bytes]] = []
        self.came = trio.Event()

    def broadcast_received(self, frames: Sequence[tuple[bytes, bytes]]) -> None:
        self.frames += frames
        self.came.set()

    def intro_received(self, route: IntroRoute, frame: bytes, host: str) -> None: ...
    def intro_failed(self, route: IntroRoute, reason: str) -> None: ...
    def direct_seen(self, sender: NodeId, host: str) -> None: ...
    def direct_received(self, sender: NodeId, frames: Sequence[bytes]) -> None: ...
    def rejected(self, plane: str, reason: str, count: int) -> None: ...
    def subscription_received(self, body: bytes) -> Verdict:
        return Verdict(None)


@pytest.mark.parametrize("pumped", [False, True], ids=["awake", "asleep"])
async def test_a_message_looked_at_survives_the_disconnection(pumped: bool) -> None:
    """Without care libzmq aborts the whole process here: ``Assertion failed: !_more (src/fq.cpp)``."""
    context, heard = open_context(), Heard()
    try:
        async with trio.open_nursery() as nursery:
            publisher = context.socket(zmq.XPUB)
            publisher.setsockopt(zmq.LINGER, 0)
            port = publisher.bind_to_random_port("tcp://127.0.0.1")
            plane = BroadcastPlane(context, nursery, Config.local(), heard, Gate(Limits()))
            if pumped:
                nursery.start_soon(plane.run_subscriber)
                await trio.testing.wait_all_tasks_blocked()
            plane.subscribe(b"tag")
            plane.connect(PEER, f"tcp://127.0.0.1:{port}")
            with trio.fail_after(10):
                assert await trio.to_thread.run_sync(publisher.recv) == b"\1tag"
            publisher.send_multipart([b"tag one", b"frame"])
            assert plane.xsub.raw.poll(10_000)  # blocks, so that nobody takes it meanwhile
            plane.disconnect(PEER)
            if pumped:
                with trio.fail_after(10):
                    await heard.came.wait()
            else:
                plane._drain_frames()
            assert heard.frames == [(b"tag one", b"frame")]
            plane.close()
            publisher.close()
            nursery.cancel_scope.cancel()
    finally:
        await terminate(context)
