"""An AMQP client that is none of ours (pika), for Trio tests: what others see of a bridge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pika
import trio

__all__ = ["Got", "Outsider", "outsider"]

T = TypeVar("T")

LOOK_EVERY = 0.02


@dataclass
class Got:
    """A message that the outsider has taken from a queue."""

    key: str
    body: bytes
    properties: Any
    redelivered: bool = False
    headers: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.headers = self.properties.headers or {}


class Outsider:
    """Blocking calls, each on a thread; one at a time."""

    def __init__(self, url: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel = self._connection.channel()
        self.channel.confirm_delivery()

    async def do(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return await trio.to_thread.run_sync(lambda: function(*args, **kwargs))

    async def queue(self, binding: str, *, exchange: str = "amq.topic", name: str = "", **kwargs: Any) -> str:
        """A queue that is bound there."""

        def make() -> str:
            queue: str = self.channel.queue_declare(name, exclusive=not name, durable=bool(name)).method.queue
            if exchange:
                self.channel.queue_bind(queue, exchange, binding, **kwargs)
            return queue

        return await self.do(make)

    async def publish(
        self, key: str, body: bytes, *, exchange: str = "amq.topic", mandatory: bool = True, **properties: Any
    ) -> None:
        """Confirmed. Raises ``pika.exceptions.UnroutableError``."""
        await self.do(
            self.channel.basic_publish,
            exchange,
            key,
            body,
            pika.BasicProperties(**properties),
            mandatory=mandatory,
        )

    async def take(self, queue: str, count: int = 1, *, within: float = 30.0) -> list[Got]:
        """The next messages of a queue."""
        got: list[Got] = []

        def fetch() -> None:
            while len(got) < count:
                method, properties, body = self.channel.basic_get(queue, auto_ack=True)
                if method is None:
                    return
                got.append(Got(method.routing_key, body, properties, method.redelivered))

        with trio.fail_after(within):
            while True:
                await self.do(fetch)
                if len(got) == count:
                    return got
                await trio.sleep(LOOK_EVERY)

    async def depth(self, queue: str) -> int:
        declared = await self.do(self.channel.queue_declare, queue, passive=True)
        return int(declared.method.message_count)

    async def empty(self, queue: str, *, within: float = 30.0) -> None:
        """Return when nothing waits in the queue."""
        with trio.fail_after(within):
            while await self.depth(queue):  # noqa: ASYNC110  # the broker tells nobody
                await trio.sleep(LOOK_EVERY)

    def close(self) -> None:
        if self._connection.is_open:
            self._connection.close()


@contextmanager
def outsider(url: str) -> Iterator[Outsider]:
    client = Outsider(url)
    try:
        yield client
    finally:
        client.close()
