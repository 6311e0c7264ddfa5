"""The spool by itself: what was stored is there again, in order, within its bound, whoever died."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import trio
import trio.testing
from hypothesis import given

from bridges import spool as module
from bridges.messages import BrokerMessage
from bridges.records import Entry, decode_entries, encode_entries, ranges_of
from bridges.slots import open_spool
from bridges.spool import Spool
from bridges.window import SeenWindow
from mesh.errors import ConfigError

ROOM = 100_000


def entries(*numbers: int, size: int = 1) -> list[Entry]:
    return [("origin", n, BrokerMessage("to", bytes(size), message_id=str(n))) for n in numbers]


@asynccontextmanager
async def opened(folder: Path, *, limit: int = ROOM, full: Any = "block") -> AsyncIterator[Spool]:
    """A spool that writes, as a bridge has it."""
    async with open_spool(folder, "x", limit=limit, when_full=full) as spool, trio.open_nursery() as nursery:
        nursery.start_soon(spool.run)
        yield spool
        nursery.cancel_scope.cancel()


async def numbers(spool: Spool, route: str = "r") -> list[int]:
    """What waits, read as a sender reads it."""
    found: list[int] = []
    after = 0
    while packets := await spool.next(route, after, 3):
        found += [number for packet in packets for _, number, _ in packet.entries]
        assert all(packet.number > after for packet in packets)
        after = packets[-1].number
    return found


async def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    async with opened(folder) as spool:
        await spool.append("one", entries(1))
        await spool.append("one", entries(2, 3))
        await spool.append("two", entries(9, size=7))
        spool.remove([(await spool.next("one", 0, 1))[0].number])
    async with opened(folder) as spool:
        assert await numbers(spool, "one") == [2, 3]
        ((entry,),) = [packet.entries for packet in await spool.next("two", 0, 10)]
        assert entry == ("origin", 9, BrokerMessage("to", bytes(7), message_id="9"))
        assert spool.messages == 3
        assert spool.statistics().age >= 0
        (file,) = folder.glob("*.spool")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        await spool.append("one", entries(4))
        assert await numbers(spool, "one") == [2, 3, 4]


async def test_what_was_appended_is_written_without_anybody_asking(tmp_path: Path) -> None:
    """A killed bridge has it: no flush, no end."""
    async with opened(tmp_path) as spool:
        await spool.append("r", entries(1, 2))
        (file,) = tmp_path.glob("*.spool")
        with trio.fail_after(30):
            while _on_disk(file) < 2:  # noqa: ASYNC110 - another connection's view
                await trio.sleep(0.01)


def _on_disk(file: Path) -> int:
    database = sqlite3.connect(file)
    try:
        (count,) = database.execute("SELECT coalesce(sum(count), 0) FROM packets").fetchone()
    finally:
        database.close()
    return int(count)


async def test_what_is_confirmed_before_the_disk_came_to_it_is_never_written(tmp_path: Path) -> None:
    async with open_spool(tmp_path, "x", limit=ROOM, when_full="block") as spool:  # and nobody writes
        await spool.append("r", entries(1, 2))
        await spool.append("r", entries(3))
        first, second = await spool.next("r", 0, 10)
        spool.remove([first.number])
        assert spool.messages == 1
        await spool.flush()
        (file,) = tmp_path.glob("*.spool")
        assert _on_disk(file) == 1
        spool.remove([second.number])
        await spool.flush()
        assert (_on_disk(file), spool.messages, spool.bytes) == (0, 0, 0)


async def test_what_waits_for_the_disk_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_UNWRITTEN", 2)
    async with (
        open_spool(tmp_path, "x", limit=ROOM, when_full="block") as spool,
        trio.open_nursery() as nursery,
    ):
        await spool.append("r", entries(1))
        await spool.append("r", entries(2))
        with trio.move_on_after(0.05) as scope:
            await spool.append("r", entries(3))
        assert scope.cancelled_caught  # it was taken all the same
        assert await numbers(spool) == [1, 2, 3]
        nursery.start_soon(spool.append, "r", entries(4))
        await trio.testing.wait_all_tasks_blocked()
        await spool.flush()


async def test_the_head_is_bounded_and_the_order_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_HEAD", 4)
    async with opened(tmp_path) as spool:
        for number in range(20):
            await spool.append("r", entries(number))
            await spool.flush()
        assert sum(len(head) for head in spool._head.values()) <= 5
        assert await numbers(spool) == list(range(20))
        first = await spool.next("r", 0, 10)
        spool.remove([packet.number for packet in first])
        assert await numbers(spool) == list(range(10, 20))


async def test_two_at_once_have_a_spool_each_and_a_third_adopts(tmp_path: Path) -> None:
    async with opened(tmp_path) as first, opened(tmp_path) as second:
        await first.append("r", entries(1))
        await second.append("r", entries(2))
        assert await numbers(second) == [2]
    async with opened(tmp_path) as third:
        assert await numbers(third) == [1, 2]
        assert len(list(tmp_path.glob("*.spool"))) == 1


def size_of(one: Sequence[Entry]) -> int:
    return len(encode_entries(one)) + 64


async def test_block_waits_for_room(tmp_path: Path) -> None:
    limit = 5 * size_of(entries(1))
    async with opened(tmp_path, limit=limit) as spool, trio.open_nursery() as nursery:

        async def append() -> None:
            for number in range(8):
                await spool.append("r", entries(number))

        nursery.start_soon(append)
        with trio.fail_after(30):
            while not spool.full:  # noqa: ASYNC110 - a snapshot, as a program would take it
                await trio.sleep(0.01)
            assert await numbers(spool) == [0, 1, 2, 3, 4]
            spool.remove([packet.number for packet in await spool.next("r", 0, 5)])
            while await numbers(spool) != [5, 6, 7]:  # noqa: ASYNC110 - likewise
                await trio.sleep(0.01)
        assert spool.dropped == 0


@pytest.mark.parametrize("full", ["drop_oldest", "drop_newest"])
async def test_what_has_no_room_is_counted(tmp_path: Path, full: str) -> None:
    async with opened(tmp_path, limit=4 * size_of(entries(1)), full=full) as spool:
        for number in range(10):
            await spool.append("r", entries(number))
        kept = await numbers(spool)
        assert len(kept) + spool.dropped == 10
        assert kept == (list(range(10))[-len(kept) :] if full == "drop_oldest" else list(range(len(kept))))
        assert len(kept) >= 3
        assert spool.bytes <= 4 * size_of(entries(1))


async def test_what_never_fits_is_dropped_and_the_rest_goes_on(tmp_path: Path) -> None:
    async with opened(tmp_path, limit=1000) as spool:
        await spool.append("r", [*entries(1), *entries(2, size=2000), *entries(3)])
        assert await numbers(spool) == [1, 3]
        assert spool.dropped == 1


async def test_text_that_cannot_be_stored_is_said_before_anything_is_taken(tmp_path: Path) -> None:
    bad = ("origin", 2, BrokerMessage("to", b"", headers={"h": "\ud800"}))
    async with opened(tmp_path) as spool:
        with pytest.raises(ValueError, match="surrogates"):
            await spool.append("r", [*entries(1), bad])
        assert (spool.messages, spool.bytes) == (0, 0)


async def test_a_disk_that_refuses_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DISK_RETRY", 0.01)
    async with open_spool(tmp_path, "x", limit=ROOM, when_full="block") as spool:
        transact = spool._transact
        refusals = [sqlite3.OperationalError("database or disk is full")] * 2

        def refuse(*arguments: Any) -> Any:
            if refusals:
                raise refusals.pop()
            return transact(*arguments)

        monkeypatch.setattr(spool, "_transact", refuse)
        await spool.append("r", entries(1, 2))
        await spool.flush()
        (file,) = tmp_path.glob("*.spool")
        assert (_on_disk(file), refusals) == (2, [])


async def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="no spool can be kept there") as caught:
        async with open_spool(tmp_path / "file", "x", limit=ROOM, when_full="block"):
            pass
    assert caught.value.key == "spool.folder"


async def test_what_siblings_have_delivered_is_found(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        for numbers_ in ((1, 2), (3, 4), (5, 6)):
            await spool.append("r", entries(*numbers_))
        covered = await spool.covered("r", lambda origin, number: origin == "origin" and number <= 3)
        assert [packet.number for packet in await spool.next("r", 0, 2)] == covered


async def test_a_packet_that_cannot_be_read_says_so_and_is_no_obstacle(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.append("r", entries(1))
        await spool.append("r", entries(2))
    (file,) = tmp_path.glob("*.spool")
    database = sqlite3.connect(file)
    with database:
        database.execute("UPDATE packets SET payload = x'ff' WHERE number = 1")
    database.close()
    async with opened(tmp_path) as spool:
        spoilt, sound = await spool.next("r", 0, 10)
        assert spoilt.fault
        assert [number for _, number, _ in sound.entries] == [2]


# -- records ---------------------------------------------------------------------------------

_TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
_HEADERS = st.dictionaries(_TEXTS, _TEXTS, max_size=3)
_ENTRIES = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.integers(0, 1 << 40),
        st.builds(
            BrokerMessage, _TEXTS, st.binary(max_size=8), _TEXTS, _HEADERS, _TEXTS, _TEXTS,
            st.none() | st.floats(0, 4e9), _TEXTS, _TEXTS, _HEADERS,
        ),
    ),
    max_size=6,
)  # fmt: skip


@given(_ENTRIES, st.data())
def test_entries_come_back_as_they_were(drawn: list[Entry], data: st.DataObject) -> None:
    # Some of them share their headers, as those of one topic do.
    for at in range(1, len(drawn)):
        if data.draw(st.booleans()):
            origin, number, message = drawn[at]
            drawn[at] = (origin, number, message._replace(headers=drawn[at - 1][2].headers))
    assert decode_entries(encode_entries(drawn)) == drawn
    for origin, (first, last) in ranges_of(drawn).items():
        of_it = [number for its, number, _ in drawn if its == origin]
        assert (first, last) == (min(of_it), max(of_it))


@given(st.binary(max_size=64))
def test_what_no_bridge_wrote_is_a_value_error(data: bytes) -> None:
    try:
        decode_entries(data)
    except ValueError:
        pass


def test_the_window_of_ids() -> None:
    seen = SeenWindow(2)
    assert [seen.first_time(each) for each in ("a", "a", "b", "c", "a", "", "")] == [
        True, False, True, True, True, True, True,
    ]  # fmt: skip
    assert ("c" in seen, "b" in seen, len(seen)) == (True, False, 2)
