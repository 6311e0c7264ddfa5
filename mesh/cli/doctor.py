"""``doctor``: say in plain words why machines do not see each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mesh.cli.base import (
    ConnectOption,
    HomeOption,
    JsonOption,
    VerboseOption,
    at_home,
    described,
    guarded,
    home_settings,
    run,
    set_up_logging,
)
from mesh.cli.output import colour, json_line, say, write
from mesh.errors import MeshError

if TYPE_CHECKING:
    from mesh.cli.checks import Check
    from mesh.home import Credentials, Home

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    app.command("doctor")(guarded(doctor))


def doctor(
    json: JsonOption = False,
    connect: ConnectOption = None,
    home: HomeOption = None,
    verbose: VerboseOption = 0,
) -> int:
    """Say why machines do not see each other.

    Looks at the software, this machine's credential and clock, network interfaces, multicast, the daemon and its
    ports, and then joins for two seconds to see who is found and who is not let in. Changes nothing.
    Exit code 1 if something is broken.

    \b
    Examples:
      mesh doctor
      mesh doctor --connect tcp://cellar.local:7400
      mesh doctor --json | jq '.[] | select(.verdict != "ok")'
    """
    set_up_logging(verbose)
    return run(lambda: _doctor(json, connect, home))


async def _doctor(json: bool, connect: list[str] | None, folder: Path | None) -> int:
    found: list[Check] = []

    def note(check: Check) -> None:
        found.append(check)
        if not json:
            write(_line(check))

    await _examine(note, connect, folder)
    if json:
        write(json_line([asdict(check) for check in found]))
    broken = sum(check.verdict == "fail" for check in found)
    if broken:
        say(f"mesh: doctor: {broken} of {len(found)} checks failed")
    return 1 if broken else 0


_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


def _line(check: Check) -> str:
    verdict = colour(check.verdict.ljust(4), _STYLES[check.verdict])
    line = f"{verdict}  {check.check.ljust(14)}  {check.text}\n"
    if check.advice and check.verdict != "ok":
        line += f"{' ' * 22}-> {check.advice}\n"
    return line


async def _examine(note: Callable[[Check], None], connect: list[str] | None, folder: Path | None) -> None:
    from mesh.cli import checks
    from mesh.core.keys import beacon_key
    from mesh.core.types import MeshId

    for check in checks.software():
        note(check)
    home = at_home(folder)
    credentials, unusable = _credentials(home)
    for check in [unusable] if unusable is not None else checks.membership(home, credentials):
        note(check)
    for check in checks.network():
        note(check)
    # Without a mesh the datagrams still show whether multicast comes back; nobody else understands them.
    key = beacon_key(MeshId(bytes(16)) if credentials is None else credentials.mesh)
    for check in await checks.multicast(key):
        note(check)
    found, _ = await checks.daemon(home)
    for check in found:
        note(check)
    mechanisms, mistake = _mechanisms(home)
    if mistake is not None:
        note(mistake)
    if credentials is not None and mistake is None:
        from mesh.cli.checks_mesh import others

        try:
            found = await others(folder, credentials.mesh, connect, mechanisms)
        except MeshError as error:
            found = [checks.Check("node", "fail", f"no node can be opened here: {described(error)}")]
        for check in found:
            note(check)


def _credentials(home: Home) -> tuple[Credentials | None, Check | None]:
    """This home's credentials; None with a finding if they cannot be used, None alone if there are none."""
    from mesh.cli.checks import Check

    if not (home.path / "credentials.json").exists():
        return None, None
    try:
        return home.credentials(create=False), None
    except MeshError as error:
        return None, Check("credential", "fail", described(error), "put right what the line says")


def _mechanisms(home: Home) -> tuple[tuple[str, ...], Check | None]:
    from mesh.cli.checks import Check
    from mesh.settings import DISCOVERY

    try:
        return home_settings(home).node.discovery, None
    except MeshError as error:
        return DISCOVERY, Check("configuration", "fail", described(error), "put right what the line says")
