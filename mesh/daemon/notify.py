"""Tell systemd (or any supervisor that speaks sd_notify(3)) how the daemon is doing.

One datagram of ``KEY=VALUE`` lines to the socket that ``NOTIFY_SOCKET`` names; without that
variable nothing happens.  A supervisor that is not there must not stop the daemon, so
failures to send are logged and that is all.
"""

from __future__ import annotations

import logging
import os
import socket
import time

__all__ = ["ready", "reloading", "status", "stopping"]

_log = logging.getLogger(__name__)


def ready(text: str = "") -> None:
    """The daemon is up (also: has finished reloading)."""
    _notify("READY=1", text)


def stopping(text: str = "") -> None:
    """The daemon has begun to stop."""
    _notify("STOPPING=1", text)


def reloading() -> None:
    """A reload begins; ``ready`` ends it. (``Type=notify-reload`` wants the monotonic time with it.)"""
    _notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}", "")


def status(text: str) -> None:
    """One line for ``systemctl status``."""
    _notify("", text)


def _notify(state: str, text: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # Linux's abstract namespace
        address = "\0" + address[1:]
    message = "\n".join(filter(None, (state, "STATUS=" + " ".join(text.split()) if text else "")))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.setblocking(False)
        try:
            channel.sendto(message.encode(), address)
        except OSError as error:
            _log.warning("NOTIFY_SOCKET cannot be told %s: %s", state.split("\n")[0] or "the status", error)
