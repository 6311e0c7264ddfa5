"""An export route at Redis: one script a batch.

    not reliable   PUBLISH of the headers' notes, then PUBLISH each
    reliable       XADD each, ``data`` and the headers as fields, the stream trimmed to about ``max_length`` entries
    retain         SET of the latest value beside either

All commands of a batch are the arguments of one script (EVAL, Redis 2.6), which carries out one after the other and
answers which failed, and how: one round trip, and a fraction of what as many commands cost a client in Python.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from coredis import Redis

from bridges.base import BrokerRejected, BrokerUnavailable
from bridges.messages import BrokerMessage, Flattening
from bridges.redis.faults import faults, says
from bridges.redis.notes import CHANNEL, encode_notes
from bridges.settings import ExportRoute

__all__ = ["DATA", "MAX_LENGTH", "send"]

DATA: Final = "data"
"""The field of a stream's entry that holds the value."""

MAX_LENGTH: Final = 100_000
"""Entries of a stream by default: Redis keeps them in memory."""

_EACH: Final = """
local failed, at, number = {}, 1, 0
while at <= #ARGV do
  local count = tonumber(ARGV[at])
  local reply = redis.pcall(unpack(ARGV, at + 1, at + count))
  if type(reply) == 'table' and reply.err then
    failed[#failed + 1] = tostring(number)
    failed[#failed + 1] = reply.err
  end
  at, number = at + count + 1, number + 1
end
return failed
"""
"""Arguments: of each command the number of its words, and its words. Result: of each that failed its place and why."""


async def send(
    client: Redis[bytes], route: ExportRoute, messages: Sequence[BrokerMessage]
) -> Mapping[int, BrokerRejected]:
    """``Session.send``."""
    refused: dict[int, BrokerRejected] = {}
    words: list[Any] = []
    flat = Flattening().flat
    places: list[int] = []  # of each command, the message that it is for
    length = route.options.get("max_length", MAX_LENGTH)
    if not route.reliable and route.options.get("headers", True):
        words += (3, "PUBLISH", CHANNEL, encode_notes(messages))
        places.append(-1)
    for place, message in enumerate(messages):
        if route.reliable:
            headers = flat(message)
            if DATA in headers:
                refused[place] = BrokerRejected("headers", f"a header is named {DATA!r}")
                continue
            words += (8 + 2 * len(headers), "XADD", message.destination, "MAXLEN", "~", length, "*", DATA)
            words.append(message.data)
            for header in headers.items():
                words += header
        else:
            words += (3, "PUBLISH", message.destination, message.data)
        places.append(place)
        retained = message.filled.get("retain")
        if retained is not None:
            words += (3, "SET", retained, message.data)
            places.append(place)
    with faults():
        answer: Any = await client.eval(_EACH, (), words)
    failed = iter(answer or ())
    for number, text in zip(failed, failed, strict=True):
        what = says(text.decode(errors="replace"))
        if isinstance(what, BrokerUnavailable):
            raise what
        place = places[int(number)]
        if place >= 0:
            refused[place] = what
    return refused
