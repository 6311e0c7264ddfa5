"""Servers that tests need, installed where that is allowed (root, apt)."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.lab.leash import unmarked

__all__ = ["install"]

INSTALL_WITHIN = 400.0
"""Seconds for each of apt's two commands."""


def install(*packages: str) -> str | None:
    """Install Debian packages. Returns None once they are there, else why they can't be, in one line."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return f"not installed (Debian: {' '.join(packages)}), and only root could install it"
    # A run that is killed must not leave dpkg half-way: apt is on no leash.
    environment = {**unmarked(), "DEBIAN_FRONTEND": "noninteractive"}
    # Apt fails at once where another apt is at work, as another worker's may be.
    with (Path(tempfile.gettempdir()) / "zeromesh-tests-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for words in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            command = ["apt-get", "-qq", *words]
            try:
                done = subprocess.run(
                    command, capture_output=True, check=False, timeout=INSTALL_WITHIN, env=environment
                )
            except subprocess.TimeoutExpired:
                return f"{' '.join(command)} did not end within {INSTALL_WITHIN:.0f} s"
            if done.returncode != 0:
                return f"{' '.join(command)} exits with {done.returncode}"
    return None
