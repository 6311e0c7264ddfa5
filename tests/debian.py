"""Debian's packages, for what tests need and a machine lacks."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess

import platformdirs

_WITHIN = 400.0


def install(*packages: str) -> str | None:
    """None when they are installed; otherwise why they are not. For root, where there is apt."""
    names = " ".join(packages)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return f"only root could install it, with apt ({names})"
    lock = platformdirs.user_cache_path("zeromesh-tests", ensure_exists=True) / "apt.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # another worker's installation comes first
        return _install(packages)


def _install(packages: tuple[str, ...]) -> str | None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        command = ["apt-get", "-qq", *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_WITHIN, env=environment)
        except subprocess.TimeoutExpired:
            return f"{' '.join(command)} did not end within {_WITHIN:g} s"
        if done.returncode != 0:
            return f"{' '.join(command)} exits with {done.returncode}"
    return None
