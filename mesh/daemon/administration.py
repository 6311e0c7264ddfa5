"""What members may ask of the machine that holds the CA key: ``members``, ``invite``, ``revoke``, over the mesh.

A request to ``TOPIC/ACT`` → the rules of this home, on the certificate that came with the asker's link → the
operation that the daemon's own commands use.  Only who holds the key serves, for as long as it does.  Every
invitation and removal is logged with the member who asked for it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import trio

from mesh.core.rules import ADMIN
from mesh.core.types import NodeId
from mesh.errors import ConfigError, CredentialError, NodeClosed, NotAuthorized

if TYPE_CHECKING:
    import mesh
    from mesh.daemon.operations import Operations
    from mesh.home import Home

__all__ = ["ACTS", "TOPIC", "Administration"]

TOPIC: Final = "zeromesh/admin"
ACTS: Final = ("members", "invite", "revoke")

_LOOK_EVERY: Final = 2.0  # s: whether this home holds the CA key, which comes and goes

_log = logging.getLogger(__name__)


class Administration:
    """The service of one daemon."""

    def __init__(self, node: mesh.Node, operations: Operations, home: Home) -> None:
        self._node = node
        self._operations = operations
        self._home = home

    async def run(self) -> None:
        """Serve whenever the CA key is here, until cancelled or until the node closes."""
        while True:
            if self._holds():
                async with trio.open_nursery() as nursery:
                    for act in ACTS:
                        nursery.start_soon(self._serve, act)
                    while self._holds():  # noqa: ASYNC110 - another process writes the file
                        await trio.sleep(_LOOK_EVERY)
                    nursery.cancel_scope.cancel()
            await trio.sleep(_LOOK_EVERY)

    def _holds(self) -> bool:
        try:
            return self._home.is_ca
        except CredentialError as error:
            # Policy: a home that cannot be read holds nothing, and ends no daemon.
            _log.warning("%s", error)
            return False

    async def _serve(self, act: str) -> None:
        operation = self._operations.single()[act]

        async def answer(request: mesh.Request) -> Any:
            asked = request.value if isinstance(request.value, Mapping) else {}
            for each in _acts(act, asked):
                self._permit(request.sender, each)
            answered = await operation(asked)
            if act != "members":
                _log.info("%s: %s asked for it (%s)", act, request.sender.member, _what(act, asked, answered))
            if act == "revoke":
                # Signed by the CA: the asker need not believe whoever answers.
                answered["revocations"] = self._home.credentials(create=False).revocations_bytes
            return answered

        try:
            await self._node.serve(f"{TOPIC}/{act}", answer, concurrency=1)
        except NodeClosed:
            return

    def _permit(self, peer: mesh.Peer, act: str) -> None:
        """Raises ``NotAuthorized``."""
        node = self._node
        if peer.id == node.id:
            return  # a program of this very process
        why = node._engine.access.denial(ADMIN, NodeId(bytes.fromhex(peer.id)), act)
        node._pump.apply()
        if why is not None:
            raise NotAuthorized(ADMIN, act, why)


def _acts(act: str, asked: Mapping[str, Any]) -> list[str]:
    """What the rules are asked for. Who may invite gives no roles by that, but those that a rule names."""
    roles = asked.get("roles", []) if act == "invite" else []
    if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
        raise ConfigError("expected a list of texts", key="roles")
    return [f"{act}/{role}" for role in roles] or [act]


def _what(act: str, asked: Mapping[str, Any], answered: Mapping[str, Any]) -> str:
    if act == "revoke":
        return f"{answered['name']} {answered['id']}"
    return f"{asked.get('uses')} uses, roles {', '.join(asked.get('roles', [])) or 'none'}"
