"""Standard input by lines: whole lines however they come, and none without end."""

from __future__ import annotations

import os

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from mesh.cli import stdin
from mesh.errors import MessageTooLarge


async def read(data: bytes, most: int | None = None) -> list[bytes]:
    ours, theirs = os.pipe()
    found: list[bytes] = []

    def write() -> None:
        try:
            with os.fdopen(theirs, "wb") as pipe:
                pipe.write(data)
        except BrokenPipeError:
            pass  # it did not want all of it

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, write)
            try:
                async for line in stdin.lines(ours, most=most):
                    found.append(line)
            finally:
                os.close(ours)
    return found


@given(st.lists(st.binary(max_size=20) | st.just(b"x" * 70_000), max_size=6), st.booleans())
def test_lines(lines: list[bytes], ended: bool) -> None:
    whole = [line.translate(None, b"\r\n") for line in lines]
    data = b"\n".join(whole) + b"\n" * (ended and bool(whole))
    expected = data.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert trio.run(read, data) == expected


async def test_a_large_line_is_one_and_one_without_end_is_refused() -> None:
    large = b"x" * (1 << 20)
    assert await read(b"a\r\n" + large + b"\nb", most=1 << 20) == [b"a", large, b"b"]
    with pytest.RaisesGroup(pytest.RaisesExc(MessageTooLarge)):
        await read(large * 2, most=1 << 20)
