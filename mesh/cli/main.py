"""The command ``mesh``: its families of commands, put together, and its entry point.

Command line → typer → the function of a command (one module for each family) → exit code.  Modules of
the mesh itself are imported inside the commands, so that help and usage mistakes are answered at once.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from mesh.cli import (
    bench,
    bridge,
    ca,
    daemon,
    demo,
    doctor,
    identity,
    members,
    messaging,
    peers,
    serve,
    token,
    top,
)
from mesh.cli.output import say

__all__ = ["app", "main"]

app = typer.Typer(
    name="mesh",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "An encrypted, brokerless mesh for machines on one network: they find each other, trust each other, and "
        "talk.\n\n"
        "\b\n"
        "First machine:   mesh init home; mesh daemon; mesh invite\n"
        "Second machine:  mesh join TOKEN; mesh daemon\n"
        "Then:            mesh peers; mesh sub 'home/**'; mesh pub home/kitchen/temperature 21.5\n"
        "See it work:     mesh demo"
    ),
)


def _version(wanted: bool) -> None:
    if wanted:
        from mesh import __version__

        typer.echo(f"zeromesh {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    # The options of the command as a whole; every subcommand has its own.
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


for family in (
    identity,
    members,
    ca,
    daemon,
    bridge,
    token,
    messaging,
    serve,
    peers,
    top,
    bench,
    doctor,
    demo,
):
    family.register(app)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and end the process with its exit code."""
    try:
        code = app(
            args=list(sys.argv[1:] if arguments is None else arguments),
            prog_name="mesh",
            standalone_mode=False,
        )
    except typer.TyperException as error:
        where = getattr(getattr(error, "ctx", None), "command_path", "mesh")
        text = " ".join(error.format_message().split()).rstrip(".")
        say(f"mesh: {text[:1].lower()}{text[1:]} (try {where} --help)")
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = 128 + signal.SIGINT
    _leave(code if isinstance(code, int) else 0)


def _leave(code: int) -> NoReturn:
    """End with ``code``; a standard output that nobody reads any more is no failure of ours."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


if __name__ == "__main__":
    main()
