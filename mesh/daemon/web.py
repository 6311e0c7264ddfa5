"""The web gateway inside the daemon: its tokens are the home's, and a failure restarts it, not the daemon.

FastAPI and hypercorn are imported here, when a gateway is wanted, and nowhere before.
"""

from __future__ import annotations

import logging
import resource
from typing import TYPE_CHECKING

import trio

import mesh
from mesh.errors import ConfigError, CredentialError
from mesh.home.tokens import TokenFile
from mesh.settings import HttpSettings

if TYPE_CHECKING:
    from bridges.web.scopes import Grant
    from mesh.home import Home

__all__ = ["HomeTokens", "serve_web"]

_log = logging.getLogger(__name__)


class HomeTokens:
    """The home's tokens, as the gateway asks for them. What cannot be read lets nobody in."""

    def __init__(self, home: Home) -> None:
        self._file = TokenFile(home.path)

    def find(self, token: str) -> Grant | None:
        from bridges.web.scopes import Grant

        try:
            found = self._file.find(token)
            return None if found is None else Grant.of(found.id, found.scopes)
        except (CredentialError, ConfigError) as error:
            _log.error("%s", error)
            return None

    def holds(self, identifier: str) -> bool:
        try:
            return any(token.id == identifier for token in self._file.all())
        except CredentialError as error:
            _log.error("%s", error)
            return False

    def exist(self) -> bool:
        try:
            return bool(self._file.all())
        except CredentialError as error:
            _log.error("%s", error)
            return True  # whoever made tokens wants them asked for


async def serve_web(
    node: mesh.Node,
    home: Home,
    http: HttpSettings,
    *,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the gateway until cancelled; ``task_status`` gets the URLs where it listens.

    Raises ``ConfigError`` (the extra is not installed, the certificate is none), ``TransportError`` (the port).
    """
    try:
        from bridges.web.gateway import Gateway, WebSettings
    except ImportError as error:
        raise ConfigError(
            f"the web gateway needs the extra \"web\": pip install 'zeromesh[web]' ({error})", key="http"
        ) from None
    host, _, port = http.listen.rpartition(":")
    _allow_many_sockets()
    gateway = Gateway(
        node,
        HomeTokens(home),
        WebSettings(host.strip("[]"), int(port), http.origins, http.hosts, http.certificate, http.key),
    )
    task_status.started(await gateway.bind())
    await mesh.supervise(gateway.run, name="web gateway", restart="always", max_restarts=10)


def _allow_many_sockets() -> None:
    """Each client is a file descriptor; many systems allow 1,024 unless they are asked."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
