"""One role of one system, in a process of its own: ``python -m benchmarks.worker SYSTEM ROLE``.

Standard input: one JSON object a line from the harness: first what to do, then the words ``go``, ``stop``
and ``close``.  Standard output: one JSON object a line: ``listening``, ``ready``, ``done``, or
``unsupported`` or ``failed`` with the reason.  What a library prints goes to standard error.  When the
harness goes away, so does the worker.
"""

from __future__ import annotations

import cProfile
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any, TextIO

from benchmarks import peers
from benchmarks.workload import Unsupported, Workload

__all__ = ["main"]


class Line:
    """``adapter.Control`` over this process's standard streams."""

    def __init__(
        self, words: TextIO, answers: TextIO, details: Mapping[str, Any], profile: str | None
    ) -> None:
        self.details = details
        self.go = Event()
        self.stop = Event()
        self.close = Event()
        self._words = words
        self._answers = answers
        self._profile = profile
        self._usage: dict[str, float] = {}
        Thread(target=self._listen, name="words of the harness", daemon=True).start()

    def _listen(self) -> None:
        events = {"go": self.go, "stop": self.stop, "close": self.close}
        for line in self._words:
            events[json.loads(line)["do"]].set()
        if not self.close.is_set():
            os._exit(3)  # the harness is gone, and with it everybody who would read our numbers

    def say(self, event: str, **fields: Any) -> None:
        print(json.dumps({"event": event, **fields}), file=self._answers, flush=True)

    def listening(self, details: Mapping[str, Any]) -> None:
        self.say("listening", details=details)

    def ready(self) -> None:
        self.say("ready")

    @contextmanager
    def measured(self) -> Iterator[None]:
        profile = cProfile.Profile() if self._profile else None
        wall, cpu, thread = time.perf_counter(), time.process_time(), time.thread_time()
        if profile is not None:
            profile.enable()
        try:
            yield
        finally:
            if profile is not None:
                profile.disable()
            self._usage = {
                "wall": time.perf_counter() - wall,
                "cpu": time.process_time() - cpu,
                "thread_cpu": time.thread_time() - thread,
            }
            if profile is not None and self._profile is not None:
                profile.dump_stats(self._profile)

    def done(self, numbers: Mapping[str, Any]) -> None:
        self.say("done", numbers={**numbers, "usage": self._usage})


def main() -> int:
    name, role = sys.argv[1:3]
    # The first descriptor becomes ours alone: a library that prints must not garble the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    order = json.loads(sys.stdin.readline())
    line = Line(sys.stdin, answers, order["details"], order["profile"])
    try:
        adapter = peers.load(name)
        adapter.roles[role](line, Workload.from_json(order["workload"]))  # type: ignore[index]
    except Unsupported as reason:
        line.say("unsupported", reason=str(reason))
        return 0
    except Exception as error:  # noqa: BLE001
        # Policy: whatever goes wrong in a system under test is that round's result, and is
        # told to the harness, which goes on with the others.
        traceback.print_exc()
        while isinstance(error, ExceptionGroup):  # a nursery's: what is in it says more
            error = error.exceptions[0]
        line.say("failed", reason=f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
