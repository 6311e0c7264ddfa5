"""An import route of streams: one consumer of a group, over one stream or all that a pattern takes.

    group made (from the stream's first entry) → what this consumer had and never acknowledged → what is new
    every ``claim_after``: what another consumer of the group abandoned (XAUTOCLAIM)
    the mesh has it → XACK;   it can never cross → XADD to ``<stream>:dead`` with the reason, XACK

All bridges of one identity read under one consumer's name: the one that takes over begins with what the other left.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import trio
from coredis import PureToken, Redis
from coredis.exceptions import StreamDuplicateConsumerGroupError

from bridges.base import BATCH, Delivery, Receiver
from bridges.messages import MESSAGE_ID, header_text, unflatten
from bridges.redis.faults import faults
from bridges.redis.sending import DATA, MAX_LENGTH
from bridges.settings import ImportRoute
from bridges.values import JSON

__all__ = ["DEAD", "reading"]

DEAD: Final = ":dead"
"""After a stream's name: where its dead letters are."""

CLAIM_AFTER: Final = 60.0
"""Seconds that an entry of another consumer must have waited to be taken over."""

_LOOK_EVERY: Final = 1.0
"""Seconds between two looks for new streams that a pattern takes; as long does one read wait for entries."""


class Reading(Receiver):
    """Tokens are (stream, entry id)."""

    def __init__(self, client: Redis[bytes], route: ImportRoute, identity: str) -> None:
        self._client = client
        self._source = route.source
        self._group = str(route.options.get("group", f"zeromesh-{identity}"))
        self._consumer = identity
        self._claim_after = float(route.options.get("claim_after", CLAIM_AFTER))
        self._start = "0" if route.options.get("start", "all") == "all" else "$"
        self._streams: list[str] = []
        self._left: deque[str] = deque()  # streams whose unacknowledged entries are to be read again
        self._last: dict[str, str] = {}
        self._claim_at = trio.current_time() + self._claim_after
        self._look_at = 0.0

    async def look(self) -> None:
        """Find the streams, and be in their group."""
        self._look_at = trio.current_time() + _LOOK_EVERY
        if self._source.exact:
            found = [self._source.text]
        else:
            found = [
                name
                async for each in self._client.scan_iter(match=self._source.text, type_="stream", count=1000)
                if not (name := header_text(each)).endswith(DEAD)
            ]
        for stream in found:
            if stream not in self._streams:
                await self._join(stream)
                self._streams.append(stream)
                self._left.append(stream)

    async def _join(self, stream: str) -> None:
        try:
            await self._client.xgroup_create(stream, self._group, identifier=self._start, mkstream=True)
        except StreamDuplicateConsumerGroupError:
            pass  # it is there already

    async def receive(self) -> Sequence[Delivery]:
        with faults():
            while True:
                if trio.current_time() >= self._look_at and not self._source.exact:
                    await self.look()
                deliveries = (
                    await self._what_was_left()
                    if self._left
                    else await self._abandoned() or await self._new()
                )
                if deliveries:
                    return deliveries

    async def _what_was_left(self) -> list[Delivery]:
        """Entries that were given to this consumer before and not acknowledged, page by page."""
        stream = self._left[0]
        entries = await self._read({stream: self._last.get(stream, "0")}, block=None)
        if not entries:
            self._left.popleft()
            return []
        self._last[stream] = entries[-1].token[1]
        return entries

    async def _abandoned(self) -> list[Delivery]:
        if trio.current_time() < self._claim_at:
            return []
        self._claim_at = trio.current_time() + self._claim_after
        idle = int(self._claim_after * 1000)
        for stream in self._streams:
            answer = await self._client.xautoclaim(
                stream, self._group, self._consumer, idle, "0-0", count=BATCH
            )
            entries = [each for each in answer[1] if not isinstance(each, (bytes, str)) and each is not None]
            # Those that are ours already are on their way to the mesh: their ids would be seen as duplicates.
            if entries:
                self._claim_at = 0.0  # there may be more
                return [self._delivery(stream, entry) for entry in entries]
        return []

    async def _new(self) -> list[Delivery]:
        if not self._streams:
            await trio.sleep(_LOOK_EVERY)
            return []
        return await self._read(dict.fromkeys(self._streams, ">"), block=int(_LOOK_EVERY * 1000))

    async def _read(self, streams: Mapping[str, str], *, block: int | None) -> list[Delivery]:
        answer = await self._client.xreadgroup(
            self._group, self._consumer, streams=streams, count=max(1, BATCH // len(streams)), block=block
        )
        return [
            self._delivery(header_text(stream), entry)
            for stream, entries in (answer or {}).items()
            for entry in entries
        ][:BATCH]

    @staticmethod
    def _delivery(stream: str, entry: Any) -> Delivery:
        place = header_text(entry.identifier)
        fields = {header_text(name): value for name, value in (entry.field_values or {}).items()}
        data = fields.pop(DATA, None)
        headers = {name: header_text(value) for name, value in fields.items()}
        if data is None:  # somebody else's entry, with fields of its own: all of them are the value
            data, headers = json.dumps(headers).encode(), {"content-type": JSON}
        headers.setdefault(MESSAGE_ID, f"{stream}/{place}")
        message = unflatten(stream, data, headers, key=stream)
        return Delivery(message, (stream, place))

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        await self._settle([delivery.token for delivery in deliveries])

    async def _settle(self, tokens: Iterable[tuple[str, str]]) -> None:
        by_stream: defaultdict[str, list[str]] = defaultdict(list)
        for stream, place in tokens:
            by_stream[stream].append(place)
        with faults():
            for stream, places in by_stream.items():
                await self._client.xack(stream, self._group, places)

    async def reject(self, delivery: Delivery, reason: str) -> None:
        stream, place = delivery.token
        message = delivery.message
        with faults():
            # Both or neither: an entry is never in both places, nor in none.
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.xadd(
                    stream + DEAD,
                    {**message.headers, DATA: message.data, "mesh-reason": reason, "mesh-entry": place},
                    trim_strategy=PureToken.MAXLEN,
                    trim_operator=PureToken.APPROXIMATELY,
                    threshold=MAX_LENGTH,
                )
                pipe.xack(stream, self._group, [place])

    async def lag(self) -> int | None:
        waiting = 0
        with faults():
            for stream in self._streams:
                for each in await self._client.xinfo_groups(stream):
                    group = {header_text(name): value for name, value in each.items()}
                    if header_text(group["name"]) == self._group:
                        behind, pending = group.get("lag"), group["pending"]
                        if behind is None:  # Redis 6, or entries were deleted: it does not know
                            return None
                        waiting += int(behind) + int(pending or 0)
        return waiting


@asynccontextmanager
async def reading(client: Redis[bytes], route: ImportRoute, identity: str) -> AsyncIterator[Receiver]:
    """``Session.receive`` of a reliable route."""
    receiver = Reading(client, route, identity)
    with faults():
        await receiver.look()
    yield receiver
