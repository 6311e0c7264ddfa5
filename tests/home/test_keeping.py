"""A node that runs, and its home: what changes in one changes in the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

import mesh
from mesh.core.types import MemberId
from mesh.home import Home

PATIENCE = 30.0


async def until(so: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not so():  # noqa: ASYNC110 - a file on the disk says nothing
            await trio.sleep(0.05)


def version(home: Home) -> int:
    listed = home.credentials(create=False).revocations
    assert listed is not None
    return listed.version


async def test_what_another_program_of_the_home_revokes(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.init("orchard")
    async with mesh.open_node("a", home=home.path, listen=["tcp://127.0.0.1:0"], discovery=()) as node:
        standing = node._engine.standing
        assert standing.version == version(home) == 1
        home.revoke(MemberId(bytes(16)))
        await until(lambda: standing.version == 2)
        assert node._engine.broadcast.secret_epoch == 2


async def test_what_a_peer_tells_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """… also if the disk refuses at first."""
    home = Home(tmp_path / "home")
    before = home.init("orchard")
    newer = home.revoke(MemberId(bytes(16)))
    with home._folder.locked():
        home._write(before)  # as a member has it who has not heard yet
    refusals = iter([mesh.CredentialError("the disk is full")])
    store = Home.store_revocations

    def stubborn(self: Home, encoded: bytes, secret: bytes) -> object:
        for refusal in refusals:
            raise refusal
        return store(self, encoded, secret)

    monkeypatch.setattr(Home, "store_revocations", stubborn)
    async with mesh.open_node("a", home=home.path, listen=["tcp://127.0.0.1:0"], discovery=()) as node:
        assert version(home) == 1
        assert node.credentials.adopt_revocations(newer.revocations_bytes, newer.secret)
        await until(lambda: version(home) == 2)
        assert not node.credentials.adopt_revocations(newer.revocations_bytes, newer.secret)
    assert home.credentials().secret == newer.secret
    assert "credentials: the disk is full" in caplog.text
