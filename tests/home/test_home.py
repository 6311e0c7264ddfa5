from __future__ import annotations

import json
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mesh.core.identity import (
    SigningKey,
    issue_revocations,
    read_certificate,
    verify_certificate,
    verify_revocations,
)
from mesh.core.join import Grant, Joined, Proven
from mesh.core.types import CredentialRejected, MemberId, Reason, mesh_id
from mesh.errors import CredentialError
from mesh.home import CERTIFICATE_LIFETIME, Credentials, Home, authority, default_home

NOW = 1_800_000_000.0
DAY = 86400
NEWCOMER = SigningKey.from_seed(b"\7" * 32)


class Clock:
    """Wall-clock seconds that a test turns."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def home(tmp_path: Path, clock: Clock) -> Home:
    return Home(tmp_path / "home", clock=clock)


@pytest.fixture
def other(tmp_path: Path, clock: Clock) -> Home:
    return Home(tmp_path / "other", clock=clock)


def join(ca: Home, newcomer: Home, **invitation: Any) -> Credentials:
    """The newcomer becomes a member, as after a handshake that went well."""
    key = newcomer.new_key()
    return newcomer.store_grant(key, joined(ca, key, **invitation))


def joined(ca: Home, key: SigningKey, **invitation: Any) -> Joined:
    ca.invite(**invitation)
    grant = ca.redeem(Proven(ca.invitations()[-1], key.public, "attic"))
    return as_joined(grant)


def as_joined(grant: Grant) -> Joined:
    return Joined(
        grant,
        read_certificate(grant.certificate, grant.ca_public_key),
        verify_revocations(grant.revocations, grant.ca_public_key) if grant.revocations else None,
    )


# -- where --------------------------------------------------------------------


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MESH_HOME", str(tmp_path / "x"))
    assert default_home() == tmp_path / "x"
    assert Home().path == tmp_path / "x"
    monkeypatch.setenv("MESH_HOME", "~/y")
    assert default_home() == Path.home() / "y"
    monkeypatch.setenv("MESH_HOME", "")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    if sys.platform == "linux":
        assert default_home() == tmp_path / "data" / "zeromesh"
    assert Home(tmp_path).path == tmp_path


# -- first use and init ---------------------------------------------------------


def test_first_use_makes_a_mesh(home: Home) -> None:
    made = home.credentials(mesh_name="den", name="desk")
    assert made == home.credentials()  # … and the next one finds it
    assert made.mesh == mesh_id(made.ca_public_key)
    assert (made.mesh_name, made.certificate.name, made.made_here) == ("den", "desk", True)
    assert verify_certificate(made.certificate_bytes, made.ca_public_key, NOW) == made.certificate
    assert made.certificate.public_key == made.key.public
    assert made.certificate.expires == NOW + CERTIFICATE_LIFETIME
    assert made.revocations is not None
    assert made.revocations.fits(made.secret)
    assert not made.revocations.members
    assert home.is_ca
    for file in home.path.iterdir():
        assert file.stat().st_mode & 0o777 == 0o600, file


def test_the_names_of_a_mesh_of_its_own_are_the_machines(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "cellar.example")
    made = home.credentials()
    assert (made.mesh_name, made.certificate.name) == ("cellar", "cellar")


def test_host_names_that_are_no_names(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "")
    assert home.credentials().certificate.name == "node"


def test_secrets_do_not_show(home: Home) -> None:
    made = home.credentials()
    shown = repr(made) + repr(home)
    for secret in (made.secret, made.key.seed):
        assert secret.hex() not in shown
        assert repr(secret) not in shown


def test_nothing_is_made_unasked(home: Home) -> None:
    with pytest.raises(CredentialError, match=r"mesh init.*mesh join"):
        home.credentials(create=False)
    assert not home.is_ca
    assert not home.path.exists()


def test_another_mesh_is_asked_for(home: Home) -> None:
    home.credentials(mesh_name="den")
    with pytest.raises(CredentialError, match="'den', not of 'lab'"):
        home.credentials(mesh_name="lab")


@pytest.mark.parametrize("name", ["", "x" * 65, "two\nlines"])
def test_bad_names(home: Home, name: str) -> None:
    with pytest.raises(CredentialError, match="cannot be a name"):
        home.credentials(mesh_name=name)
    with pytest.raises(CredentialError, match="cannot be a name"):
        home.init("den", name)
    assert not (home.path / "credentials.json").exists()


def test_init(home: Home) -> None:
    made = home.init("den", "desk")
    assert home.credentials() == made
    assert not made.made_here
    with pytest.raises(CredentialError, match=r"member of mesh 'den' already.*start over"):
        home.init("lab")
    assert home.credentials() == made


def test_init_replaces_a_mesh_of_its_own_that_nobody_joined(home: Home) -> None:
    own = home.credentials()
    assert home.init("den").mesh != own.mesh
    assert home.is_ca


def test_init_keeps_a_mesh_of_its_own_that_somebody_was_invited_to(home: Home) -> None:
    home.credentials()
    home.invite()
    with pytest.raises(CredentialError, match="start over"):
        home.init("den")


def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    program = (
        "import sys; from mesh.home import Home\n"
        "sys.stdin.readline(); print(Home(sys.argv[1]).credentials().key.public.hex())"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "home")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = {process.communicate(timeout=60)[0] for process in processes}
    assert all(process.returncode == 0 for process in processes)
    assert len(said) == 1
    assert len(said.pop().strip()) == 64


def test_threads_that_start_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: Home(tmp_path / "home").credentials().mesh, range(16)))
    assert len(set(made)) == 1


# -- damage -------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": "00" * 32},
        {"seed": "xy"},
        {"seed": "00"},
        {"seed": None},
        {"certificate": "00"},
        {"ca_public_key": "00" * 32},
        {"secret": "00"},
        {"secret_epoch": "1"},
        {"secret_epoch": -1},
        {"mesh_name": 7},
        {"revocations": "00"},
    ],
)
def test_damaged_credentials(home: Home, changes: dict[str, Any]) -> None:
    home.credentials()
    path = home.path / "credentials.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(CredentialError, match="damaged") as caught:
        home.credentials()
    assert caught.value.path == str(path)


@pytest.mark.parametrize("name", ["ca.json", "members.json", "invitations.json"])
@pytest.mark.parametrize(
    "text", ["", '{"format": 1}', '{"format": 1, "mesh": "M", "members": [1], "invitations": [{}]}']
)
def test_other_damaged_files(home: Home, name: str, text: str) -> None:
    mesh = home.credentials().mesh.hex()
    home.issue(NEWCOMER.public, "attic")
    home.invite()
    (home.path / name).write_text(text.replace("M", mesh))
    if name != "ca.json" and text == '{"format": 1}':
        return  # of no mesh: left by another one, and counts as not there
    with pytest.raises(CredentialError, match="damaged") as caught:
        home.members() if name != "invitations.json" else home.invitations()
    assert caught.value.path == str(home.path / name)


# -- the authority ------------------------------------------------------------


def test_issue(home: Home) -> None:
    ca = home.credentials(name="desk")
    certificate = verify_certificate(home.issue(NEWCOMER.public, "attic", ("sensor",)), ca.ca_public_key, NOW)
    assert (certificate.name, certificate.roles, certificate.serial) == ("attic", ("sensor",), 2)
    assert certificate.expires == NOW + 365 * DAY
    again = verify_certificate(home.issue(NEWCOMER.public, "attic"), ca.ca_public_key, NOW)
    assert again.serial == 3
    assert [(each.name, each.serial, each.revoked) for each in home.members()] == [
        ("desk", 1, False),
        ("attic", 3, False),
    ]


def test_only_the_ca_may(home: Home, other: Home) -> None:
    home.credentials()
    join(home, other)
    assert not other.is_ca
    assert [each.name for each in other.members()] == ["attic"]
    for call in (
        lambda: other.issue(NEWCOMER.public, "x"),
        lambda: other.revoke(NEWCOMER.member_id),
        other.invite,
        other.invitations,
    ):
        with pytest.raises(CredentialError, match=r"CA key .* is not in this home"):
            call()


def test_revoke(home: Home, other: Home) -> None:
    before = home.credentials()
    revoked = join(home, other).certificate.member
    after = home.revoke(revoked)
    assert after == home.credentials()
    assert after.revocations is not None
    assert after.revocations.version == 2
    assert after.revocations.members == {revoked}
    assert after.secret != before.secret
    assert after.secret_epoch == after.revocations.secret_epoch == 2
    assert after.revocations.fits(after.secret)
    assert [each.revoked for each in home.members()] == [False, True]
    assert home.revoke(revoked) == after
    with pytest.raises(CredentialError, match="has been revoked"):
        home.issue(other.credentials().key.public, "attic")


def test_revoking_oneself(home: Home) -> None:
    with pytest.raises(CredentialError, match="own membership"):
        home.revoke(home.credentials().key.member_id)


def test_the_list_makes_room_for_what_still_counts(
    home: Home, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authority, "MAX_REVOKED", 2)
    home.credentials()
    keys = [SigningKey.from_seed(bytes([i]) * 32) for i in range(20, 24)]
    for key in keys[:2]:
        home.issue(key.public, "old")
        home.revoke(key.member_id)
    home.issue(keys[2].public, "new")
    with pytest.raises(CredentialError, match="new mesh"):
        home.revoke(keys[2].member_id)
    clock.now += CERTIFICATE_LIFETIME + 2 * DAY
    home.credentials()
    after = home.revoke(keys[2].member_id)
    assert after.revocations is not None
    assert after.revocations.members == {keys[2].member_id}
    with pytest.raises(CredentialError, match="revoked"):  # no longer listed, and not forgotten
        home.issue(keys[0].public, "old")


def test_members_by_id_and_name(home: Home) -> None:
    home.credentials(name="desk")
    twins = [SigningKey.from_seed(bytes([i]) * 32) for i in (30, 31)]
    for key in twins:
        home.issue(key.public, "twin")
    first = twins[0].member_id
    assert home.find_member("desk").name == "desk"
    assert home.find_member(first.hex().upper()).id == first
    assert home.find_member(first.hex()[:6]).id == first
    with pytest.raises(CredentialError, match="may be any of"):
        home.find_member("twin")
    home.revoke(first)
    assert home.find_member("twin").id == twins[1].member_id
    for nobody in ("cellar", first.hex()[:3], ""):
        with pytest.raises(CredentialError, match="no member"):
            home.find_member(nobody)


def test_the_cas_own_certificate_is_renewed(home: Home, clock: Clock) -> None:
    first = home.credentials(name="desk")
    clock.now += CERTIFICATE_LIFETIME - 31 * DAY
    assert home.credentials() == first
    clock.now += 2 * DAY
    second = home.credentials()
    assert second.certificate.serial == 2
    assert second.certificate.expires == clock.now + CERTIFICATE_LIFETIME
    assert second.certificate.roles == first.certificate.roles
    assert second == home.credentials()


def test_a_home_that_cannot_be_written_is_renewed_later(
    home: Home, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = home.credentials()

    def refuse(*_: Any) -> None:
        raise CredentialError("cannot be written")

    monkeypatch.setattr(home._folder, "write", refuse)
    clock.now = made.certificate.expires - DAY
    assert home.credentials() == made
    clock.now = made.certificate.expires + DAY
    with pytest.raises(CredentialError, match="written"):
        home.credentials()


def test_a_member_without_the_ca_key_keeps_its_certificate(home: Home, other: Home, clock: Clock) -> None:
    home.credentials()
    member = join(home, other)
    clock.now += 2 * CERTIFICATE_LIFETIME
    assert other.credentials() == member  # expired: its peers say so, and `mesh id`


# -- invitations --------------------------------------------------------------


def test_invitations(home: Home, clock: Clock) -> None:
    mesh = home.credentials().mesh
    invitation = home.invite(uses=2, lifetime=60, roles=("sensor",), endpoints=("tcp://192.0.2.7:7400",))
    assert invitation.mesh == mesh
    (stored,) = home.invitations()
    assert (stored.secret, stored.uses, stored.attempts) == (invitation.secret, 2, 3)
    assert stored.expires == NOW + 60
    assert home.find_invitation(stored.id) == stored
    assert home.find_invitation(bytes(8)) is None
    home.failed_attempt(stored.id)
    assert home.invitations() == (replace(stored, attempts=2),)
    assert home.withdraw(stored.id)
    assert not home.withdraw(stored.id)
    assert home.invitations() == ()


def test_expired_invitations_are_forgotten_in_time(home: Home, clock: Clock) -> None:
    home.credentials()
    home.invite(lifetime=60)
    clock.now += 3600
    home.invite(lifetime=60)
    assert len(home.invitations()) == 2
    clock.now += 2 * DAY
    home.invite(lifetime=60)
    assert len(home.invitations()) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"uses": 0},
        {"uses": 1001},
        {"lifetime": 0},
        {"lifetime": float("nan")},
        {"lifetime": 31 * DAY},
        {"roles": ("Not one",)},
        {"roles": ("a", "a")},
        {"endpoints": ("ipc:///x",)},
        {"endpoints": ("tcp://192.0.2.7:1",) * 5},
    ],
)
def test_invitations_that_cannot_be(home: Home, options: dict[str, Any]) -> None:
    home.credentials()
    with pytest.raises(CredentialError):
        home.invite(**options)
    assert home.invitations() == ()


def test_redeeming(home: Home, clock: Clock) -> None:
    ca = home.credentials()
    home.invite(roles=("sensor",))
    proven = Proven(home.invitations()[0], NEWCOMER.public, "attic")
    grant = home.redeem(proven)
    certificate = read_certificate(grant.certificate, ca.ca_public_key)
    assert (certificate.name, certificate.roles) == ("attic", ("sensor",))
    assert (grant.secret, grant.secret_epoch, grant.mesh_name) == (ca.secret, 1, ca.mesh_name)
    assert home.redeem(proven).certificate != b""  # the same key again: the grant may have been lost
    with pytest.raises(CredentialError, match="has been used"):
        home.redeem(proven._replace(public_key=SigningKey.from_seed(b"\x08" * 32).public))
    clock.now += 7200
    with pytest.raises(CredentialError, match="no longer good"):
        home.redeem(proven)


def test_one_use_is_spent_once_however_many_ask(home: Home, clock: Clock) -> None:
    home.credentials()
    home.invite()
    invitation = home.invitations()[0]

    def attempt(number: int) -> bool:
        key = SigningKey.from_seed(bytes([number]) * 32)
        try:
            Home(home.path, clock=clock).redeem(Proven(invitation, key.public, f"n{number}"))
        except CredentialError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(attempt, range(40, 48))) == 1
    assert len(home.members()) == 2


# -- joining ------------------------------------------------------------------


def test_joining(home: Home, other: Home) -> None:
    ca = home.credentials(mesh_name="den")
    own = other.credentials()  # a mesh of its own, from an earlier use
    member = join(home, other)
    assert other.credentials() == member
    assert member.mesh == ca.mesh != own.mesh
    assert member.mesh_name == "den"
    assert member.secret == ca.secret
    assert not other.is_ca
    assert not (other.path / "ca.json").exists()


def test_joining_twice(home: Home, other: Home, tmp_path: Path, clock: Clock) -> None:
    home.credentials(mesh_name="den")
    first = join(home, other)
    assert join(home, other).key.public != first.key.public  # the same mesh: a new certificate
    third = Home(tmp_path / "third", clock=clock)
    third.init("lab")
    with pytest.raises(CredentialError, match="member of mesh 'den' already"):
        join(third, other)
    with pytest.raises(CredentialError, match="member of mesh 'lab' already"):
        third.check_can_join(home.credentials().ca_public_key)
    other.check_can_join(home.credentials().ca_public_key)
    with pytest.raises(CredentialError, match="already"):
        join(home, home)


def test_a_grant_for_another_key_is_not_stored(home: Home, other: Home) -> None:
    home.credentials()
    with pytest.raises(CredentialError, match="another key"):
        other.store_grant(other.new_key(), joined(home, NEWCOMER))
    assert not (other.path / "credentials.json").exists()


def test_a_crash_while_joining_leaves_one_mesh_or_the_other(
    home: Home, other: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.credentials(mesh_name="den")
    other.credentials()
    monkeypatch.setattr(other._folder, "remove", lambda name: (_ for _ in ()).throw(CredentialError("crash")))
    with pytest.raises(CredentialError, match="crash"):
        join(home, other)
    monkeypatch.undo()
    assert other.credentials().mesh_name == "den"
    assert not other.is_ca  # the key that still lies there is another mesh's


def test_revocations_from_a_peer(home: Home, other: Home) -> None:
    home.credentials()
    join(home, other)
    stamp = other.stamp()
    newer = home.revoke(MemberId(bytes(16)))
    stored = other.store_revocations(newer.revocations_bytes, newer.secret)
    assert stored == other.credentials()
    assert other.stamp() != stamp
    assert (stored.secret, stored.secret_epoch) == (newer.secret, 2)
    newest = home.revoke(MemberId(b"1" * 16))
    other.store_revocations(newest.revocations_bytes, newest.secret)
    assert other.store_revocations(newer.revocations_bytes, newer.secret).secret == newest.secret


def test_revocations_that_are_not_the_cas(home: Home, other: Home) -> None:
    home.credentials()
    before = join(home, other)
    newer = home.revoke(MemberId(bytes(16)))
    assert newer.revocations is not None
    forged = issue_revocations(NEWCOMER, newer.revocations)
    for encoded, secret in (
        (newer.revocations_bytes, bytes(32)),
        (forged, newer.secret),
        (b"", newer.secret),
    ):
        with pytest.raises(CredentialRejected) as caught:
            other.store_revocations(encoded, secret)
        assert caught.value.reason is Reason.BAD_CERTIFICATE
    assert other.credentials() == before


def test_a_member_whose_grant_had_no_list(home: Home, other: Home) -> None:
    home.credentials()
    key = other.new_key()
    grant = replace(joined(home, key).grant, revocations=b"")
    member = other.store_grant(key, as_joined(grant))
    assert member.revocations is None
    assert other.credentials() == member
    listed = home.credentials()
    assert other.store_revocations(listed.revocations_bytes, listed.secret).revocations == listed.revocations


# -- the daemon -----------------------------------------------------------------


def test_the_daemon_of_a_home(home: Home) -> None:
    assert home.daemon_endpoints() == ()
    with home.claim_daemon():
        assert home.daemon_endpoints() == ()
        home.announce_daemon(["tcp://127.0.0.1:7400"])
        assert Home(home.path).daemon_endpoints() == ("tcp://127.0.0.1:7400",)
        with pytest.raises(CredentialError, match="a daemon runs"), Home(home.path).claim_daemon():
            pass
    assert home.daemon_endpoints() == ()
    assert not (home.path / "daemon.json").exists()


def test_a_daemon_that_was_killed_leaves_nothing_to_believe(home: Home) -> None:
    program = (
        "import os, sys; from mesh.home import Home; home = Home(sys.argv[1])\n"
        "with home.claim_daemon():\n"
        "    home.announce_daemon(['tcp://127.0.0.1:7400'])\n"
        "    os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(home.path)], check=False, timeout=60)
    assert (home.path / "daemon.json").exists()
    assert home.daemon_endpoints() == ()
    with home.claim_daemon():
        pass


def test_random_numbers_are_the_callers(tmp_path: Path, clock: Clock) -> None:
    made = [
        Home(tmp_path / str(i), clock=clock, rng=random.Random(1).randbytes).credentials() for i in range(2)
    ]
    assert made[0].mesh == made[1].mesh


def test_a_certificate_is_made_anew_for_a_member_and_nobody_else(home: Home, other: Home) -> None:
    home.init("orchard")
    joined = join(home, other)
    encoded = home.certify_again(joined.certificate)
    assert encoded is not None
    after = other.store_certificate(encoded)
    assert after.certificate.serial > joined.certificate.serial
    assert after.certificate.name == joined.certificate.name
    assert other.store_certificate(joined.certificate_bytes).certificate == after.certificate  # never back
    assert other.credentials().certificate == after.certificate
    with pytest.raises(CredentialRejected):
        home.store_certificate(encoded)  # of another key
    with pytest.raises(CredentialRejected):
        other.store_certificate(b"")
    home.revoke(joined.certificate.member)
    assert home.certify_again(joined.certificate) is None
    stranger = Home(home.path.parent / "stranger")
    stranger.init("meadow")
    assert home.certify_again(stranger.credentials().certificate) is None
    with pytest.raises(CredentialError, match="CA key"):
        other.certify_again(joined.certificate)
