"""``ca show``, ``wrap``, ``unwrap``, ``unlock``, ``lock``, ``export``, ``import``: the key that says who is a member.

Passphrases are asked for before anything runs, on the terminal or from where ``passphrase`` says.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mesh.cli.base import HomeOption, JsonOption, VerboseOption, at_home, guarded, set_up_logging
from mesh.cli.output import json_line, say, write
from mesh.cli.passphrase import PassphraseFile, ask_passphrase

if TYPE_CHECKING:
    from mesh.home import Home

__all__ = ["ready_ca", "register"]


def register(app: typer.Typer) -> None:
    family = typer.Typer(
        help="The CA key of the mesh: who holds it, under which passphrase, on which machine.",
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    family.command("show")(guarded(show))
    family.command("wrap")(guarded(wrap))
    family.command("unwrap")(guarded(unwrap))
    family.command("unlock")(guarded(unlock))
    family.command("lock")(guarded(lock))
    family.command("export")(guarded(export))
    family.command("import")(guarded(import_ca))
    app.add_typer(family, name="ca")


def _key_of(home: Home) -> str:
    return f"the CA key of mesh {home.credentials(create=False).mesh_name}"


def _ask_daemon(home: Home, operation: str, **fields: Any) -> Any:
    """The answer of this home's daemon; None if none runs."""
    import trio

    from mesh.daemon.control import NoDaemon, ask
    from mesh.daemon.operations import control_socket

    async def asking() -> Any:
        try:
            return await ask(home.path, control_socket(home), operation, **fields)
        except NoDaemon:
            return None

    return trio.run(asking)


def ready_ca(home: Home, passphrase_file: Path | None) -> None:
    """Unlock a wrapped CA key for this command, unless the daemon has done so. Raises ``CredentialError``."""
    from mesh.home import Custody

    if not home.custodian.locked:
        return
    daemon = _ask_daemon(home, "ca")
    if daemon is None or daemon["locked"]:
        Custody(home).unlock(ask_passphrase(passphrase_file, _key_of(home)))


def show(json: JsonOption = False, home: HomeOption = None, verbose: VerboseOption = 0) -> int:
    """Say where the CA key of this machine's mesh is, as far as this machine knows.

    \b
    Examples:
      mesh ca show
      mesh ca show --json
    """
    set_up_logging(verbose)
    where = at_home(home)
    mine = where.credentials(create=False)
    custodian = where.custodian
    daemon = _ask_daemon(where, "ca") if custodian.state == "wrapped" else None
    unlocked = daemon is not None and not daemon["locked"]
    if json:
        fields = {
            "mesh": mine.mesh_name,
            "state": custodian.state,
            "unlocked": custodian.state == "clear" or unlocked,
            "moved_to": custodian.moved_to[1] or None,
            "moved_at": custodian.moved_at or None,
        }
        write(json_line(fields))
        return 0
    words = {
        "none": "not here: the machine that made the mesh has it, or one that it was given to",
        "clear": "here, and not wrapped: who can read this home has it",
        "wrapped": f"here, under a passphrase, and {'unlocked in the daemon' if unlocked else 'locked'}",
        "moved": f"not here any more: {custodian.moved_to[1]} has it since {_date(custodian.moved_at)}",
    }
    write(f"the CA key of mesh {mine.mesh_name} is {words[custodian.state]}\n")
    return 0


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def wrap(passphrase_file: PassphraseFile = None, home: HomeOption = None, verbose: VerboseOption = 0) -> int:
    """Put the CA key under a passphrase.

    Then a copy of this home alone makes nobody a member. The daemon lets nobody in and renews no
    certificates until it is given the passphrase: mesh ca unlock.

    \b
    Examples:
      mesh ca wrap
      mesh ca wrap --passphrase-file /run/secrets/ca
    """
    set_up_logging(verbose)
    from mesh.home import Custody

    where = at_home(home)
    Custody(where).wrap(ask_passphrase(passphrase_file, _key_of(where), twice=True))
    write(f"{_key_of(where)} is wrapped\n")
    say("there is no way to it without the passphrase; copies of this home from before have it in clear")
    if _ask_daemon(where, "ca") is not None:
        say("next: mesh ca unlock, for the daemon that runs")
    return 0


def unwrap(
    passphrase_file: PassphraseFile = None, home: HomeOption = None, verbose: VerboseOption = 0
) -> int:
    """Take the passphrase off the CA key (also to choose another).

    \b
    Examples:
      mesh ca unwrap
    """
    set_up_logging(verbose)
    from mesh.home import Custody

    where = at_home(home)
    Custody(where).unwrap(ask_passphrase(passphrase_file, _key_of(where)))
    write(f"{_key_of(where)} is in clear\n")
    return 0


def unlock(
    passphrase_file: PassphraseFile = None, home: HomeOption = None, verbose: VerboseOption = 0
) -> int:
    """Give the daemon of this home the passphrase, until it ends or mesh ca lock.

    \b
    Examples:
      mesh ca unlock
    """
    set_up_logging(verbose)
    from mesh.daemon.control import NoDaemon

    where = at_home(home)
    if _ask_daemon(where, "ca") is None:
        raise NoDaemon(where.path)
    _ask_daemon(where, "unlock", passphrase=ask_passphrase(passphrase_file, _key_of(where)))
    write("the daemon lets newcomers in, and renews certificates\n")
    return 0


def lock(home: HomeOption = None, verbose: VerboseOption = 0) -> int:
    """Let the daemon of this home forget a wrapped CA key.

    \b
    Examples:
      mesh ca lock
    """
    set_up_logging(verbose)
    from mesh.daemon.control import NoDaemon

    where = at_home(home)
    if _ask_daemon(where, "lock") is None:
        raise NoDaemon(where.path)
    return 0


def export(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file to make; it must not exist.", show_default=False)
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="MEMBER", help="Whose home shall be the CA: a name or an id.", show_default=False
        ),
    ],
    passphrase_file: PassphraseFile = None,
    home: HomeOption = None,
    verbose: VerboseOption = 0,
) -> int:
    """Move the CA to another member's machine: seal it into a file, and hold it no longer.

    The file can be imported by that member alone, once. Its passphrase is the one that the CA key has
    here, else a new one; the key stays under it there.

    \b
    Examples:
      mesh ca export ca.sealed --to cellar      (then, on cellar: mesh ca import ca.sealed)
    """
    set_up_logging(verbose)
    from mesh.home import Custody

    where = at_home(home)
    twice = where.custodian.state != "wrapped"
    passphrase = ask_passphrase(passphrase_file, _key_of(where), twice=twice)
    member, name = Custody(where).hand_over(file, to, passphrase)
    write(f"{file} has the CA of the mesh, for {name} ({member}); this machine does not hold it any more\n")
    say(f"next: take the file to {name}, and there: mesh ca import {file.name}; then delete it")
    return 0


def import_ca(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="What mesh ca export made.", show_default=False)
    ],
    take_back: Annotated[
        bool,
        typer.Option("--take-back", help="On the machine that made the file, which nobody has imported."),
    ] = False,
    passphrase_file: PassphraseFile = None,
    home: HomeOption = None,
    verbose: VerboseOption = 0,
) -> int:
    """Hold the CA from now on, out of the file that another machine of the mesh has made for this one.

    \b
    Examples:
      mesh ca import ca.sealed
    """
    set_up_logging(verbose)
    from mesh.home import Custody

    where = at_home(home)
    passphrase = ask_passphrase(passphrase_file, _key_of(where))
    Custody(where).take_over(file, passphrase, take_back=take_back)
    write(f"this machine holds {_key_of(where)} now, under the file's passphrase\n")
    if _ask_daemon(where, "unlock", passphrase=passphrase) is None:
        say(
            "next: delete the file, and give the daemon the passphrase when it starts, or with mesh ca unlock"
        )
    else:
        say("the daemon lets newcomers in, and renews certificates; next: delete the file")
    return 0
