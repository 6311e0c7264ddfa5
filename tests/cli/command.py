"""The real command in a process of its own, as a person would run it."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mesh.cli.main import main
from tests.lab import Running, running

__all__ = ["Done", "daemon", "home_at", "mesh", "mesh_here", "started"]

QUIET = "[node]\ndiscovery = []\npreset = 'local'\n"
"""Nothing is multicast: who shall meet says so by a seed, or shares a home."""


@dataclass
class Done:
    """A command that has ended."""

    code: int
    stdout: list[str]
    stderr: list[str]

    @property
    def json(self) -> Any:
        assert self.stdout, self
        return json.loads("\n".join(self.stdout))

    @property
    def line(self) -> str:
        """The one line on standard error that a failure has."""
        assert len(self.stderr) == 1, self.stderr
        assert self.stderr[0].startswith("mesh: "), self.stderr
        assert not self.stdout, self.stdout
        return self.stderr[0].removeprefix("mesh: ")


def home_at(folder: Path, toml: str = QUIET) -> Path:
    """A private home folder with this ``mesh.toml``."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "mesh.toml").write_text(toml)
    return folder


def started(
    *words: str, home: Path | None = None, env: Mapping[str, str] | None = None
) -> AbstractAsyncContextManager[Running]:
    """The command, running for the length of the block."""
    environment = {"TERM": "dumb", **({} if home is None else {"MESH_HOME": str(home)}), **(env or {})}
    return running([sys.executable, "-m", "mesh.cli.main", *words], env=environment, measured=True)


async def mesh(
    *words: str,
    home: Path | None = None,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    within: float = 30.0,
) -> Done:
    """Run the command to its end."""
    async with started(*words, home=home, env=env) as program:
        if stdin:
            await program.send(stdin)
        await program.close_stdin()
        code = await program.wait(within=within)
        return Done(code, program.stdout, program.stderr)


def mesh_here(capfd: pytest.CaptureFixture[str], *words: str) -> Done:
    """Run the command to its end in this process: for tables of mistakes, where a process each costs a second."""
    log = logging.getLogger("mesh")
    before = log.handlers[:], log.propagate, log.level
    try:
        with pytest.raises(SystemExit) as ended:
            main(words)
    finally:
        log.handlers[:], log.propagate, level = before
        log.setLevel(level)
    said = capfd.readouterr()
    assert isinstance(ended.value.code, int)
    return Done(ended.value.code, said.out.splitlines(), said.err.splitlines())


@asynccontextmanager
async def daemon(home: Path, *words: str) -> AsyncIterator[Running]:
    """A daemon that is ready. Its ready line is ``stdout[0]``."""
    async with started("daemon", *words, home=home) as program:
        await program.expect("^ready ", within=30.0)
        yield program
