"""``mesh doctor``: every reason why machines do not see each other, in plain words."""

from __future__ import annotations

import ipaddress
import os
import re
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import mesh as mesh_package
from mesh.cli import checks
from mesh.cli.checks_mesh import reasons
from mesh.core.identity import CLOCK_TOLERANCE
from mesh.daemon import control
from mesh.daemon.operations import Operations
from mesh.discovery.interfaces import Interface
from mesh.home import Home
from tests.cli.command import daemon, home_at, mesh
from tests.hostile.stage import member
from tests.node.meshes import CALM

YEAR = 365 * 86400


def verdicts(found: object) -> list[tuple[str, str]]:
    return [(check.check, check.verdict) for check in found]  # type: ignore[attr-defined]


def test_the_software_is_sound() -> None:
    [check] = checks.software()
    assert check.verdict == "ok"
    assert "libzmq" in check.text


def test_a_libzmq_without_curve_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.zmq, "has", lambda what: False)
    assert verdicts(checks.software()) == [("software", "ok"), ("software", "fail")]


def test_membership(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    [missing] = checks.membership(home, None)
    assert missing.verdict == "fail"
    assert "mesh join TOKEN" in missing.advice

    mine = home.init("orchard", "kitchen")
    now = time.time()
    assert verdicts(checks.membership(home, mine, now)) == [("credential", "ok")]
    assert verdicts(checks.membership(home, mine, now + YEAR - 86400)) == [("credential", "warn")]
    [expired] = checks.membership(home, mine, now + YEAR + 86400)
    assert expired.verdict == "fail"
    assert "expired on" in expired.text
    [early] = checks.membership(home, mine, now - CLOCK_TOLERANCE - 60)
    assert (early.check, early.verdict) == ("clock", "fail")
    assert "before its certificate begins" in early.text


def test_a_mesh_made_by_first_use_is_of_this_machine_alone(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert verdicts(checks.membership(home, home.credentials())) == [("credential", "ok"), ("mesh", "warn")]


def test_a_revoked_membership(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.init()
    key = home.new_key()
    home.issue(key.public, "cellar")
    mine = home.revoke(key.member_id)
    assert mine.revocations is not None
    from dataclasses import replace

    theirs = replace(mine, certificate=replace(mine.certificate, public_key=key.public))
    [check] = checks.membership(home, theirs)
    assert check.verdict == "fail"
    assert "has been revoked" in check.text


def interface(name: str, *addresses: str, loopback: bool = False) -> Interface:
    hosts = tuple(map(ipaddress.ip_address, addresses))
    return Interface(name, 1, hosts, ipv4=True, ipv6=False, loopback=loopback)


def test_interfaces() -> None:
    lo = interface("lo", "127.0.0.1", loopback=True)
    assert verdicts(checks.network((interface("eth0", "10.0.0.1"), lo))) == [("interface", "ok")]
    assert verdicts(checks.network((interface("wlan0"), lo))) == [
        ("interface", "warn"),
        ("interface", "fail"),
    ]
    [none] = checks.network((lo,))
    assert none.verdict == "fail"
    assert "only programs on this machine can be reached" in none.text


async def test_multicast_that_cannot_be_sent() -> None:
    nowhere = Interface("gone0", 9999, (ipaddress.ip_address("10.9.9.9"),), True, True, False)
    with trio.fail_after(10):
        found = await checks.multicast(os.urandom(32), (nowhere,))
    assert {check.verdict for check in found} == {"fail"}
    assert all("gone0" in check.text and "connect = " in check.advice for check in found)


@pytest.mark.parametrize(
    ("reason", "check", "verdict"),
    [
        ("we have no protocol version in common (theirs 2-3)", "protocol", "fail"),
        ("your certificate has been revoked", "credential", "fail"),
        ("your certificate is of another mesh", "mesh", "fail"),
        ("its papers were refused: wrong_mesh: a certificate of another mesh", "mesh", "fail"),
        ("your certificate or record is not valid yet: is your clock or mine wrong?", "clock", "fail"),
        ("its papers were refused: not_yet_valid: valid in 7200 s", "clock", "fail"),
        ("your certificate or record has expired, or your clock is ahead of mine", "clock", "fail"),
        ("handshake failed", "mesh", "fail"),
        ("connection refused", "port", "warn"),
    ],
)
def test_each_refusal_has_its_advice(reason: str, check: str, verdict: str) -> None:
    [found] = reasons({"tcp://10.0.0.7:7400": reason})
    assert (found.check, found.verdict) == (check, verdict)
    assert found.text == f"tcp://10.0.0.7:7400: {reason}"
    assert found.advice


async def test_a_healthy_machine(tmp_path: Path) -> None:
    home = home_at(tmp_path / "home")
    await trio.to_thread.run_sync(lambda: Home(home).init("orchard", "kitchen"))
    async with daemon(home):
        done = await mesh("doctor", "--json", home=home)
    found = {check["check"]: check for check in done.json}
    assert all(check.keys() == {"check", "verdict", "text", "advice"} for check in done.json)
    assert found["credential"]["verdict"] == "ok"
    assert found["daemon"]["verdict"] == "ok"
    assert found["port"]["verdict"] == "ok"
    assert found["peers"]["verdict"] == "ok"
    # Where the machine that runs the tests has a network, nothing is broken.
    broken = [check for check in done.json if check["verdict"] == "fail"]
    assert all(check["check"].startswith(("interface", "multicast")) for check in broken), broken
    assert done.code == (1 if broken else 0)


async def test_a_machine_without_a_membership(tmp_path: Path) -> None:
    done = await mesh("doctor", home=tmp_path / "nothing")
    assert done.code == 1
    assert re.fullmatch(r"mesh: doctor: \d+ of \d+ checks failed", done.stderr[0])
    assert len(done.stderr) == 1
    assert any(re.match("fail +credential +.*member of no mesh", line) for line in done.stdout)
    assert any("-> mesh join TOKEN" in line for line in done.stdout)
    assert not (tmp_path / "nothing").exists()


async def test_a_peer_of_another_mesh(tmp_path: Path) -> None:
    kitchen, stranger = home_at(tmp_path / "kitchen"), home_at(tmp_path / "stranger")
    for home in (kitchen, stranger):
        assert (await mesh("init", home=home)).code == 0
    async with daemon(stranger) as other:
        endpoint = re.search(r"tcp://127\S+", other.stdout[0])
        assert endpoint is not None
        done = await mesh("doctor", "--json", "--connect", endpoint[0], home=kitchen)
    assert done.code == 1
    [check] = [each for each in done.json if endpoint[0] in each["text"]]
    assert (check["check"], check["verdict"]) == ("mesh", "fail")
    assert "mesh join on the other" in check["advice"]


async def test_a_configuration_that_is_wrong(tmp_path: Path) -> None:
    home = home_at(tmp_path / "home", "[node]\nnmae = 'x'\n")
    assert (await mesh("init", home=home)).code == 0
    done = await mesh("doctor", "--json", home=home)
    assert done.code == 1
    [check] = [each for each in done.json if each["check"] == "configuration"]
    assert "mesh.toml:2: node.nmae" in check["text"]


async def test_a_denial_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon remembers whom a rule denied what; the doctor says it, and where to change it."""
    home = Home(tmp_path / "home")
    home.init("orchard", "kitchen")
    (home.path / "mesh.toml").write_text(
        """[[allow]]\naction = "request"\npattern = "door/**"\nmember = "kitchen"\n"""
    )
    other = member(home, tmp_path, "cellar")
    options: dict[str, Any] = {"listen": ["tcp://127.0.0.1:0"], "discovery": (), "config": CALM}
    async with (
        mesh_package.open_node("kitchen", home=home.path, **options) as kitchen,
        mesh_package.open_node("cellar", home=other, connect=kitchen.endpoints, **options) as cellar,
        trio.open_nursery() as nursery,
    ):

        async def never(request: mesh_package.Request) -> None:
            raise AssertionError

        await nursery.start(partial(kitchen.serve, "door/open", never))
        with trio.fail_after(60), pytest.raises(mesh_package.NotAuthorized):
            while True:
                try:
                    await cellar.request("door/open", timeout=30)
                except mesh_package.NoResponders:  # it has not heard of the responder yet
                    await trio.sleep(0.05)

        async def ask(*_: object, **__: object) -> Any:
            return await Operations(kitchen, home).status({})

        monkeypatch.setattr(control, "ask", ask)
        monkeypatch.setattr(checks, "ask", ask, raising=False)
        found, _ = await checks.daemon(home)
        [denied] = [check for check in found if check.check == "rules"]
        nursery.cancel_scope.cancel()
    assert denied.verdict == "warn"
    assert denied.text.startswith("cellar may not request 'door/open': allow[1]")
    assert "mesh.toml" in denied.advice
