"""A bad cable between a host and the switch: loss, delay and jitter, seeded; where the kernel has no ``tc netem``.

    python -m tests.lab.cable TAP TAP SEED

Two TAP devices, and every frame that comes out of one goes into the other, unless it is lost. ``set LOSS DELAY JITTER``
on standard input (a share, seconds, seconds) says how bad it is from now on; frames may overtake each other within the
jitter. It says ``ready``, and at the end how many frames it passed and lost.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import select
import struct
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from random import Random

from tests.lab.netns import Host, _ip
from tests.lab.process import Running, running

__all__ = ["cable", "worsen"]

_numbers = count(1)
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000  # <linux/if_tun.h>


@asynccontextmanager
async def cable(host: Host, *, seed: int = 1) -> AsyncIterator[Running]:
    """``host`` hangs on such a cable for as long as the block lasts. It is a good one until ``worsen``."""
    inner, outer = (f"zc{os.getpid()}{side}{next(_numbers)}" for side in "ab")
    argv = [sys.executable, "-m", "tests.lab.cable", inner, outer, str(seed)]
    async with running(argv) as program:
        await program.expect("^ready$", within=30.0)
        host.remove_interface()
        _ip("link", "set", inner, "netns", host.namespace, "name", "eth0")
        _ip("link", "set", outer, "netns", host.lan._namespace, "name", host.port)
        host.lan._switch(f"link set {host.port} master br0 up")
        host._port(f"mcast_flood {host.lan._flood}")
        host._make()
        host.lan._settle(host)
        yield program


async def worsen(program: Running, *, loss: float = 0.0, delay: float = 0.0, jitter: float = 0.0) -> None:
    """From now on the cable is that bad."""
    await program.send(f"set {loss} {delay} {jitter}\n")
    await program.expect(f"^is {loss} {delay} {jitter}$", within=30.0)


def _tap(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return device


def main() -> None:
    ends = [_tap(name) for name in sys.argv[1:3]]
    chance = Random(int(sys.argv[3]))
    loss = delay = jitter = 0.0
    on_the_way: list[tuple[float, int, int, bytes]] = []
    order = passed = lost = 0
    poll = select.poll()
    for each in (*ends, 0):
        poll.register(each, select.POLLIN)
    print("ready", flush=True)
    while True:
        wait = max(0.0, on_the_way[0][0] - time.monotonic()) * 1000 if on_the_way else None
        for ready, _ in poll.poll(wait):
            if ready == 0:
                words = os.read(0, 4096).decode().split()
                if not words:
                    print(f"passed {passed} lost {lost}", flush=True)
                    return
                loss, delay, jitter = map(float, words[-3:])
                print(f"is {loss} {delay} {jitter}", flush=True)
                continue
            for _ in range(64):
                try:
                    frame = os.read(ready, 65536)
                except OSError:  # no more now; or the interface is down
                    break
                order += 1
                if chance.random() < loss:
                    lost += 1
                    continue
                due = time.monotonic() + delay + chance.random() * jitter
                heapq.heappush(on_the_way, (due, order, ends[ready == ends[0]], frame))
        now = time.monotonic()
        while on_the_way and on_the_way[0][0] <= now:
            *_, end, frame = heapq.heappop(on_the_way)
            try:
                os.write(end, frame)
                passed += 1
            except OSError:  # the interface is down
                lost += 1


if __name__ == "__main__":
    main()
