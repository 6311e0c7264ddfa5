"""What all commands share: their common options, running under Trio, and how they end.

A command is a plain function that typer calls.  ``guarded`` turns what it raises into one
line on standard error and an exit code; ``run`` runs its async half and ends it in order
on Ctrl-C and SIGTERM.

Exit codes: 0 done; 1 it failed, with one line why; 2 the command line is wrong; 128 + n
stopped by signal n before it was done (130 for Ctrl-C).  A command that runs until it is
stopped exits 0 when it is.
"""

from __future__ import annotations

import functools
import logging
import logging.handlers
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, ParamSpec

import typer

from mesh.cli.output import OutputClosed, say
from mesh.errors import MeshError

if TYPE_CHECKING:
    from mesh.home import Home
    from mesh.settings import ReadBridge, Settings

__all__ = [
    "ConnectOption",
    "HomeOption",
    "JsonOption",
    "Log",
    "NameOption",
    "UsageMistake",
    "VerboseOption",
    "at_home",
    "bridge_settings",
    "described",
    "guarded",
    "home_settings",
    "run",
    "set_up_logging",
    "usage",
]

P = ParamSpec("P")

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        metavar="FOLDER",
        help="Where identity and credentials are (else MESH_HOME, else your data folder).",
        show_default=False,
    ),
]
VerboseOption = Annotated[
    int,
    typer.Option(
        "-v", "--verbose", count=True, help="Log to standard error (-vv: more).", show_default=False
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
NameOption = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="What others see as sender.", show_default=False)
]
ConnectOption = Annotated[
    list[str] | None,
    typer.Option(
        "--connect",
        metavar="ENDPOINT",
        help="A peer to dial beside those discovered, such as tcp://cellar.local:7400 (may be repeated).",
        show_default=False,
    ),
]


class UsageMistake(MeshError):
    """The command line is wrong in a way that typer can't see: exit 2."""


def usage(reason: str) -> NoReturn:
    """End the command with exit code 2 and this line."""
    raise UsageMistake(reason)


def at_home(folder: Path | None) -> Home:
    """The home that ``--home``, ``MESH_HOME`` or the platform names."""
    from mesh.home import Home

    return Home(folder)


def home_settings(home: Home) -> Settings:
    """The home's ``mesh.toml``, if there is one."""
    from mesh.settings import Settings, load

    file = home.path / "mesh.toml"
    return load(file) if file.exists() else Settings()


def bridge_settings() -> ReadBridge:
    """What reads the tables of bridges in one file. Nothing of a bridge is loaded before there is one."""
    read: ReadBridge | None = None

    def read_bridge(document: Mapping[str, Any]) -> Any:
        nonlocal read
        if read is None:
            from bridges import bridge_reader

            read = bridge_reader()
        return read(document)

    return read_bridge


# -- how commands end -------------------------------------------------------------------------


def described(error: BaseException) -> str:
    """An error as one line."""
    if isinstance(error, OSError) and not isinstance(error, MeshError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = str(error) or type(error).__name__
    return " ".join(text.split())


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _ending(error: BaseException) -> int | None:
    """The exit code for what a user can cause, having said what it was; None for a bug of ours."""
    causes = list(_leaves(error))
    if any(isinstance(cause, OutputClosed) for cause in causes):
        return 0
    if any(isinstance(cause, KeyboardInterrupt) for cause in causes):
        return 128 + signal.SIGINT
    if all(isinstance(cause, (MeshError, OSError)) for cause in causes):
        say(f"mesh: {described(causes[0])}")
        return 2 if isinstance(causes[0], UsageMistake) else 1
    return None


def guarded(command: Callable[P, int | None]) -> Callable[P, None]:
    """A command for typer: its result is the exit code, its user's mistakes are one line."""

    @functools.wraps(command)
    def guard(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = command(*args, **kwargs)
        except (KeyboardInterrupt, OutputClosed, MeshError, OSError, BaseExceptionGroup) as error:
            code = _ending(error)
            if code is None:
                raise
        raise typer.Exit(code or 0)

    return guard


def run(main: Callable[[], Awaitable[Any]], *, endless: bool = False) -> int:
    """Run the async half of a command. ``endless`` ones are done when a signal stops them.

    The first signal cancels, so that nodes say goodbye; the second ends the process at once.
    """
    import trio

    async def wrapped() -> int:
        stopped_by = 0

        async def watch(task_status: trio.TaskStatus[None]) -> None:
            nonlocal stopped_by
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                task_status.started()
                async for number in signals:
                    stopped_by = number
                    break
            nursery.cancel_scope.cancel()

        result = 0
        async with trio.open_nursery() as nursery:
            await nursery.start(watch)
            result = await main() or 0
            nursery.cancel_scope.cancel()
        if stopped_by:
            return 0 if endless else 128 + stopped_by
        return result

    return trio.run(wrapped)


class Log:
    """The log on standard error. Held back, it is kept until ``release``, and lost if that never comes."""

    def __init__(self, level: int, *, hold: bool) -> None:
        self._stream = logging.StreamHandler(sys.stderr)
        self._stream.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
        self._held = logging.handlers.MemoryHandler(1000, logging.CRITICAL + 1, flushOnClose=False)
        self._log = logging.getLogger("mesh")
        self._log.propagate = False
        self._log.handlers[:] = [self._held if hold else self._stream]
        self._log.setLevel(level)

    def release(self) -> None:
        self._held.setTarget(self._stream)
        self._held.flush()
        self._log.handlers[:] = [self._stream]

    def set_level(self, name: str) -> None:
        """``debug``, ``info``, ``warning`` or ``error``."""
        self._log.setLevel(name.upper())


def set_up_logging(verbose: int, *, default: int = logging.CRITICAL + 1, hold: bool = False) -> Log:
    """Log to standard error: nothing by default, INFO with ``-v``, DEBUG with ``-vv``."""
    # zeroconf logs an interface that went away as an exception; the node says so in a line of its own.
    logging.getLogger("zeroconf").setLevel(logging.DEBUG if verbose > 1 else logging.CRITICAL + 1)
    level = default if verbose == 0 else logging.INFO if verbose == 1 else logging.DEBUG
    return Log(level, hold=hold)
