"""``mesh daemon``: this machine's node in the foreground, under one nursery.

    home's lock → open_node (the configured endpoints, and a Unix socket for local programs)
        → control socket → admission of newcomers → web gateway → ``ready`` → until SIGTERM or SIGINT
        → drained, closed

SIGHUP reads the configuration again: new seeds are dialled and the log level is set at once; whatever else
changed is named in the log as wanting a restart.  Other programs of this home find the daemon by the
endpoints that it writes there (``Home.announce_daemon``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final

import trio

import mesh
from mesh.daemon import notify
from mesh.daemon.administration import Administration
from mesh.daemon.control import Control
from mesh.daemon.measuring import Measuring
from mesh.daemon.operations import Operations, control_socket
from mesh.daemon.web import serve_web
from mesh.errors import MeshError, TransportError
from mesh.home import Admission, Custody, Home
from mesh.node.message import PeerJoined, PeerLeft
from mesh.settings import HttpSettings, ReadBridge, Settings, load

__all__ = ["DEFAULT_LISTEN", "STOP_WITHIN", "Daemon"]

DEFAULT_LISTEN: Final = "tcp://*:7400"
ANY_PORT: Final = "tcp://*:0"
STOP_WITHIN: Final = 9.0
"""Seconds from the signal to the end of the process, whatever hangs."""
_SUN_PATH: Final = 107  # bytes in the name of a Unix socket (unix(7))

_log = logging.getLogger(__name__)


class Daemon:
    """One run of the daemon.

    ``http`` is where the web gateway listens, whatever the settings say. ``passphrase`` opens a wrapped CA key. ``file`` is the configuration to read
    again on SIGHUP (None: there is none). ``announce`` is called
    once with the line that says that it is ready, ``set_log_level`` with the level of the configuration.
    ``read_bridge`` makes what reads the bridges' tables of one file, when it is read again.
    """

    def __init__(
        self,
        home: Home,
        settings: Settings,
        *,
        name: str | None = None,
        http: str | None = None,
        passphrase: str | None = None,
        file: Path | None = None,
        announce: Callable[[str], None],
        set_log_level: Callable[[str], None] = lambda level: None,
        read_bridge: Callable[[], ReadBridge] | None = None,
    ) -> None:
        self._home = home
        self._http = http
        self._passphrase = passphrase
        self._settings = self._with_http(settings)
        self._name = name
        self._file = file
        self._announce = announce
        self._set_log_level = set_log_level
        self._read_bridge = read_bridge
        self._stopping = trio.Event()

    def _with_http(self, settings: Settings) -> Settings:
        if self._http is None:
            return settings
        return dataclasses.replace(
            settings, http=dataclasses.replace(settings.http or HttpSettings(), listen=self._http)
        )

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT. Raises ``MeshError`` for what keeps it from starting."""
        with (
            self._home.claim_daemon(),
            trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals,
        ):
            credentials = self._home.credentials()
            await self._unlock()
            name = self._name or self._settings.node.name or credentials.certificate.name
            left: list[mesh.Node] = []
            async with self._open(name) as node, trio.open_nursery() as nursery:
                left.append(node)
                node.answer_joins(Admission(self._home, credentials.ca_public_key))
                operations = Operations(node, self._home)
                control = Control(control_socket(self._home), operations.single(), operations.streams())
                await nursery.start(control.run)
                nursery.start_soon(Measuring(node).run)
                nursery.start_soon(Administration(node, operations, self._home).run)
                self._home.announce_daemon(
                    sorted(node.endpoints, key=lambda each: not each.startswith("ipc://"))
                )
                nursery.start_soon(self._watch_peers, node)
                async with self._bridges(node):
                    web: list[str] = []
                    if self._settings.http is not None:
                        web = await nursery.start(serve_web, node, self._home, self._settings.http)
                    self._announce(f"ready {node.name} {node.id} {' '.join((*node.endpoints, *web))}")
                    notify.ready(self._status(node))
                    await self._heed(signals, node)
                    notify.stopping()
                    _end_within(STOP_WITHIN)
                nursery.cancel_scope.cancel()
            self._clean_up()
            _say_last(left[0])

    async def _unlock(self) -> None:
        """Open a wrapped CA key, or say what it means that it stays locked. Raises ``WrongPassphrase``."""
        passphrase, self._passphrase = self._passphrase, None
        if not self._home.custodian.locked:
            return
        if passphrase is not None:
            await trio.to_thread.run_sync(Custody(self._home).unlock, passphrase)
            return
        _log.warning(
            "the CA key is wrapped: until `mesh ca unlock`, nobody can join through this machine, and it renews no "
            "certificates"
        )

    # -- opening --------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _open(self, name: str) -> AsyncIterator[mesh.Node]:
        """The node, on the port that people expect unless somebody else has it."""
        node = self._settings.node
        local = self._local()
        if node.listen is not None:
            async with self._node(name, (*node.listen, *local)) as opened:
                yield opened
            return
        entered = False
        try:
            async with self._node(name, (DEFAULT_LISTEN, *local)) as opened:
                entered = True
                yield opened
            return
        except TransportError as error:
            if entered or "in use" not in error.reason:
                raise
            _log.info("%s: %s", DEFAULT_LISTEN, error.reason)
        async with self._node(name, (ANY_PORT, *local)) as opened:
            yield opened

    def _node(self, name: str, listen: Sequence[str]) -> contextlib.AbstractAsyncContextManager[mesh.Node]:
        node = self._settings.node
        return mesh.open_node(
            name,
            home=self._home,
            listen=listen,
            connect=node.connect,
            discovery=node.discovery,
            config=node.config,
        )

    @contextlib.asynccontextmanager
    async def _bridges(self, node: mesh.Node) -> AsyncIterator[None]:
        """Those of the configuration, read as ``bridges.read_bridge`` does. Closed, they empty what they hold."""
        if not self._settings.bridges:
            yield
            return
        # Imported where they are wanted: a daemon without bridges needs none of it.
        from bridges import open_bridges

        folder = self._home.path / "bridges"
        async with open_bridges(node, self._settings.bridges, spool_folder=folder):
            yield

    def _local(self) -> tuple[str, ...]:
        """A Unix socket for the programs of this home, if its name fits."""
        path = self._home.path / "run" / "daemon"
        if len(os.fsencode(path)) + len(".broadcast") > _SUN_PATH:
            _log.warning("%s is too long for a Unix socket: local programs will use TCP", path)
            return ()
        path.parent.mkdir(mode=0o700, exist_ok=True)
        return (f"ipc://{path}",)

    def _clean_up(self) -> None:
        """libzmq leaves the files of its Unix sockets behind."""
        for plane in ("intro", "direct", "broadcast"):
            (self._home.path / "run" / f"daemon.{plane}").unlink(missing_ok=True)

    # -- running --------------------------------------------------------------------------

    async def _watch_peers(self, node: mesh.Node) -> None:
        async for event in node.watch_peers():
            if isinstance(event, (PeerJoined, PeerLeft)):
                _log.info("%s %s (%s)%s", *_told(event))
            else:
                _log.warning("%s %s (%s)%s", *_told(event))
            notify.status(self._status(node))

    @staticmethod
    def _status(node: mesh.Node) -> str:
        return f"{node.name}: {len(node.peers)} peers"

    async def _heed(self, signals: AsyncIterator[int], node: mesh.Node) -> None:
        """Return when told to stop."""
        async for number in signals:
            if number != signal.SIGHUP:
                _log.info("stopping on %s", signal.Signals(number).name)
                return
            notify.reloading()
            self._reload(node)
            notify.ready(self._status(node))

    def _reload(self, node: mesh.Node) -> None:
        if self._file is None or not self._file.exists():
            _log.info("there is no configuration file to read again")
            return
        try:
            new = self._with_http(load(self._file, read_bridge=self._read_bridge and self._read_bridge()))
        except MeshError as error:
            _log.error("not reloaded: %s", error)
            return
        old, self._settings = self._settings, new
        for endpoint in new.node.connect:
            if endpoint not in old.node.connect:
                _log.info("new seed %s", endpoint)
                node.add_seed(endpoint)
        self._set_log_level(new.node.log)
        for what in _wants_restart(old, new):
            _log.warning("%s: %s changed: restart the daemon for that", self._file, what)
        _log.info("reloaded %s", self._file)


def _say_last(node: mesh.Node) -> None:
    """What became of everything that was to be sent; the line before it has it topic by topic."""
    unsent = node.statistics().unsent
    if unsent:
        _log.warning("stopped %s: %d messages were not sent", node.name, unsent)
    else:
        _log.info("stopped %s: everything was sent", node.name)


def _told(event: mesh.PeerEvent) -> tuple[str, str, str, str]:
    kind = type(event).__name__.removeprefix("Peer").lower()
    return event.peer.name, kind, event.peer.id, f": {event.why}" if event.why else ""


def _wants_restart(old: Settings, new: Settings) -> list[str]:
    changed = [
        f"node.{each.name}"
        for each in dataclasses.fields(new.node)
        if each.name not in ("connect", "log")
        and getattr(old.node, each.name) != getattr(new.node, each.name)
    ]
    if set(old.node.connect) - set(new.node.connect):
        changed.append("node.connect (a seed was taken out)")
    changed += [name for name in ("http", "bridges", "allow") if getattr(old, name) != getattr(new, name)]
    return changed


def _end_within(seconds: float) -> None:
    """End the process that late at the latest: a resolver or a disk that hangs must not hold a shutdown up."""

    def end() -> None:
        _log.error("not drained after %g s: ended all the same", seconds)
        os._exit(0)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
