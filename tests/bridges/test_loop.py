"""The asyncio loop beside Trio: outcomes and cancellation cross, and no thread is left."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError

import pytest
import trio

from bridges.loop import Inbox, open_loop


def threads(name: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == name]


async def test_a_call_runs_on_the_loop_and_its_outcome_comes_back() -> None:
    async def where(word: str) -> tuple[str, str]:
        await asyncio.sleep(0)
        return word, threading.current_thread().name

    async with open_loop("beside") as loop:
        assert await loop.run(where, "hello") == ("hello", "beside")
    assert not threads("beside")


async def test_what_it_raises_is_raised_here() -> None:
    async def fail() -> None:
        raise LookupError("over there")

    async with open_loop("beside") as loop:
        with pytest.raises(LookupError, match="over there"):
            await loop.run(fail)
        # One failure is no end.
        assert await loop.run(asyncio.sleep, 0, "on") == "on"


async def test_a_cancel_of_its_own_is_an_ordinary_error_here() -> None:
    async def give_up() -> None:
        raise asyncio.CancelledError

    async with open_loop("beside") as loop:
        with pytest.raises(CancelledError):
            await loop.run(give_up)


async def test_calls_run_at_once() -> None:
    async with open_loop("beside") as loop, trio.open_nursery() as nursery:
        met = await loop.run(make_barrier, 3)
        for _ in range(3):
            nursery.start_soon(loop.run, met.wait)


async def make_barrier(parties: int) -> asyncio.Event:
    """An event that is set when so many wait for it."""

    class Met(asyncio.Event):
        async def wait(self) -> bool:
            nonlocal parties
            parties -= 1
            if not parties:
                self.set()
            return await super().wait()

    return Met()


async def test_cancelling_reaches_the_other_side_and_waits_for_its_end() -> None:
    begun, tidied = trio.Event(), []
    token = trio.lowlevel.current_trio_token()

    async def hang() -> None:
        token.run_sync_soon(begun.set)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            tidied.append(True)

    async with open_loop("beside") as loop, trio.open_nursery() as nursery:
        nursery.start_soon(loop.run, hang)
        await begun.wait()
        nursery.cancel_scope.cancel()
    assert tidied == [True]


async def test_what_was_done_all_the_same_is_known() -> None:
    begun = trio.Event()
    token = trio.lowlevel.current_trio_token()

    async def stubborn() -> str:
        token.run_sync_soon(begun.set)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
        return "done"

    async with open_loop("beside") as loop, trio.open_nursery() as nursery:
        results: list[str] = []

        async def call() -> None:
            results.append(await loop.run(stubborn))

        nursery.start_soon(call)
        await begun.wait()
        nursery.cancel_scope.cancel()
    assert results == ["done"]


async def test_a_scope_that_is_cancelled_already_begins_nothing() -> None:
    begun: list[bool] = []

    async def work() -> None:
        begun.append(True)

    async with open_loop("beside") as loop:
        with trio.CancelScope() as scope:
            scope.cancel()
            await loop.run(work)
        assert scope.cancelled_caught
        await loop.run(asyncio.sleep, 0)
    assert not begun


async def test_leaving_ends_what_still_runs_there() -> None:
    ended: list[bool] = []

    async def for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def spawn() -> asyncio.Task[None]:
        task = asyncio.create_task(for_ever())
        await asyncio.sleep(0)
        return task

    async with open_loop("beside") as loop:
        await loop.run(spawn)
        assert not ended
    assert ended == [True]
    assert not threads("beside")


async def test_what_is_posted_runs_in_order() -> None:
    done: list[int] = []

    async def note(number: int) -> None:
        done.append(number)

    async with open_loop("beside") as loop:
        for number in range(100):
            loop.post(note, number)
        await loop.run(asyncio.sleep, 0)
        assert done == list(range(100))


async def test_what_begins_because_something_ends_is_ended_too() -> None:
    ended: list[int] = []

    async def for_ever(generation: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(generation)

    tasks: list[asyncio.Task[None]] = []

    def begin(generation: int) -> None:
        task = asyncio.get_running_loop().create_task(for_ever(generation))
        tasks.append(task)
        if generation < 3:
            task.add_done_callback(lambda _: begin(generation + 1))

    async def spawn() -> None:
        begin(1)
        await asyncio.sleep(0)

    async with open_loop("beside") as loop:
        await loop.run(spawn)
    assert all(task.done() for task in tasks)
    assert len(tasks) == 3
    assert ended[0] == 1  # the others may not have begun to run


async def test_an_error_in_the_block_ends_the_thread_too() -> None:
    with pytest.raises(RuntimeError, match="mine"):
        async with open_loop("beside"):
            raise RuntimeError("mine")
    assert not threads("beside")


async def test_items_come_in_order_and_in_batches() -> None:
    async with open_loop("beside") as loop, trio.open_nursery() as nursery:
        inbox: Inbox[int] = Inbox()

        async def produce() -> None:
            for number in range(2000):
                inbox.put(number)
                if number % 7 == 0:
                    await asyncio.sleep(0)
            inbox.fail(EOFError())

        nursery.start_soon(loop.run, produce)
        got: list[int] = []
        with pytest.raises(EOFError):
            while True:
                batch = await inbox.fetch(50)
                assert 0 < len(batch) <= 50
                got += batch
        assert got == list(range(2000))
