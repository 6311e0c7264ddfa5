"""An export route at Redis: one pipeline a batch.

not reliable   PUBLISH of the headers' notes, then PUBLISH each
reliable       XADD each, ``data`` and the headers as fields, the stream trimmed to about ``max_length`` entries
retain         SET of the latest value beside either
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from coredis import PureToken, Redis

from bridges.base import BrokerRejected, BrokerUnavailable
from bridges.messages import BrokerMessage, flatten
from bridges.redis.faults import faults, meaning
from bridges.redis.notes import CHANNEL, encode_notes
from bridges.settings import ExportRoute

__all__ = ["DATA", "MAX_LENGTH", "send"]

DATA: Final = "data"
"""The field of a stream's entry that holds the value."""

MAX_LENGTH: Final = 100_000
"""Entries of a stream by default: Redis keeps them in memory."""


async def send(
    client: Redis[bytes], route: ExportRoute, messages: Sequence[BrokerMessage]
) -> Mapping[int, BrokerRejected]:
    """``Session.send``."""
    refused: dict[int, BrokerRejected] = {}
    answers: list[tuple[int, Any]] = []
    with faults():
        async with client.pipeline(transaction=False, raise_on_error=False) as pipe:
            if not route.reliable and route.options.get("headers", True):
                answers.append((-1, pipe.publish(CHANNEL, encode_notes(messages))))
            threshold = route.options.get("max_length", MAX_LENGTH)
            for place, message in enumerate(messages):
                if route.reliable:
                    fields: dict[str, Any] = {DATA: message.data}
                    headers = flatten(message)
                    if DATA in headers:
                        refused[place] = BrokerRejected("headers", f"a header is named {DATA!r}")
                        continue
                    fields.update(headers)
                    answer: Any = pipe.xadd(
                        message.destination,
                        fields,
                        trim_strategy=PureToken.MAXLEN,
                        trim_operator=PureToken.APPROXIMATELY,
                        threshold=threshold,
                    )
                else:
                    answer = pipe.publish(message.destination, message.data)
                answers.append((place, answer))
                retained = message.filled.get("retain")
                if retained is not None:
                    answers.append((place, pipe.set(retained, message.data)))
    for place, answer in answers:
        try:
            await answer
        except Exception as error:  # noqa: BLE001
            # Policy: an answer of the pipeline is a value or the client's error; anything else passes.
            what = meaning(error)
            if what is None or isinstance(what, BrokerUnavailable):
                raise (what or error) from None
            if place >= 0:
                refused[place] = BrokerRejected(getattr(what, "reason", "refused"), str(what))
    return refused
