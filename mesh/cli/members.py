"""``members`` and ``revoke``: who belongs to the mesh, and who no longer does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from mesh.cli.administration import ask_holder
from mesh.cli.base import HomeOption, JsonOption, VerboseOption, at_home, guarded, run, set_up_logging
from mesh.cli.ca import ready_ca
from mesh.cli.identity import date
from mesh.cli.output import json_line, say, table, write
from mesh.cli.passphrase import PassphraseFile

if TYPE_CHECKING:
    from mesh.home import Home

__all__ = ["register"]

_TELL: Final = 2.0
"""Seconds that a command without a daemon takes to find peers and tell them."""


def register(app: typer.Typer) -> None:
    app.command("members")(guarded(members))
    app.command("revoke")(guarded(revoke))


# -- members ----------------------------------------------------------------------------------


def members(
    everyone: Annotated[
        bool, typer.Option("--all", help="Ask the machine that holds the CA key, if this one does not.")
    ] = False,
    json: JsonOption = False,
    home: HomeOption = None,
    verbose: VerboseOption = 0,
) -> int:
    """List the members of the mesh.

    Everyone who was let in is known where the CA key is; elsewhere, this machine alone, or (--all) what that one
    answers, if its rules let this member ask.

    \b
    Examples:
      mesh members
      mesh members --json
    """
    set_up_logging(verbose)
    from mesh.daemon.operations import member_fields

    where = at_home(home)
    found = [member_fields(member) for member in where.members()]
    if everyone and not where.is_ca:
        found = ask_holder(where, "members")
    if json:
        write(json_line(found))
    else:
        write(table(("NAME", "ROLES", "EXPIRES", "STATE", "ID"), map(_member_row, found)))
    return 0


def _member_row(member: dict[str, Any]) -> tuple[str, ...]:
    state = "revoked" if member["revoked"] else "expired" if member["expires"] < time.time() else "valid"
    return (
        member["name"],
        ", ".join(member["roles"]) or "-",
        date(member["expires"]),
        state,
        member["id"],
    )


# -- revoke -----------------------------------------------------------------------------------


def revoke(
    member: Annotated[
        str,
        typer.Argument(
            metavar="MEMBER", help="Its name or id (mesh members lists them).", show_default=False
        ),
    ],
    passphrase_file: PassphraseFile = None,
    json: JsonOption = False,
    home: HomeOption = None,
    verbose: VerboseOption = 0,
) -> int:
    """Cut a member off, everywhere and for good.

    Nodes that can be reached cut it off within seconds, and the others as soon as they meet one that knows.
    It wants the CA key: do it where that is, or as a member who may ask that machine to (role admin, or a rule).

    \b
    Examples:
      mesh revoke cellar
      mesh revoke 5b1f8e0c --json
    """
    set_up_logging(verbose)
    where = at_home(home)
    where.credentials(create=False)
    if not where.is_ca:
        _told(ask_holder(where, "revoke", member=member), json)
        return 0
    ready_ca(where, passphrase_file)
    return run(lambda: _revoke(where, member, json))


async def _revoke(home: Home, member: str, json: bool) -> None:
    from mesh.daemon.control import DaemonError, NoDaemon, ask
    from mesh.daemon.operations import control_socket

    try:
        done = await ask(home.path, control_socket(home), "revoke", member=member)
    except (NoDaemon, DaemonError) as error:
        if isinstance(error, DaemonError) and error.type_name != "CaLocked":
            raise
        done = await _revoke_alone(home, member)
    _told(done, json)


def _told(done: dict[str, Any], json: bool) -> None:
    if json:
        write(json_line(done))
        return
    write(f"{done['name']} ({done['id']}) is revoked\n")
    said = f"told {done['told']} peer{'' if done['told'] == 1 else 's'}"
    say(
        said
        if done["told"]
        else "nobody could be told now: peers hear of it when they next meet this machine"
    )


async def _revoke_alone(home: Home, member: str) -> dict[str, Any]:
    """Without a daemon, or one that the CA key is locked for: written down, and told by a node for the time of the command."""
    import trio

    from mesh.cli.nodes import joined, wait_for_company

    found = home.find_member(member)
    home.revoke(found.id)
    async with joined(home.path) as node:
        await wait_for_company(node, grace=_TELL)
        await trio.sleep(_TELL if node.peers else 0)  # for those that are just being met
        return {"id": found.id.hex(), "name": found.name, "told": len(node.peers)}
