from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from mesh.errors import CredentialError
from mesh.home import store
from mesh.home.store import PrivateFolder

not_as_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may enter and write everywhere")


@pytest.fixture
def folder(tmp_path: Path) -> PrivateFolder:
    return PrivateFolder(tmp_path / "home")


def write(folder: PrivateFolder, value: dict[str, Any], name: str = "a.json") -> Path:
    with folder.locked():
        folder.write(name, value)
    return folder.path / name


def refused(folder: PrivateFolder, words: str, name: str = "a.json") -> None:
    with pytest.raises(CredentialError, match=words) as caught:
        folder.read(name)
    assert caught.value.path.startswith(str(folder.path))


def test_round_trip(folder: PrivateFolder) -> None:
    assert folder.read("a.json") is None
    assert not folder.path.exists()  # reading makes nothing
    path = write(folder, {"x": [1]})
    assert folder.read("a.json") == {"format": 1, "x": [1]}
    assert path.stat().st_mode & 0o777 == 0o600
    assert folder.path.stat().st_mode & 0o777 == 0o700
    with folder.locked():
        folder.remove("a.json")
        folder.remove("a.json")
    assert folder.read("a.json") is None


def test_the_umask_changes_nothing(folder: PrivateFolder) -> None:
    before = os.umask(0o777)
    try:
        folder.path.mkdir()
        folder.path.chmod(0o700)
        path = write(folder, {})
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_stamp_changes_with_the_file(folder: PrivateFolder) -> None:
    assert folder.stamp("a.json") is None
    write(folder, {"x": 1})
    first = folder.stamp("a.json")
    write(folder, {"x": 2})
    assert folder.stamp("a.json") not in (None, first)


def test_a_failed_write_leaves_the_old_file(folder: PrivateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, {"x": "old"})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(store.os, "fsync", full)
        with pytest.raises(CredentialError, match=r"a\.json: cannot be written: No space left"):
            write(folder, {"x": "new"})
    assert folder.read("a.json") == {"format": 1, "x": "old"}
    write(folder, {"x": "new"})  # what the failed one left is in nobody's way
    assert sorted(path.name for path in folder.path.iterdir()) == ["a.json", "lock"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_files_that_others_can_read(folder: PrivateFolder, mode: int) -> None:
    write(folder, {}).chmod(mode)
    refused(folder, "others can read this secret: chmod 600")


def test_files_of_others(folder: PrivateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, {})
    someone = os.geteuid() + 1
    monkeypatch.setattr(store.os, "geteuid", lambda: someone)
    refused(folder, "belongs to user")


def test_folders_that_others_can_change(folder: PrivateFolder) -> None:
    write(folder, {})
    folder.path.chmod(0o770)
    refused(folder, "chmod 700")
    with pytest.raises(CredentialError, match="chmod 700"), folder.locked():
        pass


def test_an_empty_folder_is_made_private_and_a_used_one_is_left_alone(tmp_path: Path) -> None:
    for name, kept in (("empty", 0o700), ("used", 0o755)):
        path = tmp_path / name
        path.mkdir()
        path.chmod(0o755)
        if name == "used":
            (path / "mesh.toml").touch()
        write(PrivateFolder(path), {})
        assert path.stat().st_mode & 0o777 == kept


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "format None"),
        (b'{"format": 2}', "format 2"),
    ],
)
def test_damaged_files(folder: PrivateFolder, text: bytes, words: str) -> None:
    write(folder, {}).write_bytes(text)
    refused(folder, rf"the file is damaged .*{words}.*: restore it from a backup, or move it away")


def test_a_folder_in_the_place_of_a_file(folder: PrivateFolder) -> None:
    with folder.locked():
        (folder.path / "a.json").mkdir(mode=0o700)
    refused(folder, "not a file")


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    folder = PrivateFolder(tmp_path / "home")
    refused(folder, "cannot be read")
    with pytest.raises(CredentialError, match="not a folder"), folder.locked():
        pass


@not_as_root
def test_a_folder_that_cannot_be_entered(folder: PrivateFolder) -> None:
    write(folder, {})
    folder.path.chmod(0)
    try:
        refused(folder, "Permission denied")
    finally:
        folder.path.chmod(0o700)


def test_the_lock_is_nested_and_holds_off_others(
    folder: PrivateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LOCK_PATIENCE", 0.05)
    other = PrivateFolder(folder.path)
    with folder.locked():
        with folder.locked():
            pass
        with pytest.raises(CredentialError, match="another process has kept it locked"), other.locked():
            pass
        failures: list[CredentialError] = []

        def in_another_thread() -> None:
            try:
                with folder.locked():
                    pass
            except CredentialError as error:
                failures.append(error)

        thread = threading.Thread(target=in_another_thread)
        thread.start()
        thread.join()
        assert "another thread" in str(failures[0])
    with other.locked():
        pass
