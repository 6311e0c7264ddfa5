from __future__ import annotations

import json
import socket
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from mesh.daemon.control import MAX_REQUEST, Control, DaemonError, NoDaemon, ask, listen_to
from mesh.errors import TransportError, UnknownPeer


async def echo(request: Mapping[str, Any]) -> Any:
    return request.get("value")


async def refuse(request: Mapping[str, Any]) -> Any:
    raise UnknownPeer("cellar")


async def break_down(request: Mapping[str, Any]) -> Any:
    raise ValueError("a bug")


async def count(request: Mapping[str, Any]) -> AsyncIterator[Any]:
    for number in range(3):
        yield number


async def forever(request: Mapping[str, Any]) -> AsyncIterator[Any]:
    yield "first"
    await trio.sleep_forever()


@asynccontextmanager
async def control(path: Path) -> AsyncIterator[None]:
    server = Control(
        path, {"echo": echo, "refuse": refuse, "break": break_down}, {"count": count, "forever": forever}
    )
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            yield
            nursery.cancel_scope.cancel()


async def test_questions_and_answers(tmp_path: Path) -> None:
    path = tmp_path / "daemon.sock"
    async with control(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await ask(tmp_path, path, "echo", value={"a": [1, "ä"]}) == {"a": [1, "ä"]}
        with pytest.raises(DaemonError, match="no such peer: 'cellar'") as caught:
            await ask(tmp_path, path, "refuse")
        assert caught.value.type_name == "UnknownPeer"
        with pytest.raises(DaemonError, match="no operation 'nonsense'"):
            await ask(tmp_path, path, "nonsense")
    assert not path.exists()


async def test_a_mistake_in_an_operation_is_answered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "daemon.sock"
    async with control(path):
        with pytest.raises(DaemonError, match="a bug"):
            await ask(tmp_path, path, "break")
        assert await ask(tmp_path, path, "echo", value=1) == 1
    assert "a bug" in caplog.text


async def test_streams_end_on_either_side(tmp_path: Path) -> None:
    path = tmp_path / "daemon.sock"
    async with control(path):
        assert [item async for item in listen_to(tmp_path, path, "count")] == [0, 1, 2]
        items = listen_to(tmp_path, path, "forever")
        assert await anext(items) == "first"
        await items.aclose()  # type: ignore[attr-defined]
        assert await ask(tmp_path, path, "echo", value=2) == 2


async def test_what_is_no_request_is_answered_or_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "daemon.sock"
    async with control(path):
        for line in (b"\n", b"[1]\n", b"{}\n", b"\xff\n", b"[" * 5000 + b"\n"):
            async with await trio.open_unix_socket(str(path)) as stream:
                await stream.send_all(line)
                await stream.send_eof()
                answer = b""
                async for chunk in stream:
                    answer += chunk
                assert answer == b"" or "error" in json.loads(answer)
        async with await trio.open_unix_socket(str(path)) as stream:
            with pytest.raises(trio.BrokenResourceError):
                for _ in range(1000):
                    await stream.send_all(b"x" * MAX_REQUEST)
        assert await ask(tmp_path, path, "echo", value=3) == 3


async def test_no_daemon(tmp_path: Path) -> None:
    path = tmp_path / "daemon.sock"
    with pytest.raises(NoDaemon, match="start `mesh daemon`"):
        await ask(tmp_path, path, "echo")
    with socket.socket(socket.AF_UNIX) as dead:  # what a killed daemon leaves
        dead.bind(str(path))
    with pytest.raises(NoDaemon):
        await ask(tmp_path, path, "echo")
    async with control(path):
        assert await ask(tmp_path, path, "echo", value=4) == 4


async def test_a_deep_home_fits(tmp_path: Path) -> None:
    home = tmp_path / ("x" * 120)
    home.mkdir()
    path = home / "daemon.sock"
    async with control(path):
        assert path.is_socket()
        assert await ask(home, path, "echo", value=5) == 5


async def test_a_path_that_cannot_be_bound(tmp_path: Path) -> None:
    server = Control(tmp_path / "nowhere" / "daemon.sock", {}, {})
    with pytest.raises(TransportError, match=r"daemon\.sock"):
        await server.run()
