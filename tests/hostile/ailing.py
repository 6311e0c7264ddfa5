"""The victim is not well: nobody answers libzmq's question who may come in, or its clock is wrong."""

from __future__ import annotations

from contextlib import ExitStack

import trio
import zmq

from mesh.core.keys import intro_key_pair
from tests.hostile.attacks import dealer
from tests.hostile.papers import untimely_papers
from tests.hostile.stage import WITHIN, Did, Stage
from tests.transport import hostile

__all__ = [
    "a_clock_set_back",
    "a_clock_set_forward",
    "a_dead_zap_handler",
    "a_denying_zap_handler",
    "a_hanging_zap_handler",
]

HOUR = 3600


async def _let_in(stage: Stage, seconds: float, *, one: bool = False) -> int:
    """How many of all sorts of handshakes succeed within that time; with ``one``, whether one does."""
    accepted = 0
    intro, _ = intro_key_pair(stage.home.credentials().mesh)
    with zmq.Context() as context, ExitStack() as stack:
        watched = []
        for endpoint, server in ((stage.intro, intro), (stage.direct, stage.link_key)):
            for _ in range(5):
                raw = stack.enter_context(dealer(context, endpoint, server))
                watched.append(stack.enter_context(raw.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)))
                stack.callback(raw.disable_monitor)
                raw.send(b"let me in", zmq.NOBLOCK)
        with trio.move_on_after(seconds):
            async with await hostile.connect(stage.broadcast) as stream:
                try:
                    await hostile.greet(stream, b"NULL")
                    await stream.send_all(b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x04XSUB")
                    accepted += b"READY" in await stream.receive_some(4096)  # else it is ERROR 400
                except trio.BrokenResourceError:
                    pass
                while not (one and any(monitor.poll(0) for monitor in watched)):  # noqa: ASYNC110 - libzmq's thread
                    await trio.sleep(0.02)
        accepted += sum(bool(monitor.poll(0)) for monitor in watched)
    return accepted


async def _ill(stage: Stage, mode: str) -> Did:
    await stage.victim(f"zap {mode}")
    accepted = await _let_in(stage, max(0.6, stage.seconds))
    await stage.victim("zap well")
    assert await _let_in(stage, WITHIN, one=True) > 0  # the question is one that has another answer
    return Did(accepted=accepted)


async def a_dead_zap_handler(stage: Stage) -> Did:
    """Nobody is bound where libzmq asks."""
    return await _ill(stage, "dead")


async def a_hanging_zap_handler(stage: Stage) -> Did:
    """Somebody is, and never answers."""
    return await _ill(stage, "hanging")


async def a_denying_zap_handler(stage: Stage) -> Did:
    """Everybody is denied; who is in stays in."""
    return await _ill(stage, "denying")


async def _with_clock(stage: Stage, seconds: float) -> Did:
    await stage.victim(f"clock {seconds}")
    did = await untimely_papers(stage)
    await trio.sleep(stage.seconds)
    await stage.victim("clock 0")
    return did


async def a_clock_set_forward(stage: Stage) -> Did:
    """By six hours, while it runs; and back. Expired and other bad papers are shown meanwhile."""
    return await _with_clock(stage, 6 * HOUR)


async def a_clock_set_back(stage: Stage) -> Did:
    return await _with_clock(stage, -6 * HOUR)
