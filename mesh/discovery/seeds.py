"""Seeds: intro endpoints that somebody wrote down.

``connect=`` and ``[node] connect`` in ``mesh.toml``. Each is a candidate at once, and again with backoff for as long as the node runs: the
machine behind a seed may start later than this one, or move to another address under the same
name. Names stay text, so that each dial resolves them anew.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

import trio

from mesh.discovery.base import Announcement, Candidate, Discovery, Status
from mesh.discovery.endpoints import DEFAULT_PORT, host_address, is_wildcard, split_tcp, tcp
from mesh.errors import ConfigError

__all__ = ["Seeds", "parse_seed"]

BACKOFF: Final = (0.5, 30.0)  # seconds: the first pause, doubled up to the last, with full jitter above half
SEEDS: Final = 256  # as many as there may be peers

_LABEL: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")  # RFC 1123 §2.1, and "_"


def parse_seed(text: str) -> str:
    """The intro endpoint that a seed means: ``tcp://host:port``, or ``ipc://path``.

    ``tcp://`` and the port (7400) may be left out; an IPv6 address stands in brackets.
    Raises ``ConfigError`` that names the seed and what is wrong with it.
    """

    def wrong(reason: str) -> ConfigError:
        return ConfigError(f"seed {text!r}: {reason}", key="connect")

    if not text.strip() or not text.isprintable() or " " in text:
        raise wrong("expected tcp://host:port")
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "tcp", text
    if scheme == "ipc":
        if not rest:
            raise wrong("a path is missing")
        return text
    if scheme != "tcp":
        raise wrong(f"unknown transport {scheme!r}; tcp:// and ipc:// can be dialled")
    has_port = rest.rpartition("]")[2].count(":") if rest.startswith("[") else rest.count(":")
    if has_port > 1:
        raise wrong("an IPv6 address needs brackets, as in tcp://[fd00::1]:7400")
    endpoint = f"tcp://{rest}" if has_port else f"tcp://{rest}:{DEFAULT_PORT}"
    parts = split_tcp(endpoint)
    if parts is None or not 1 <= parts[1] <= 65535:
        raise wrong("the port must be a number from 1 to 65535" if has_port else "expected tcp://host:port")
    host, port = parts
    if is_wildcard(host):
        raise wrong("a wildcard can be listened on, but not dialled")
    if host_address(endpoint) is None and (
        rest.startswith("[")
        or len(host) > 253
        or not all(_LABEL.fullmatch(label) for label in host.removesuffix(".").split("."))
        or host.replace(".", "").isdigit()
    ):
        raise wrong(f"{host!r} is neither an address nor a host name")
    return tcp(host, port)


class Seeds(Discovery):
    """Discovery by known endpoints; needs no multicast."""

    name = "seeds"

    def __init__(self, endpoints: Iterable[str]) -> None:
        seeds = dict.fromkeys(parse_seed(endpoint) for endpoint in endpoints)
        self.endpoints = tuple(seeds)[:SEEDS]
        self.status = Status(self.name, active=False, reason="not started")
        self.rejected: Counter[str] = Counter()
        self._own: frozenset[str] = frozenset()
        self._again = trio.Event()

    @trio.lowlevel.enable_ki_protection
    async def run(
        self,
        announcement: Announcement,
        found: Callable[[Candidate], None],
        *,
        task_status: trio.TaskStatus[Status] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        self._own = frozenset(announcement.intros)
        reason = "" if self.endpoints else "no seeds are given"
        self.status = Status(self.name, active=not reason, reason=reason)
        task_status.started(self.status)
        if not self.endpoints:
            await trio.sleep_forever()
        shortest, longest = BACKOFF
        pause = shortest
        while True:
            for endpoint in self.endpoints:
                # One list of seeds is often given to all machines, each of which is in it.
                if endpoint not in self._own:
                    found(Candidate(None, (endpoint,), self.name))
            with trio.move_on_after(pause * random.uniform(0.5, 1.0)):  # noqa: S311
                await self._again.wait()
                self._again, pause = trio.Event(), 0.0
                await trio.sleep(shortest / 2)  # peers lost together are looked for once
            pause = min(max(2 * pause, shortest), longest)

    def update(self, announcement: Announcement) -> None:
        self._own = frozenset(announcement.intros)

    def look_again(self) -> None:
        self._again.set()
