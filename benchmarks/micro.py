"""``python -m benchmarks.micro``: the hot parts one by one, without sockets and second processes.

Each part prepares its work for n operations, and only doing it is timed, in CPU time of the thread.  n is
chosen so that one sample takes a while; of the samples the lowest is shown (what the code costs when nothing
disturbs it) and the median.  Times are per message where a part works on batches.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from benchmarks import machine
from benchmarks.report import print_table
from mesh.config import Config
from mesh.core.codec import decode_batch, decode_direct, encode_batch, encode_direct
from mesh.core.envelope import BATCH, OpeningKey, SealingKey
from mesh.core.keyring import Keyring
from mesh.core.messages import Batch, InterestEntry, ReplyMessage, RequestMessage
from mesh.core.outgoing import Line
from mesh.core.router import LOCAL, RESPONDER, SUBSCRIPTION, Member, Route, Router
from mesh.core.subtrie import SubscriptionTrie
from mesh.core.tags import TagKey
from mesh.core.types import NodeId
from mesh.core.windows import Windows
from mesh.node.message import Origin, Peer
from mesh.node.pacing import Pacing
from mesh.node.publisher import Publisher, Publishing
from mesh.node.subscription import Subscription

__all__ = ["PARTS", "Part", "main", "measure"]

_SAMPLES = 9
_SAMPLE_SECONDS = 0.05

_TOPIC = "home/kitchen/temperature"
_MESSAGES = 512  # a full batch of small messages
_VALUE = bytes(64)
_NODE = NodeId(bytes(16))
_PEER = Peer("00" * 16, "peer", "peer", (), "alive", None)

Work = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Part:
    """``prepare(n)`` gives what does n operations; ``each`` of them handles that many messages.

    ``most`` bounds n where preparing takes memory.
    """

    name: str
    prepare: Callable[[int], Work]
    each: int = 1
    most: int = 1 << 24


def _repeat(operation: Callable[[], object]) -> Callable[[int], Work]:
    """An operation that can be done again and again as it is."""

    def prepare(n: int) -> Work:
        def work() -> None:
            for _ in range(n):
                operation()

        return work

    return prepare


# -- matching ------------------------------------------------------------------


def _patterns() -> Iterator[str]:
    """A thousand, as a building's mesh might have them; five of them take ``_TOPIC``."""
    for room in range(330):
        yield f"home/room{room}/temperature"
        yield f"home/room{room}/**"
        yield f"home/*/sensor{room}/value"
    yield from ("home/kitchen/temperature", "home/*/temperature", "home/**", "**/temperature", "**")
    yield from (f"office/{name}" for name in ("door", "light", "heating", "window", "alarm"))


def _trie_match(n: int) -> Work:
    trie: SubscriptionTrie[int] = SubscriptionTrie()
    for number, pattern in enumerate(_patterns()):
        trie.add(pattern, number)
    return _repeat(lambda: trie.match(_TOPIC))(n)


def _router() -> Router:
    router = Router()
    for number, pattern in enumerate(_patterns()):
        router.add(
            NodeId(number.to_bytes(16, "big")), [InterestEntry(number, SUBSCRIPTION, pattern, "", 0, 0)]
        )
    router.add(_NODE, [InterestEntry(1, RESPONDER, _TOPIC, "", 0, 0)])
    return router


def _route_known(n: int) -> Work:
    router = _router()
    return _repeat(lambda: router.route(_TOPIC))(n)


def _responders(n: int) -> Work:
    router = _router()
    return _repeat(lambda: router.responders(_TOPIC))(n)


def _tag_chain(n: int) -> Work:
    tags = TagKey(bytes(32))
    return _repeat(lambda: tags.chain(_TOPIC))(n)


# -- messages and frames ---------------------------------------------------------


def _batch(messages: int) -> Batch:
    return Batch(_TOPIC, 123_456, 1_700_000_000_000_000, 0, [_VALUE] * messages, None)


def _encode(messages: int) -> Callable[[int], Work]:
    batch = _batch(messages)
    return _repeat(lambda: encode_batch(batch))


def _decode(messages: int) -> Callable[[int], Work]:
    data = encode_batch(_batch(messages))
    return _repeat(lambda: decode_batch(data))


def _request(n: int) -> Work:
    message = RequestMessage(12345, _TOPIC, 0, _VALUE, None, 5000, 1, False)
    return _repeat(lambda: decode_direct(encode_direct(message)))(n)


def _reply(n: int) -> Work:
    message = ReplyMessage(12345, 0, _VALUE, None, True, 1)
    return _repeat(lambda: decode_direct(encode_direct(message)))(n)


def _sealing() -> SealingKey:
    return SealingKey(bytes(8), bytes(32), 0.0, owner=_NODE, max_frames=1 << 40, max_bytes=1 << 60)


def _seal(size: int) -> Callable[[int], Work]:
    key, tag, plaintext = _sealing(), TagKey(bytes(32)).chain(_TOPIC), bytes(size)
    return _repeat(lambda: key.seal(BATCH, tag, plaintext, 1.0))


def _open(size: int) -> Callable[[int], Work]:
    def prepare(n: int) -> Work:
        # A frame opens once, so each is a fresh one.
        key, tag, ring = _sealing(), TagKey(bytes(32)).chain(_TOPIC), Keyring()
        ring.add(_NODE, OpeningKey.from_announcement(key.announcement(), _NODE))
        frames = [key.seal(BATCH, tag, bytes(size), 1.0) for _ in range(n)]

        def work() -> None:
            for frame in frames:
                ring.open(tag, frame)

        return work

    return prepare


# -- the two ends of a program -----------------------------------------------------


class _Outlet:
    """What a publisher needs of a node: somebody wants it, or nobody."""

    def __init__(self, wanted: bool) -> None:
        self.config = Config.lan()
        self._route = Route((), (Member(_NODE, 1),) if wanted else (), {})
        self._key = _sealing()
        self._tag = TagKey(bytes(32)).chain(_TOPIC)

    def permit(self, topic: str) -> None:
        pass

    def route(self, topic: str) -> Route:
        return self._route

    def route_generation(self) -> int:
        return 0

    def deliver_local(self, numbers: Sequence[int], batch: Batch) -> None: ...

    def seal(self, topic: str, plaintext: bytes, kind: int) -> tuple[bytes, bytes]:
        return self._tag, self._key.seal(kind, self._tag, plaintext, 1.0)

    def line(self, topic: str) -> Line:
        return Line(topic)

    def stir(self, line: Line) -> None:
        line.recent = True

    def settle(self) -> None: ...

    def choose(self, group: str, members: tuple[Member, ...]) -> Member:
        return Member(LOCAL, 0)

    def send_directed(self, peer: NodeId, group: str, batch: Batch) -> None: ...

    def live_subscribers(self, topic: str) -> int:
        return 1

    async def subscribers_changed(self) -> None: ...


class _Nowhere:
    """A transport that takes every frame at once."""

    def publish(self, tag: bytes, frame: bytes) -> bool:
        return True


def _publish(wanted: bool) -> Callable[[int], Work]:
    def prepare(n: int) -> Work:
        outlet: Any = _Outlet(wanted)
        nowhere: Any = _Nowhere()

        async def publish() -> None:
            windows = Windows(outlet.config, [], Router(), {}, lambda member: False)
            pacing = Pacing(windows, lambda: None, lambda: False)
            publishing = Publishing(outlet, nowhere, outlet.config, pacing)
            publisher = Publisher(publishing.stream(_TOPIC), publishing)
            for _ in range(n):
                await publisher.publish(_VALUE)
            publishing.flush()

        return lambda: trio.run(publish)

    return prepare


def _iterate(n: int) -> Work:
    batches = [_batch(_MESSAGES) for _ in range(n)]

    async def read() -> None:
        subscription = Subscription(
            _TOPIC,
            buffer=n * _MESSAGES,
            overflow="drop_oldest",
            group="",
            most_bytes=n * _MESSAGES * 1024,
            enter=lambda _: None,
            leave=lambda _: None,
        )
        subscription.entry = InterestEntry(1, SUBSCRIPTION, _TOPIC, "", 0, 0)
        for batch in batches:
            subscription.feed(Origin(batch, _PEER), batch)
        left = n * _MESSAGES
        async for _ in subscription:
            left -= 1
            if not left:
                break

    return lambda: trio.run(read)


PARTS: list[Part] = [
    Part("trie: match a topic among 1,000 patterns", _trie_match),
    Part("router: route of a topic seen before", _route_known),
    Part("router: responders of a topic", _responders),
    Part("tags: chain of a three-level topic", _tag_chain),
    Part("codec: encode a batch of 512 × 64 B", _encode(_MESSAGES), _MESSAGES),
    Part("codec: decode a batch of 512 × 64 B", _decode(_MESSAGES), _MESSAGES),
    Part("codec: encode a batch of one message", _encode(1)),
    Part("codec: decode a batch of one message", _decode(1)),
    Part("codec: request, there and back", _request),
    Part("codec: reply, there and back", _reply),
    Part("envelope: seal 128 B", _seal(128)),
    Part("envelope: open 128 B", _open(128), most=100_000),
    Part("envelope: seal 32 KiB", _seal(32 << 10)),
    Part("envelope: open 32 KiB", _open(32 << 10), most=2000),
    Part("publisher: publish 64 B, nobody wants it", _publish(wanted=False)),
    Part("publisher: publish 64 B, sealed and sent nowhere", _publish(wanted=True)),
    Part("subscription: feed and async for, 64 B", _iterate, _MESSAGES, most=1000),
]


def measure(part: Part, *, samples: int = _SAMPLES, seconds: float = _SAMPLE_SECONDS) -> dict[str, Any]:
    """Nanoseconds of CPU a message, of ``samples`` samples of about ``seconds`` seconds."""
    n = 1
    while (took := _timed(part.prepare(n))) < seconds and n < part.most:
        n = min(part.most, max(n + 1, min(n * 10, int(n * seconds / max(took, 1e-7) * 1.1))))
    found = [_timed(part.prepare(n)) / (n * part.each) * 1e9 for _ in range(samples)]
    return {
        "part": part.name,
        "operations": n,
        "messages_each": part.each,
        "nanoseconds": found,
        "lowest": min(found),
        "median": statistics.median(found),
    }


def _timed(work: Work) -> float:
    gc.collect()
    gc.disable()  # its turn would come at another's expense
    try:
        began = time.thread_time()
        work()
        return time.thread_time() - began
    finally:
        gc.enable()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the chosen parts, print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.micro", description="Measure the hot parts one by one, in one process."
    )
    parser.add_argument("--only", metavar="TEXT", default="", help="parts whose name contains this")
    parser.add_argument("--quick", action="store_true", help="one short sample each: does it still run?")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write machine, versions and raw numbers")
    options = parser.parse_args(arguments)
    chosen = [part for part in PARTS if options.only in part.name]
    if not chosen:
        raise SystemExit(f"benchmarks.micro: no part's name contains {options.only!r}")
    how = {"samples": 1, "seconds": 1e-4} if options.quick else {}
    results = [measure(part, **how) for part in chosen]  # type: ignore[arg-type]
    rows = [
        [str(r["part"]), f"{r['lowest']:,.0f}", f"{r['median']:,.0f}", f"{1e6 / r['lowest']:,.0f}"]
        for r in results
    ]
    heads = ["part", "lowest ns", "median ns", "k a second"]
    print_table("a message or operation", heads, rows, sys.stdout)
    if options.json:
        described = machine.describe(("zeromesh", "pyzmq", "trio", "cbor2", "cryptography"))
        options.json.write_text(json.dumps({"format": 1, **described, "parts": results}) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
