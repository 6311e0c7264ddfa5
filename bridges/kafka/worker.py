"""A thread that serves one of librdkafka's clients, and surely ends.

    Worker.start() → the loop, in a thread of its own → end (asked to, or it failed) → ``ended`` in Trio

librdkafka calls back only from within its ``poll``, so each client has a thread that does nothing but poll.  What
is told to Trio goes through ``tell`` (``run_sync_soon``); what is told to the thread is an attribute that it
looks at.  A thread that does not end when it is asked (a call that hangs inside the library) is left to itself:
it is a daemon, it holds nothing of the bridge, and it is said in the log.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final

import trio
from confluent_kafka import KafkaError, KafkaException

__all__ = ["POLL", "Worker"]

POLL: Final = 0.1
"""Seconds that a poll waits at most: what it takes a thread to see that it shall end."""

_log = logging.getLogger(__name__)


class Worker(ABC):
    """Made and used in Trio; ``loop`` alone runs in the thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._stop = False
        self.ended = trio.Event()
        self.failure: KafkaError | None = None
        """Why it ended, if nobody asked it to."""

    @abstractmethod
    def loop(self) -> None:
        """Poll until ``self._stop``. Runs in the thread. May raise ``KafkaException``."""

    def start(self) -> None:
        self._thread.start()

    async def stop(self, within: float) -> None:
        """Ask it to end and wait ``within`` seconds at most, also where the caller was cancelled."""
        self._stop = True
        with trio.move_on_after(within, shield=True):
            await self.ended.wait()
            self._thread.join()  # it has said its last word
            return
        _log.warning("%s did not end within %s s; left to itself", self._name, within)

    def tell(self, callback: Callable[..., object], *args: Any) -> None:
        """From the thread: call this in Trio."""
        try:
            self._token.run_sync_soon(callback, *args)
        except trio.RunFinishedError:
            self._stop = True  # nobody is left to be told

    def _run(self) -> None:
        try:
            self.loop()
        except KafkaException as error:
            self.failure = error.args[0]
        finally:
            self.tell(self.ended.set)
