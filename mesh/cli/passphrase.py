"""A passphrase, from where nobody else sees it: a file, the environment, or a terminal without echo.

    --passphrase-file FILE  →  MESH_CA_PASSPHRASE_FILE  →  MESH_CA_PASSPHRASE  →  a prompt

Never from the command line, which every user of a machine can read.  What the variable held is taken
out of the environment, so that programs which are started from here do not inherit it.
"""

from __future__ import annotations

import getpass
import os
import stat
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from mesh.errors import CredentialError

__all__ = ["FILE_VARIABLE", "VARIABLE", "PassphraseFile", "ask_passphrase", "given_passphrase"]

VARIABLE: Final = "MESH_CA_PASSPHRASE"
FILE_VARIABLE: Final = "MESH_CA_PASSPHRASE_FILE"

_MOST: Final = 4096  # bytes of the file that are looked at

PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        metavar="FILE",
        help=f"The CA key's passphrase is its first line (else {FILE_VARIABLE}, {VARIABLE}, or you are asked).",
        show_default=False,
    ),
]


def given_passphrase(file: Path | None) -> str | None:
    """The passphrase that a file or the environment has; None if neither does. Raises ``CredentialError``."""
    named = os.environ.get(FILE_VARIABLE)
    variable = os.environ.pop(VARIABLE, None)
    if file is not None:
        return _first_line(file)
    if named:
        return _first_line(Path(named))
    return variable or None


def ask_passphrase(file: Path | None, what: str, *, twice: bool = False) -> str:
    """The passphrase of ``what``, asked for on the terminal if it is given nowhere. Raises ``CredentialError``."""
    given = given_passphrase(file)
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise CredentialError(
            f"no passphrase for {what}: there is no terminal to ask on (--passphrase-file, {FILE_VARIABLE} or "
            f"{VARIABLE} give it)"
        )
    try:
        passphrase = getpass.getpass(f"Passphrase of {what}: ")
        if twice and getpass.getpass("The same again: ") != passphrase:
            raise CredentialError("the two are not the same")
    except EOFError:
        raise CredentialError(f"no passphrase for {what}") from None
    return passphrase


def _first_line(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            status = os.fstat(stream.fileno())
            data = stream.readline(_MOST)
    except OSError as error:
        raise CredentialError(f"cannot be read: {error.strerror or error}", path=str(file)) from None
    # What systemd gives a service may belong to root and be readable by way of a group's entry.
    mine = status.st_uid == os.geteuid()
    if stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) & (0o077 if mine else 0o007):
        raise CredentialError(f"others can read this passphrase: chmod 600 {file}", path=str(file))
    try:
        text = data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise CredentialError("it is not UTF-8 text", path=str(file)) from None
    if not text:
        raise CredentialError("it has no passphrase in its first line", path=str(file))
    return text
