from __future__ import annotations

import pytest
import trio

from mesh.node.background import background


async def test_the_end_of_its_own_scope_is_its_own_affair() -> None:
    reached = False
    async with background() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.cancel_scope.cancel()
        await trio.sleep_forever()
    reached = True
    assert reached


async def test_a_cancel_from_outside_passes_through() -> None:
    with trio.CancelScope() as scope:
        async with background() as nursery:
            nursery.start_soon(trio.sleep_forever)
            scope.cancel()
            await trio.sleep_forever()
        raise AssertionError("not reached")
    assert scope.cancelled_caught


async def test_the_blocks_own_exception_is_not_wrapped() -> None:
    with pytest.raises(KeyError):
        async with background() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise KeyError("the program's")
