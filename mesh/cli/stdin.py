"""Standard input, line by line as it comes, without a thread that could outlive the command."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import trio

from mesh.errors import MessageTooLarge

__all__ = ["lines"]

_READ = 65536


async def lines(fd: int = 0, *, most: int | None = None) -> AsyncIterator[bytes]:
    """Each line of a file descriptor, without its end, until the end of the input.

    Raises ``MessageTooLarge`` once a line has more than ``most`` bytes, before it has ended.
    """
    begun: list[bytes] = []  # of a line whose end has not come
    size = 0
    while chunk := await _read(fd):
        first, *whole = chunk.split(b"\n")
        begun.append(first)
        size += len(first)
        if most is not None and size > most + 1:  # a carriage return may be its last
            raise MessageTooLarge(size, most)
        if not whole:
            continue
        *whole, rest = b"".join(begun), *whole
        for line in whole:
            yield line.removesuffix(b"\r")
        begun, size = [rest], len(rest)
    if size:
        yield b"".join(begun)


async def _read(fd: int) -> bytes:
    while True:
        try:
            await trio.lowlevel.wait_readable(fd)
        except OSError:
            # A regular file or /dev/null: epoll does not take it, and it never blocks.
            await trio.lowlevel.checkpoint()
        try:
            return os.read(fd, _READ)
        except BlockingIOError:  # somebody else read first
            continue
