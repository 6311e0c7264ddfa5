"""A batch as single messages, for members of a group that get one each."""

from __future__ import annotations

from collections.abc import Iterator

from mesh.core.messages import Batch

__all__ = ["singles"]


def singles(batch: Batch) -> Iterator[Batch]:
    """Each message as a batch of its own, which keeps its number."""
    for index, value in enumerate(batch.values):
        kind = batch.kinds if isinstance(batch.kinds, int) else batch.kinds[index]
        headers = batch.headers.get(index) if batch.headers else None
        single = None if headers is None else {0: headers}
        yield Batch(batch.topic, batch.sequence + index, batch.timestamp, kind, [value], single)
