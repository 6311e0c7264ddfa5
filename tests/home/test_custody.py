"""The CA's key under a passphrase, and on its way from one machine to another."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

import mesh
from mesh.core import renewal
from mesh.core.identity import SigningKey, read_certificate, verify_revocations
from mesh.core.join import Joined, Proven
from mesh.core.types import MemberId
from mesh.errors import CredentialError
from mesh.home import CaLocked, Custody, Home, wrapping
from mesh.home.wrapping import Cost, WrongPassphrase

PASSPHRASE = "correct horse battery"
NEWCOMER = SigningKey.from_seed(b"\7" * 32)


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrapping, "COST", Cost(1, 8, 1))


@pytest.fixture
def desk(tmp_path: Path) -> Home:
    home = Home(tmp_path / "desk")
    home.init("den", "desk")
    return home


def member(ca: Home, folder: Path, name: str) -> Home:
    """The home of one who joined."""
    home = Home(folder / name)
    key = home.new_key()
    ca.invite()
    grant = ca.redeem(Proven(ca.invitations()[-1], key.public, name))
    home.store_grant(
        key,
        Joined(
            grant,
            read_certificate(grant.certificate, grant.ca_public_key),
            verify_revocations(grant.revocations, grant.ca_public_key),
        ),
    )
    return home


def again(home: Home) -> Home:
    """As another process opens it."""
    return Home(home.path)


def files(home: Home) -> str:
    return "".join(each.read_text() for each in home.path.iterdir() if each.is_file())


# -- wrapping -----------------------------------------------------------------------


def test_a_wrapped_key_is_nowhere_in_the_home(desk: Home) -> None:
    seed = json.loads((desk.path / "ca.json").read_text())["seed"]
    Custody(desk).wrap(PASSPHRASE)
    assert seed not in files(desk)
    assert PASSPHRASE not in files(desk)
    other = again(desk)
    assert (other.custodian.state, other.custodian.locked, other.is_ca) == ("wrapped", True, True)
    Custody(other).unlock(PASSPHRASE)
    assert not other.custodian.locked
    Custody(other).lock()
    assert other.custodian.locked
    Custody(other).unwrap(PASSPHRASE)
    assert json.loads((desk.path / "ca.json").read_text())["seed"] == seed
    assert again(desk).custodian.state == "clear"


def test_what_needs_the_key_says_that_it_is_locked_and_changes_nothing(desk: Home, tmp_path: Path) -> None:
    cellar = member(desk, tmp_path, "cellar")
    desk.invite()
    Custody(desk).wrap(PASSPHRASE)
    locked = again(desk)
    before = files(desk)
    acts: list[Callable[[], object]] = [
        lambda: locked.issue(NEWCOMER.public, "attic"),
        lambda: locked.revoke(cellar.credentials().certificate.member),
        lambda: locked.redeem(Proven(locked.invitations()[-1], NEWCOMER.public, "attic")),
        lambda: locked.certify_again(cellar.credentials().certificate),
    ]
    for act in acts:
        with pytest.raises(CaLocked, match="mesh ca unlock"):
            act()
    assert files(desk) == before
    assert {each.name for each in locked.members()} == {"desk", "cellar"}  # no secret
    assert locked.credentials().certificate.name == "desk"
    Custody(locked).unlock(PASSPHRASE)
    for act in acts:
        act()


def test_mistakes_with_passphrases(desk: Home) -> None:
    with pytest.raises(CredentialError, match="at least 8"):
        Custody(desk).wrap("short")
    with pytest.raises(CredentialError, match="is not wrapped"):
        Custody(desk).unwrap(PASSPHRASE)
    Custody(desk).unlock(PASSPHRASE)  # a key in clear needs none
    Custody(desk).wrap(PASSPHRASE)
    with pytest.raises(CredentialError, match="wrapped already"):
        Custody(desk).wrap(PASSPHRASE)
    for act in (Custody(desk).unlock, Custody(desk).unwrap):
        with pytest.raises(WrongPassphrase, match="the passphrase is wrong"):
            act("correct horse batterz")


def test_another_process_wraps_it_anew(desk: Home) -> None:
    """What this process has unlocked counts for as long as the file is what it was."""
    Custody(desk).wrap(PASSPHRASE)
    assert not desk.custodian.locked
    other = Custody(again(desk))
    other.unwrap(PASSPHRASE)
    other.wrap("another passphrase")
    assert desk.custodian.locked
    with pytest.raises(CaLocked):
        desk.issue(NEWCOMER.public, "attic")


# -- from one machine to another -------------------------------------------------------


def test_the_ca_moves(desk: Home, tmp_path: Path) -> None:
    cellar, attic = member(desk, tmp_path, "cellar"), member(desk, tmp_path, "attic")
    seed = json.loads((desk.path / "ca.json").read_text())["seed"]
    desk.revoke(attic.credentials().certificate.member)
    invitation = desk.invite()
    file = tmp_path / "ca.sealed"
    assert Custody(desk).hand_over(file, "cellar", PASSPHRASE)[1] == "cellar"

    sealed = file.read_text()
    assert (file.stat().st_mode & 0o777, seed in sealed, invitation.secret.hex() in sealed) == (
        0o600,
        False,
        False,
    )
    assert seed not in files(desk)
    old = again(desk)
    assert (old.is_ca, old.custodian.moved_to[1]) == (False, "cellar")
    with pytest.raises(CredentialError, match=r"not in this home: it was given to cellar on \d{4}-\d\d-\d\d"):
        old.invite()
    with pytest.raises(CredentialError, match="given to cellar"):
        Custody(old).hand_over(tmp_path / "another", "cellar", PASSPHRASE)

    Custody(cellar).take_over(file, PASSPHRASE)
    new = again(cellar)
    assert new.custodian.state == "wrapped"  # under the file's passphrase
    Custody(new).unlock(PASSPHRASE)
    assert {each.name: each.revoked for each in new.members()} == {
        "desk": False,
        "cellar": False,
        "attic": True,
    }
    assert [each.secret for each in new.invitations()][-1] == invitation.secret  # may still be used
    listed = new.credentials().revocations
    assert listed is not None and listed.members == {attic.credentials().certificate.member}
    # What the new one issues is newer than all that was before, and the old one takes it.
    after = new.revoke(MemberId(b"x" * 16))
    assert after.revocations is not None and after.revocations.version > listed.version
    assert old.store_revocations(after.revocations_bytes, after.secret).revocations == after.revocations
    encoded = new.certify_again(old.credentials().certificate)
    assert encoded is not None
    assert old.store_certificate(encoded).certificate_bytes == encoded


def test_two_holders_never_make_two_things_with_one_number(desk: Home, tmp_path: Path) -> None:
    """Not even where somebody cheats with a copy of the whole home, made before it gave the key away."""
    cellar = member(desk, tmp_path, "cellar")
    shutil.copytree(desk.path, tmp_path / "copy")
    Custody(desk).hand_over(tmp_path / "file", "cellar", PASSPHRASE)
    Custody(cellar).take_over(tmp_path / "file", PASSPHRASE)
    cheat, new = Home(tmp_path / "copy"), cellar
    versions, serials = set(), set()
    for number in range(3):
        for home in (cheat, new):
            listed = home.revoke(MemberId(bytes([number]) * 16)).revocations
            assert listed is not None
            versions.add(listed.version)
            key = SigningKey.from_seed(bytes([number + 9]) * 32)
            certificate = read_certificate(home.issue(key.public, "x"), new.credentials().ca_public_key)
            serials.add(certificate.serial)
    assert len(versions) == len(serials) == 6
    assert max(versions) == new.credentials().revocations.version  # type: ignore[union-attr]


def test_a_file_is_for_one_member_and_one_time(desk: Home, tmp_path: Path) -> None:
    cellar, attic = member(desk, tmp_path, "cellar"), member(desk, tmp_path, "attic")
    stranger = Home(tmp_path / "stranger")
    stranger.init("other")
    file, back = tmp_path / "file", tmp_path / "back"
    Custody(desk).hand_over(file, "cellar", PASSPHRASE)
    for home, why in (
        (attic, "it is for cellar"),
        (desk, "it is for cellar"),
        (stranger, "the CA of mesh 'den', and this home is a member of 'other'"),
    ):
        with pytest.raises(CredentialError, match=why):
            Custody(home).take_over(file, PASSPHRASE)
    with pytest.raises(CredentialError, match="can be taken back"):
        Custody(attic).take_over(file, PASSPHRASE, take_back=True)
    with pytest.raises(WrongPassphrase, match=r"file: the passphrase is wrong"):
        Custody(cellar).take_over(file, "correct horse batterz")
    assert not cellar.is_ca
    Custody(cellar).take_over(file, PASSPHRASE)
    with pytest.raises(CredentialError, match="holds the CA key already"):
        Custody(cellar).take_over(file, PASSPHRASE)
    Custody(cellar).hand_over(back, "desk", PASSPHRASE)
    with pytest.raises(CredentialError, match="it has been used"):
        Custody(cellar).take_over(file, PASSPHRASE)
    heard = cellar.credentials()  # … as the mesh passes on
    desk.store_revocations(heard.revocations_bytes, heard.secret)
    with pytest.raises(CredentialError, match="cellar has taken it over already"):
        Custody(desk).take_over(file, PASSPHRASE, take_back=True)
    Custody(desk).take_over(back, PASSPHRASE)
    assert desk.is_ca and not cellar.is_ca


def test_a_file_that_never_arrived_is_taken_back(desk: Home, tmp_path: Path) -> None:
    cellar = member(desk, tmp_path, "cellar")
    file = tmp_path / "file"
    Custody(desk).hand_over(file, "cellar", PASSPHRASE)
    Custody(desk).take_over(file, PASSPHRASE, take_back=True)
    assert desk.is_ca
    mine = desk.revoke(MemberId(bytes(16))).revocations
    # Should cellar import it all the same: other numbers, and the home that took it back counts.
    Custody(cellar).take_over(file, PASSPHRASE)
    theirs = cellar.revoke(MemberId(bytes(16))).revocations
    assert mine is not None and theirs is not None and mine.version > theirs.version


def test_mistakes_with_files(desk: Home, tmp_path: Path) -> None:
    cellar = member(desk, tmp_path, "cellar")
    file = tmp_path / "file"
    for to, why in (("desk", "desk is this machine"), ("nobody", "there is no member 'nobody'")):
        with pytest.raises(CredentialError, match=why):
            Custody(desk).hand_over(file, to, PASSPHRASE)
    file.write_text("something")
    with pytest.raises(CredentialError, match="exists already"):
        Custody(desk).hand_over(file, "cellar", PASSPHRASE)
    with pytest.raises(CredentialError, match="cannot be written: No such file"):
        Custody(desk).hand_over(tmp_path / "no" / "folder", "cellar", PASSPHRASE)
    assert desk.is_ca
    for text in ("something", "{}", "[]", '{"what": "zeromesh CA, handed over"}'):
        file.write_text(text)
        with pytest.raises(CredentialError, match="no file of `mesh ca export`"):
            Custody(cellar).take_over(file, PASSPHRASE)
    with pytest.raises(CredentialError, match="cannot be read"):
        Custody(cellar).take_over(tmp_path / "nothing", PASSPHRASE)
    Custody(desk).hand_over(tmp_path / "good", "cellar", PASSPHRASE)
    value = json.loads((tmp_path / "good").read_text())
    for name, wrong in (
        ("term", 99),
        ("to_name", "x"),
        ("sealed", "00" * 40),
        ("memory", 1 << 40),
        ("salt", 5),
    ):
        file.write_text(json.dumps({**value, name: wrong}))
        with pytest.raises(CredentialError):
            Custody(cellar).take_over(file, PASSPHRASE)
    assert not cellar.is_ca


def test_the_file_has_the_wrapped_keys_passphrase(desk: Home, tmp_path: Path) -> None:
    cellar = member(desk, tmp_path, "cellar")
    Custody(desk).wrap(PASSPHRASE)
    with pytest.raises(WrongPassphrase):
        Custody(again(desk)).hand_over(tmp_path / "file", "cellar", "something else")
    assert not (tmp_path / "file").exists()
    assert desk.is_ca
    Custody(again(desk)).hand_over(tmp_path / "file", "cellar", PASSPHRASE)
    Custody(cellar).take_over(tmp_path / "file", PASSPHRASE)


# -- with nodes that run ----------------------------------------------------------------


async def test_certificates_are_renewed_by_whoever_holds_the_unlocked_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In their last month, without a restart: not while the key is locked; after that; and by its new holder."""
    monkeypatch.setattr(renewal, "ASK_EVERY", 0.2)
    monkeypatch.setattr(renewal, "GRANT_EVERY", 0.1)
    monkeypatch.setattr(renewal, "LOOK_EVERY", 0.2)
    then = time.time() - 350 * 86400
    past = Home(tmp_path / "desk", clock=lambda: then)
    past.init("den", "desk")
    attic, cellar = (Home(member(past, tmp_path, name).path) for name in ("attic", "cellar"))
    Custody(past).wrap(PASSPHRASE)
    desk = again(past)

    def serial(home: Home) -> int:
        return home.credentials(create=False).certificate.serial

    async def until(so: Callable[[], bool]) -> None:
        with trio.fail_after(60):
            while not so():  # noqa: ASYNC110 - a file on the disk says nothing
                await trio.sleep(0.05)

    first = {home: serial(home) for home in (desk, attic, cellar)}
    nodes = {"listen": ["tcp://127.0.0.1:0"], "discovery": ()}
    async with mesh.open_node("desk", home=desk, **nodes) as hub:
        seeds = {**nodes, "connect": hub.endpoints}
        async with mesh.open_node("attic", home=attic, **seeds):
            await until(lambda: "the CA key is wrapped" in caplog.text)
            assert {home: serial(home) for home in (desk, attic, cellar)} == first
            await trio.to_thread.run_sync(Custody(desk).unlock, PASSPHRASE)
            await until(lambda: serial(attic) > first[attic] and serial(desk) > first[desk])
            # The CA goes to cellar, whose own certificate is as old; desk's node runs on, and issues nothing more.
            await trio.to_thread.run_sync(Custody(desk).hand_over, tmp_path / "file", "cellar", PASSPHRASE)
            await trio.to_thread.run_sync(lambda: Custody(cellar).take_over(tmp_path / "file", PASSPHRASE))
            async with mesh.open_node("cellar", home=cellar, **seeds) as node:
                await until(lambda: serial(cellar) > 1 << 32)  # by itself
                with trio.fail_after(60):
                    await node.wait_for_peers(2)
    assert caplog.text.count("the CA key is wrapped") == 1
    assert PASSPHRASE not in caplog.text
