"""Standard input, line by line as it comes, without a thread that could outlive the command."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import trio

__all__ = ["lines"]

_READ = 65536


async def lines(fd: int = 0) -> AsyncIterator[bytes]:
    """Each line of a file descriptor, without its end, until the end of the input."""
    rest = b""
    while chunk := await _read(fd):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r")
    if rest:
        yield rest


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
