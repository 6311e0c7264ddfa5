"""Asking the machine that holds the CA key, over the mesh: what ``members``, ``invite`` and ``revoke`` do elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mesh.cli.base import run
from mesh.errors import CredentialError, NoResponders

if TYPE_CHECKING:
    import mesh
    from mesh.home import Home

__all__ = ["ask_holder"]

_PATIENCE: Final = 10.0
"""Seconds for an answer: a signature, a write to the disk, and a round trip."""


def ask_holder(home: Home, act: str, **asked: Any) -> Any:
    """What it answers. Raises ``CredentialError`` if nobody does, if it may not be asked, or if the answer is false."""
    answers: list[Any] = []

    async def asking() -> None:
        from mesh.cli.nodes import joined, patiently

        async with joined(home.path) as node:
            try:
                answers.append(await patiently(lambda: _ask(node, act, asked)))
            except NoResponders:
                raise CredentialError(
                    "the CA key is not in this home, and no daemon that holds it is in the mesh now: "
                    "do this on the machine that made the mesh, or start its daemon"
                ) from None

    run(asking)
    if not answers:
        raise CredentialError("stopped before an answer came")
    _check(home, act, answers[0])
    return answers[0]


async def _ask(node: mesh.Node, act: str, asked: dict[str, Any]) -> Any:
    import mesh
    from mesh.daemon.administration import TOPIC

    try:
        return await node.request(f"{TOPIC}/{act}", asked, timeout=_PATIENCE)
    except mesh.RemoteError as error:
        raise CredentialError(error.text) from None


def _check(home: Home, act: str, answer: Any) -> None:
    """Whoever answered is a member, and no more than that is known of it."""
    from mesh.core.identity import verify_revocations
    from mesh.core.token import decode_token
    from mesh.core.types import RemoteProtocolError

    mine = home.credentials(create=False)
    try:
        if act == "invite":
            true = decode_token(answer["token"]).mesh == mine.mesh
        elif act == "revoke":
            listed = verify_revocations(answer.pop("revocations"), mine.ca_public_key)
            true = bytes.fromhex(answer["id"]) in listed.members
        else:
            true = all({"id", "name", "roles", "expires", "revoked"} <= set(each) for each in answer)
    except (KeyError, TypeError, ValueError, AttributeError, CredentialError, RemoteProtocolError):
        true = False
    if not true:
        raise CredentialError("who answered does not hold the CA key, and made an answer up")
