"""Before anybody may connect: prove that the direct plane refuses strangers.

CURVE fails open: without a ZAP handler that answers, libzmq may let every key in.  So the node
dials its own direct socket with a random key and demands both halves of a refusal: its handler was
asked and said no, and the dialler was told so.  Otherwise it does not run.
"""

from __future__ import annotations

from typing import Final

import trio
import zmq
from zmq.utils import z85

from mesh.core.keys import intro_key_pair
from mesh.core.types import MeshId
from mesh.errors import TransportError
from mesh.transport.base import LinkKey
from mesh.transport.connections import HANDSHAKE_FAILURES, Monitor
from mesh.transport.endpoints import connect
from mesh.transport.zap import Gate
from mesh.transport.zmqsocket import ZmqSocket, open_socket

__all__ = ["check_libzmq", "check_strangers_are_refused"]

_PATIENCE: Final = 10.0
"""Seconds. An answer takes milliseconds; a machine that is busy starting other things may take a second or two."""


def check_libzmq(mesh_id: MeshId) -> None:
    """Raise ``TransportError`` if this libzmq cannot encrypt."""
    if not zmq.has("curve"):
        raise TransportError("zeromq", "this libzmq has no CURVE: install pyzmq's own wheel, which does")
    public, secret = intro_key_pair(mesh_id)
    if z85.decode(zmq.curve_public(z85.encode(secret))) != public:
        raise TransportError("zeromq", "this libzmq's CURVE is no Curve25519: install pyzmq's own wheel")


async def check_strangers_are_refused(
    context: zmq.Context[zmq.Socket[bytes]], gate: Gate, link: LinkKey, endpoint: str
) -> None:
    """Raise ``TransportError`` unless the direct socket bound at ``endpoint`` refuses a random key."""
    where = (
        endpoint.replace("//*:", "//127.0.0.1:")
        .replace("//0.0.0.0:", "//127.0.0.1:")
        .replace("[::]", "[::1]")
    )
    public, secret = zmq.curve_keypair()
    asked, ended = trio.Event(), trio.Event()
    events: list[int] = []
    gate.expect_probe(z85.decode(public), asked.set)

    def happened(event: int, *_: object) -> None:
        events.append(event)
        ended.set()

    raw = open_socket(context, zmq.DEALER, max_message=1024, send_queue=1, receive_queue=1)
    probe = ZmqSocket(raw)
    try:
        raw.setsockopt(zmq.CURVE_SERVERKEY, link.public)
        raw.setsockopt(zmq.CURVE_PUBLICKEY, public)
        raw.setsockopt(zmq.CURVE_SECRETKEY, secret)
        watch = Monitor(context, probe, HANDSHAKE_FAILURES | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch.run, happened)
            connect(raw, where)
            with trio.move_on_after(_PATIENCE):
                await asked.wait()
                await ended.wait()
            nursery.cancel_scope.cancel()
    finally:
        probe.close()
        gate.expect_probe(b"", asked.set)
    if zmq.EVENT_HANDSHAKE_SUCCEEDED in events:
        raise TransportError(
            endpoint, "the direct socket let a stranger's key in: not running without protection"
        )
    if zmq.EVENT_HANDSHAKE_FAILED_AUTH not in events or not asked.is_set():
        raise TransportError(
            endpoint, f"the direct socket did not answer its own test within {_PATIENCE:g} s"
        )
