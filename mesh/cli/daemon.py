"""``daemon``: this machine's node in the foreground."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from mesh.cli.base import HomeOption, VerboseOption, at_home, guarded, set_up_logging
from mesh.cli.output import write
from mesh.cli.passphrase import PassphraseFile, given_passphrase

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    app.command("daemon")(guarded(daemon))


def daemon(
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="What others see (else the file's, else the member's).",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="The configuration (else mesh.toml in the home, if it is there).",
            show_default=False,
        ),
    ] = None,
    http: Annotated[
        str | None,
        typer.Option(
            "--http",
            metavar="HOST:PORT",
            help="Serve browsers and scripts here (else as [http] of the file says, else not).",
            show_default=False,
        ),
    ] = None,
    passphrase_file: PassphraseFile = None,
    home: HomeOption = None,
    verbose: VerboseOption = 0,
) -> int:
    """Run this machine's node in the foreground.

    Listens on TCP ports 7400 to 7402, or on any free ones if they are taken and the configuration names none.
    Prints a line that begins with "ready" when it is up, and tells systemd so. SIGTERM and Ctrl-C drain and
    stop it; SIGHUP reads the configuration again. A wrapped CA key stays locked unless its passphrase is given.

    \b
    Examples:
      mesh daemon
      mesh daemon --http 127.0.0.1:7480
      mesh daemon --name kitchen --config /etc/zeromesh/mesh.toml
    """
    import trio

    from mesh.cli.base import bridge_settings, usage
    from mesh.daemon.daemon import Daemon
    from mesh.settings import Settings, load
    from mesh.settings.forms import host_port, reject_name

    if name is not None and (wrong := reject_name(name)):
        usage(f"--name {name!r}: {wrong}")
    if http is not None and (wrong := host_port(http)):
        usage(f"--http {http!r}: {wrong}")
    # Held back until the daemon is up, so that a failure to start is one line.
    log = set_up_logging(verbose, default=logging.INFO, hold=True)
    where = at_home(home)
    file = config or where.path / "mesh.toml"
    if config is not None or file.exists():
        settings = load(file, read_bridge=bridge_settings())
    else:
        settings = Settings()

    def announce(line: str) -> None:
        write(line + "\n")
        log.release()

    def set_log_level(level: str) -> None:
        if verbose == 0:
            log.set_level(level)

    set_log_level(settings.node.log)
    running = Daemon(
        where,
        settings,
        name=name,
        http=http,
        passphrase=given_passphrase(passphrase_file),
        file=file,
        announce=announce,
        set_log_level=set_log_level,
        read_bridge=bridge_settings,
    )
    trio.run(running.run)
    return 0
