"""When to look at what connections have taken in: when libzmq's threads had work.

A thread that sleeps, reads two clocks and sleeps → time was spent that Trio's thread did not spend →
``watch`` calls ``look`` in Trio's thread.  Twenty looks a second by a Trio task would cost an idle node more than all
the rest of it does; the thread costs a tenth of that, and calls nobody while nothing comes in.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import trio

__all__ = ["watch"]

_LATER: Final = 0.1  # s between readings: 12 MB at 1 Gbit/s
_SOON: Final = 0.02  # s, while somebody is a suspect
_WORK: Final = 0.005  # s of the processor, in which a thread of libzmq's takes in some megabytes


@trio.lowlevel.enable_ki_protection
async def watch(look: Callable[[], bool]) -> None:
    """Call ``look``, which answers whether it is worth another call soon, until cancelled."""
    token = trio.lowlevel.current_trio_token()
    trios = time.pthread_getcpuclockid(threading.get_ident())
    going = threading.Lock()  # until it is released. (An Event's wait costs twice as much.)
    going.acquire()
    worked = trio.Event()
    near = False

    def work() -> None:
        seen = 0.0
        while not going.acquire(timeout=_SOON if near else _LATER):
            spent = time.process_time() - time.clock_gettime(trios)
            if near or spent - seen > _WORK:
                seen = spent
                try:
                    token.run_sync_soon(worked.set, idempotent=True)
                except trio.RunFinishedError:  # the node's thread ended without its leave
                    return

    thread = threading.Thread(target=work, name="zeromesh vigil", daemon=True)
    thread.start()
    try:
        while True:
            await worked.wait()
            worked = trio.Event()
            near = look()
    finally:
        going.release()
        thread.join()
