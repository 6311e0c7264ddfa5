"""Answers newcomers on the intro plane, with the invitations of a home.

JoinHello and JoinProof in, challenge, grant or refusal out: an ``Inviter`` for each introduction, and the
home's files behind it, read again at each step, so that two nodes of one home never spend one use twice, and that
a home which becomes the CA, or is it no longer, answers as such at once.
"""

from __future__ import annotations

import logging
import os
from typing import Final

from mesh.core.join import Inviter, Proven, not_inviter, refuse
from mesh.core.messages import (
    JoinChallengeMessage,
    JoinGrantMessage,
    JoinHelloMessage,
    JoinProofMessage,
    RefuseMessage,
)
from mesh.core.types import RandomBytes, RemoteProtocolError
from mesh.errors import CredentialError
from mesh.home.home import Home

__all__ = ["MAX_PENDING", "Admission"]

MAX_PENDING: Final = 32
"""Newcomers in the middle of joining; the one that has waited longest makes room for another."""

_log = logging.getLogger(__name__)


class Admission:
    """Lets newcomers into the mesh of ``home`` if it holds the CA key (``mesh.core.introductions.JoinAnswerer``)."""

    def __init__(self, home: Home, ca_public_key: bytes, rng: RandomBytes = os.urandom) -> None:
        self._home = home
        self._ca_public_key = ca_public_key
        self._rng = rng
        self._pending: dict[int, Inviter] = {}

    def answer(
        self, route: int, message: JoinHelloMessage | JoinProofMessage, now: float
    ) -> JoinChallengeMessage | JoinGrantMessage | RefuseMessage:
        """The message to answer with. ``route`` tells one newcomer from another. Never raises for a peer's sake."""
        try:
            custodian = self._home.custodian
            if not custodian.here:
                return not_inviter()
            if custodian.locked:
                _log.warning("a newcomer was sent away: the CA key is wrapped, and `mesh ca unlock` opens it")
                return refuse(
                    "not_admitted", "the CA key of that machine is locked: unlock it there (mesh ca unlock)"
                )
            if isinstance(message, JoinHelloMessage):
                return self._hello(route, message, now)
            return self._proof(route, message, now)
        except RemoteProtocolError as error:
            return refuse("unexpected", error.detail)
        except CredentialError as error:
            # A file of ours that cannot be used, or a newcomer who cannot be certified. The path is ours.
            _log.warning("cannot admit a newcomer: %s", error)
            return refuse("not_admitted", error.reason[:256])

    def _hello(
        self, route: int, message: JoinHelloMessage, now: float
    ) -> JoinChallengeMessage | RefuseMessage:
        inviter = Inviter(self._ca_public_key, self._rng)
        answer = inviter.hello(message, self._home.find_invitation(message.invitation), now)
        self._pending.pop(route, None)
        if isinstance(answer, JoinChallengeMessage):
            if len(self._pending) >= MAX_PENDING:
                del self._pending[next(iter(self._pending))]
            self._pending[route] = inviter
        return answer

    def _proof(self, route: int, message: JoinProofMessage, now: float) -> JoinGrantMessage | RefuseMessage:
        inviter = self._pending.pop(route, None)
        if inviter is None or inviter.invitation is None:
            return refuse("unexpected", "a join begins with its hello: try again")
        answer = inviter.proof(message, self._home.find_invitation(inviter.invitation), now)
        if isinstance(answer, Proven):
            grant = self._home.redeem(answer)
            _log.info("%r joined the mesh", answer.name)
            return inviter.grant(grant)
        if inviter.failed:
            self._home.failed_attempt(inviter.invitation)
        return answer
