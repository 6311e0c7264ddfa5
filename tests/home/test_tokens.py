"""Tokens of the web gateway: shown once, kept as hashes, counting from the moment they are made until they are gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.errors import CredentialError
from mesh.home.tokens import TokenFile


def test_a_life(tmp_path: Path) -> None:
    home = tmp_path / "home"
    reader, writer = TokenFile(home), TokenFile(home)
    assert reader.all() == ()
    token = writer.create("panel", ["subscribe:**"], None)
    found = reader.find(token)
    assert found is not None
    assert (found.name, found.scopes, found.expires) == ("panel", ("subscribe:**",), 0)
    assert reader.find(token + "x") is None
    assert reader.find("") is None
    assert reader.find("\ud800") is None
    text = (home / "tokens.json").read_text()
    assert token not in text
    assert (home / "tokens.json").stat().st_mode & 0o777 == 0o600
    assert writer.revoke(found.id) == found
    assert reader.find(token) is None
    assert reader.all() == ()


def test_tokens_end(tmp_path: Path) -> None:
    now = 1000.0
    tokens = TokenFile(tmp_path / "home", clock=lambda: now)
    token = tokens.create("", [], 60.0)
    assert tokens.find(token)
    now = 1060.0
    assert tokens.find(token) is None
    tokens.create("next", [], None)
    assert [each.name for each in tokens.all()] == ["next"]
    with pytest.raises(CredentialError, match="no token has the id or name 'x'"):
        tokens.revoke("x")


def test_two_of_a_name_are_told_apart_by_id(tmp_path: Path) -> None:
    tokens = TokenFile(tmp_path / "home")
    tokens.create("twin", [], None)
    tokens.create("twin", [], None)
    with pytest.raises(CredentialError, match="several tokens have"):
        tokens.revoke("twin")
    tokens.revoke(tokens.all()[0].id)
    tokens.revoke("twin")
    assert tokens.all() == ()


@pytest.mark.parametrize(
    "text", ['{"format":1}', '{"format":1,"tokens":[{}]}', '{"format":1,"tokens":[{"id":1}]}', "x"]
)
def test_a_damaged_file_is_said(tmp_path: Path, text: str) -> None:
    home = tmp_path / "home"
    tokens = TokenFile(home)
    tokens.create("", [], None)
    (home / "tokens.json").write_text(text)
    with pytest.raises(CredentialError, match=r"tokens\.json"):
        tokens.all()
