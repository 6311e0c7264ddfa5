"""The block of ``request_many`` is the program's: what it raises comes out of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

import pytest
import trio
import trio.testing

from mesh.node.node import Node
from mesh.node.request import Request

MeshOf = Callable[..., AbstractAsyncContextManager[list[Node]]]


async def endless(request: Request) -> AsyncGenerator[int, None]:
    yield 1
    await trio.sleep_forever()


@pytest.mark.parametrize("later", [False, True])
async def test_what_the_block_raises_comes_out_of_it(mesh_of: MeshOf, later: bool) -> None:
    async with mesh_of(2) as (a, b), trio.open_nursery() as nursery:
        await nursery.start(partial(b.serve, "endless", endless))
        with pytest.raises(ZeroDivisionError):
            async with a.request_many("endless") as replies:
                assert (await replies.__anext__()).value == 1
                if later:
                    await trio.testing.wait_all_tasks_blocked()
                raise ZeroDivisionError
        nursery.cancel_scope.cancel()
