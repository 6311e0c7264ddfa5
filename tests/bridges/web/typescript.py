"""The TypeScript compiler, from the npm registry into the user's cache."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import platformdirs

VERSION = "5.9.3"

_INSTALL_WITHIN = 300.0


def compiler() -> Path:
    """``tsc.js``, for Node. Installed on first use; raises ``OSError`` with why it cannot be."""
    found = _install()
    if isinstance(found, str):
        raise OSError(found)
    return found


@cache
def _install() -> Path | str:
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        return "npm and node are not here"
    folder = platformdirs.user_cache_path("zeromesh-tests")
    folder.mkdir(parents=True, exist_ok=True)
    there = folder / f"typescript-{VERSION}"
    if not there.is_dir():
        with tempfile.TemporaryDirectory(dir=folder) as fresh:
            command = [npm, "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
            command += ["--prefix", fresh, f"typescript@{VERSION}"]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_WITHIN)
            except subprocess.TimeoutExpired:
                return f"npm did not install typescript within {_INSTALL_WITHIN:g} s"
            if done.returncode != 0:
                return f"npm install typescript exits with {done.returncode}"
            try:
                (Path(fresh) / "node_modules/typescript").rename(there)
            except OSError:
                if not there.is_dir():  # else another run was faster; what it made is as good
                    raise
    return there / "lib/tsc.js"
