"""A program that counts what it receives, for tests that stop and harm it.

    python -m tests.chaos.reader HOME ENDPOINT TOTAL [PACE BUFFER]

It reads ``t`` until it has, or knows to be lost or dropped, TOTAL messages, and prints ``live``, then what it had:
``delivered``, ``lost``, ``dropped``, ``repaired``, ``duplicates``, ``ordered`` as ``name=value``, and ``ranges``: the losses it was
told of. PACE is the seconds that it needs for each message, BUFFER the messages that its subscription holds.
"""

from __future__ import annotations

import sys

import trio

import mesh


async def main(home: str, endpoint: str, total: int, pace: float = 0.0, buffer: int = 0) -> None:
    async with (
        mesh.open_node(
            "reader", home=home, connect=[endpoint], listen=["tcp://127.0.0.1:0"], discovery=()
        ) as node,
        node.subscribe("t", buffer=buffer or total) as messages,
    ):
        print("live", flush=True)
        losses = node.watch_losses()
        delivered, last, ordered = 0, -1, True
        while delivered + messages.lost + messages.dropped < total:
            with trio.move_on_after(0.1):  # the end may be what is lost
                message = await anext(messages)
                ordered &= message.sequence > last
                last = message.sequence
                delivered += 1
            if pace:
                await trio.sleep(pace)
        counted = node.statistics()
        ranges = []
        while sum(count for _, count in ranges) < counted.lost:
            loss = await anext(losses)
            ranges.append((loss.first, loss.count))
        print(
            f"delivered={delivered} lost={counted.lost} dropped={messages.dropped} repaired={counted.repaired}"
            f" duplicates={counted.duplicates} ordered={ordered} ranges={ranges}",
            flush=True,
        )


if __name__ == "__main__":
    home, endpoint, total, *slow = sys.argv[1:]
    trio.run(
        main,
        home,
        endpoint,
        int(total),
        *(each(word) for each, word in zip((float, int), slow, strict=False)),
    )
