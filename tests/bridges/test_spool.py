"""The spool by itself: what was stored is there again, in order, within its bound, whoever died."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest
import trio

from bridges.spool import Row, open_spool
from bridges.window import SeenWindow
from mesh.errors import ConfigError

ROOM = 100_000


def rows(*numbers: int) -> list[Row]:
    return [Row("origin", number, b"%d" % number) for number in numbers]


async def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    async with open_spool(folder, "x", limit=ROOM, when_full="block") as spool:
        await spool.append("one", rows(1, 2, 3))
        await spool.append("two", rows(9))
        await spool.remove([(await spool.peek("one", 1))[0].number])
    async with open_spool(folder, "x", limit=ROOM, when_full="block") as spool:
        assert [row.sequence for row in await spool.peek("one", 10)] == [2, 3]
        assert [row.payload for row in await spool.peek("two", 10)] == [b"9"]
        assert spool.messages == 3
        assert spool.statistics().age >= 0
        (file,) = folder.glob("*.spool")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_two_at_once_have_a_spool_each_and_a_third_adopts(tmp_path: Path) -> None:
    async with (
        open_spool(tmp_path, "x", limit=ROOM, when_full="block") as first,
        open_spool(tmp_path, "x", limit=ROOM, when_full="block") as second,
    ):
        await first.append("r", rows(1))
        await second.append("r", rows(2))
        assert [row.sequence for row in await second.peek("r", 10)] == [2]
    async with open_spool(tmp_path, "x", limit=ROOM, when_full="block") as third:
        assert [row.sequence for row in await third.peek("r", 10)] == [1, 2]
        assert len(list(tmp_path.glob("*.spool"))) == 1


async def test_block_waits_for_room(tmp_path: Path) -> None:
    async with (
        open_spool(tmp_path, "x", limit=5 * 65, when_full="block") as spool,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(spool.append, "r", rows(*range(8)))
        with trio.fail_after(30):
            while not spool.full:  # noqa: ASYNC110 - a snapshot, as a program would take it
                await trio.sleep(0.01)
            taken = [row.number for row in await spool.peek("r", 10)]
            assert len(taken) == 5
            await spool.remove(taken)
            while spool.messages < 3:  # noqa: ASYNC110 - likewise
                await trio.sleep(0.01)
        assert [row.sequence for row in await spool.peek("r", 10)] == [5, 6, 7]
        assert spool.dropped == 0


async def test_what_never_fits_is_dropped_and_the_rest_goes_on(tmp_path: Path) -> None:
    async with open_spool(tmp_path, "x", limit=1000, when_full="block") as spool:
        await spool.append("r", [*rows(1), Row("origin", 2, bytes(2000)), *rows(3)])
        assert [row.sequence for row in await spool.peek("r", 10)] == [1, 3]
        assert spool.dropped == 1


async def test_a_disk_that_refuses_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_spool(tmp_path, "x", limit=ROOM, when_full="block") as spool:
        write = spool._write
        refusals = [sqlite3.OperationalError("database or disk is full")]

        def refuse_once(statement: str, values: list[tuple[object, ...]]) -> None:
            if refusals:
                raise refusals.pop()
            write(statement, values)

        monkeypatch.setattr(spool, "_write", refuse_once)
        await spool.append("r", rows(1))
        assert [row.sequence for row in await spool.peek("r", 10)] == [1]


async def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="no spool can be kept there") as caught:
        async with open_spool(tmp_path / "file", "x", limit=ROOM, when_full="block"):
            pass
    assert caught.value.key == "spool.folder"


def test_the_window_of_ids() -> None:
    seen = SeenWindow(2)
    assert [seen.first_time(each) for each in ("a", "a", "b", "c", "a", "", "")] == [
        True, False, True, True, True, True, True,
    ]  # fmt: skip
    assert ("c" in seen, "b" in seen, len(seen)) == (True, False, 2)
