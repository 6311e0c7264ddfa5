from __future__ import annotations

import pytest
import trio
import trio.testing

from mesh.node.background import background


async def test_its_scope_is_the_tasks_not_the_blocks() -> None:
    ended = trio.Event()

    async def task() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    with trio.fail_after(30):
        async with background() as nursery:
            nursery.start_soon(task)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            await ended.wait()
            await trio.lowlevel.checkpoint()


async def test_after_a_cancel_the_tasks_go_on_until_the_block_has_left() -> None:
    served = trio.Event()
    asked = trio.Event()

    async def serve() -> None:
        await asked.wait()
        await trio.lowlevel.checkpoint()
        served.set()
        await trio.sleep_forever()

    with trio.fail_after(30), trio.CancelScope() as scope:
        async with background() as nursery:
            nursery.start_soon(serve)
            scope.cancel()
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    asked.set()
                    await served.wait()
    assert scope.cancelled_caught


async def test_a_task_that_fails_ends_the_block() -> None:
    async def fail() -> None:
        raise KeyError("ours")

    with pytest.raises(ExceptionGroup) as caught:
        async with background() as nursery:
            nursery.start_soon(fail)
            await trio.sleep_forever()
    assert caught.group_contains(KeyError, match="ours")


async def test_when_both_fail_both_are_told() -> None:
    async def fail() -> None:
        raise KeyError("ours")

    with pytest.raises(ExceptionGroup) as caught:
        async with background() as nursery:
            nursery.start_soon(fail)
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("the program's")
    assert caught.group_contains(KeyError) and caught.group_contains(ValueError)


async def test_a_keyboard_interrupt_in_a_task_is_the_programs() -> None:
    async def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        async with background() as nursery:
            nursery.start_soon(interrupted)
            await trio.sleep_forever()


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


async def test_one_that_is_cancelled_before_it_begins() -> None:
    with trio.fail_after(30), trio.CancelScope() as scope:
        scope.cancel()
        async with background() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()
    assert scope.cancelled_caught
