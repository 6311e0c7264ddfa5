"""The public names of ``mesh``: all there, and imported only when they are asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import mesh


@pytest.mark.parametrize("name", mesh.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(mesh, name).__name__ == name
    assert name in dir(mesh)


def test_submodules_are_there_after_import_mesh() -> None:
    assert mesh.errors.MeshError is mesh.MeshError
    assert callable(mesh.aio.open_node)
    assert callable(mesh.sync.open_node)


def test_what_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'mesh' has no attribute 'nonsense'"):
        mesh.nonsense  # noqa: B018


def test_help_needs_none_of_the_heavy_parts() -> None:
    program = (
        "import sys, mesh.cli.main as command\n"
        "try: command.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('trio', 'zmq', 'zeroconf', 'cryptography', 'rich', 'psutil') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
