"""Publishing from other threads: judged where it is called, carried out where the node runs, many at once.

``judge_*`` (the caller's thread: topic, headers, encoding and size, so that a mistake is raised at the call) →
``Posting.append`` → one wake-up for all that comes before it is answered → ``drain`` (the node's thread) →
each value into its ``Stream``, in the order of the calls.  While the airlock is full, posts
wait here; callers wait while too many do.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import trio

from mesh.core.codec import Encoded, encode_value
from mesh.core.messages import RAW
from mesh.core.topic import check_topic
from mesh.errors import MeshError, MessageTooLarge, NodeClosed
from mesh.node.headers import check_headers
from mesh.node.message import Peer
from mesh.node.node import Node
from mesh.node.publisher import Publisher, Publishing

__all__ = ["Post", "Posting", "judge_node", "judge_now", "judge_publisher"]

log = logging.getLogger("mesh.node")

_MESSAGES: Final = 2048
_BYTES: Final = 4 << 20
"""Posts that may wait before callers wait too: a few milliseconds of work for the node."""


class Post(NamedTuple):
    """One value on its way to the node's thread."""

    publishing: Publishing
    topic: str
    value: bytes | Encoded
    headers: Mapping[str, str] | None
    size: int

    @property
    def congested(self) -> bool:
        """Some subscriber's pipe and the bounded queue before it are full, or one that is waited for has no room."""
        publishing, stream = self.publishing, self.publishing.streams.get(self.topic)
        held_up = publishing.queues.held_up(None if stream is None else stream.line, self.size)
        return held_up or (stream is not None and publishing.pacing.shut(stream))


def _judge(publishing: Publishing, topic: str, value: Any, headers: Mapping[str, str] | None) -> Post:
    if publishing.refusal is not None:
        raise publishing.refusal
    if headers is not None:
        headers = check_headers(headers, publishing.outlet.config)
    if topic not in publishing.streams:
        check_topic(topic)
        publishing.outlet.permit(topic)
    data: bytes | Encoded
    if type(value) is bytes:
        data, size = value, len(value)
    else:
        kind, raw = encode_value(value)
        size = len(raw)
        data = raw if kind == RAW else Encoded(kind, raw)
    if size > publishing.largest:
        raise MessageTooLarge(size, publishing.largest)
    return Post(publishing, topic, data, headers, size)


def judge_node(
    node: Node,
    topic: str,
    value: Any,
    *,
    headers: Mapping[str, str] | None = None,
    to: Peer | str | None = None,
) -> Post | None:
    """``Node.publish``. None for what may have to wait: one peer's, and where subscribers are to be waited for."""
    stream = node._publishing.streams.get(topic)
    if to is not None or (stream is not None and stream.windows):
        return None
    return _judge(node._publishing, topic, value, headers)


def judge_publisher(
    publisher: Publisher, value: Any, headers: Mapping[str, str] | None = None
) -> Post | None:
    """``Publisher.publish``. None where subscribers are to be waited for."""
    return None if publisher._stream.windows else judge_now(publisher, value, headers)


def judge_now(publisher: Publisher, value: Any, headers: Mapping[str, str] | None = None) -> Post:
    """``Publisher.publish_nowait``."""
    if publisher._closed:
        raise NodeClosed("the publisher is closed")
    return _judge(publisher._publishing, publisher.topic, value, headers)


class Posting:
    """The posts of one node. ``soon`` runs a function in the node's thread (``False``: it is over)."""

    def __init__(self, soon: Callable[[Callable[[], None]], bool]) -> None:
        self._soon = soon
        self._posts: deque[Post] = deque()
        self._lock = threading.Lock()  # several threads may post, and one adds up in one place
        self._bytes = 0  # ever appended
        self._done = 0  # of these, carried out
        self._scheduled = False
        self._stuck = trio.Event()  # the airlock is full: ``run`` goes on
        self._room = trio.lowlevel.ParkingLot()

    # -- any thread ----------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Callers should wait for room."""
        return len(self._posts) >= _MESSAGES or self._bytes - self._done >= _BYTES

    def append(self, post: Post) -> None:
        """Carry it out soon, after those before it. Raises ``NodeClosed``."""
        with self._lock:
            self._posts.append(post)
            self._bytes += post.size
        # The node's thread takes the flag back before it looks, so one of the two sees the post.
        if not self._scheduled:
            self._scheduled = True
            if not self._soon(self.drain):
                self._scheduled = False
                self._posts.clear()
                raise NodeClosed

    # -- the node's thread -----------------------------------------------------------

    def drain(self) -> None:
        """Carry out what can be carried out now."""
        self._scheduled = False
        posts = self._posts
        while posts:
            publishing = posts[0].publishing
            topic, size = posts[0].topic, posts[0].size
            if publishing.refusal is not None:
                log.warning("the node closed before it sent %d published messages", len(posts))
                posts.clear()
                break
            stream = publishing.streams.get(topic) or publishing.stream(topic)
            if publishing.queues.held_up(stream.line, size):
                self._stuck.set()
                break
            _, _, value, headers, _ = posts.popleft()
            self._done += size
            try:
                stream.add(value, headers)
            except MeshError as error:
                # Policy: its caller was told that all is well, and everything that depends
                # on the caller was judged: what is left is the node's, and stands in its log.
                log.warning("a message on %r was not published: %s", topic, error)
        if self._room and not self.full:
            self._room.unpark_all()

    async def run(self) -> None:
        """Go on when subscribers' pipes have room again, until cancelled."""
        while True:
            await self._stuck.wait()
            self._stuck = trio.Event()
            while self._posts:
                publishing, topic, _, _, size = self._posts[0]
                await publishing.queues.wait(publishing.streams[topic].line, size)
                self.drain()

    async def drained(self) -> None:
        """Return when all posts are carried out."""
        self.drain()
        while self._posts:
            await self._room.park()

    async def wait_room(self) -> None:
        """Return when callers may go on."""
        self.drain()
        while self.full:
            await self._room.park()
