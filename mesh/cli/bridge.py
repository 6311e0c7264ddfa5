"""``bridge``: bridges to message brokers, as a node of their own."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mesh.cli.base import HomeOption, NameOption, VerboseOption, at_home, guarded, run, set_up_logging
from mesh.cli.output import write

if TYPE_CHECKING:
    from mesh.home import Home
    from mesh.settings import Settings

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    app.command("bridge")(guarded(bridge))


def bridge(
    config: Annotated[
        Path,
        typer.Option("--config", metavar="FILE", help="The configuration, with its [[bridge]] tables."),
    ],
    check: Annotated[
        bool,
        typer.Option("--check", help="Validate, connect to each broker, say so and end; nothing is moved."),
    ] = False,
    name: NameOption = None,
    home: HomeOption = None,
    verbose: VerboseOption = 0,
) -> int:
    """Run the bridges of a configuration as a node of their own.

    (The daemon runs those that stand in its own configuration.) Prints a line that begins with "ready" when what the
    mesh publishes is taken; a broker that is away is waited for. SIGTERM and Ctrl-C bring what was taken to the
    brokers, or keep it on disk where a route is reliable, and end.

    \b
    Examples:
      mesh bridge --config /etc/zeromesh/bridges.toml --check
      mesh bridge --config /etc/zeromesh/bridges.toml
    """
    import trio

    from mesh.cli.base import bridge_settings, usage
    from mesh.errors import ConfigError
    from mesh.settings import load
    from mesh.settings.forms import reject_name

    if name is not None and (wrong := reject_name(name)):
        usage(f"--name {name!r}: {wrong}")
    # Held back until the bridges are up, so that a failure to start is one line.
    log = set_up_logging(verbose, default=logging.CRITICAL + 1 if check else logging.INFO, hold=True)
    settings = load(config, read_bridge=bridge_settings())
    if not settings.bridges:
        raise ConfigError("has no [[bridge]]", file=str(config))
    if check:
        return run(lambda: _check(settings))
    if verbose == 0:
        log.set_level(settings.node.log)
    where = at_home(home)

    def announce(line: str) -> None:
        write(line + "\n")
        log.release()

    trio.run(_bridge, where, settings, name, announce)
    return 0


async def _check(settings: Settings) -> int:
    from bridges import BrokerError, check_bridge

    for each in settings.bridges:
        try:
            await check_bridge(each)
        except BrokerError as error:
            raise BrokerError(f"bridge {each.name}: {each.address}: {error}") from None
        write(f"{each.name}: {each.address}: connected\n")
    return 0


async def _bridge(home: Home, settings: Settings, name: str | None, announce: Callable[[str], None]) -> None:
    import trio

    import mesh
    from bridges import open_bridges

    node = settings.node
    called = name or node.name or f"{home.credentials().certificate.name[:40]}-bridge-{os.getpid()}"
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with (
            mesh.open_node(
                called,
                home=home.path,
                listen=node.listen,
                connect=node.connect,
                discovery=node.discovery,
                config=node.config,
            ) as opened,
            open_bridges(opened, settings.bridges, spool_folder=home.path / "bridges"),
        ):
            announce(f"ready {opened.name} {opened.id} {' '.join(each.name for each in settings.bridges)}")
            await anext(signals)
