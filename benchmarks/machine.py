"""What a result was measured on: the machine, Python, the packages, the commit, the date."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["commit", "describe"]

ROOT = Path(__file__).resolve().parent.parent


def describe(distributions: Iterable[str]) -> dict[str, Any]:
    """Everything that a number needs beside it to mean something."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
            "memory_bytes": _memory(),
            "system": platform.system(),
            "kernel": platform.release(),
            "architecture": platform.machine(),
            "load_average": list(os.getloadavg()),
        },
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: found for name in sorted(set(distributions)) if (found := _version(name))}
        | _libraries(),
    }


def commit() -> dict[str, Any] | None:
    """The commit of this checkout and whether files of the package differ from it; None without git."""
    try:
        name = _git("rev-parse", "HEAD")
        return {"id": name, "changed": bool(_git("status", "--porcelain", "--", "mesh", "benchmarks"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, check=True, text=True, timeout=30
    )
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _libraries() -> dict[str, str]:
    """Versions of what the packages bring along."""
    found = {}
    try:
        import zmq

        found["libzmq"] = zmq.zmq_version()
    except ImportError:
        pass
    try:
        from cryptography.hazmat.backends.openssl import backend

        found["openssl"] = backend.openssl_version_text()
    except ImportError:
        pass
    return found


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
