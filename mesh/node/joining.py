"""Becoming a member: a token's endpoints, and whoever the scout finds, are asked all at once.

endpoint → intro dial → ``Joiner`` (one for each, with the same key) → the first that grants wins.
What stands in the way is told apart: somebody refused (its reason in clear), somebody answered who
proves nothing, or nobody answered at all.  Only the intro plane is used, as a client of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence

import trio

from mesh.core.codec import decode_intro, encode_intro
from mesh.core.identity import SigningKey
from mesh.core.join import NOT_INVITER, Joined, Joiner
from mesh.core.messages import RefuseMessage
from mesh.core.token import Invitation
from mesh.core.types import PROTOCOL_VERSIONS, NodeId, Reason, RemoteProtocolError, printable
from mesh.discovery.base import Announcement, Candidate, Discovery
from mesh.errors import CredentialError, ProtocolMismatch
from mesh.transport.base import IntroRoute, Transport, Verdict

__all__ = ["MAX_DIALS", "join"]

MAX_DIALS = 32
"""Endpoints that are asked: those of the token, and some of a mesh whose every node the scout may find."""


class _Asking:
    """The answers, as the transport brings them (``TransportEvents``)."""

    def __init__(self, invitation: Invitation, key: SigningKey, name: str, transport: Transport) -> None:
        self._invitation, self._key, self._name = invitation, key, name
        self._transport = transport
        self._joiners: dict[IntroRoute, tuple[Joiner, str]] = {}
        self.asked: dict[str, str] = {}  # endpoint → how it ended, empty while it may still answer
        self.over = trio.Event()
        self.joined: Joined | None = None
        self.refusal = ""
        self.mismatch: ProtocolMismatch | None = None

    def ask(self, endpoints: Iterable[str]) -> None:
        for endpoint in endpoints:
            if endpoint in self.asked or len(self.asked) >= MAX_DIALS:
                continue
            joiner = Joiner(self._invitation, self._key, self._name, os.urandom)
            route = self._transport.dial_intro(endpoint)
            self.asked[endpoint] = ""
            self._joiners[route] = (joiner, endpoint)
            self._transport.send_intro(route, encode_intro(joiner.hello()))

    def found(self, candidate: Candidate) -> None:
        self.ask(candidate.intros)

    def intro_received(self, route: IntroRoute, frame: bytes, host: str) -> None:
        if route not in self._joiners or self.over.is_set():
            return
        joiner, endpoint = self._joiners[route]
        try:
            message = decode_intro(frame)
            if isinstance(message, RefuseMessage):
                self._refused(route, endpoint, message)
                return
            answer = joiner.receive(message, time.time())
        except RemoteProtocolError as error:
            # Also a clock that is off: the certificate then begins in the future, or has expired.
            if error.reason in (Reason.NOT_YET_VALID, Reason.EXPIRED):
                self._end(f"the certificate is {error.detail}: compare the clocks of the two machines")
            self._close(route, endpoint, error.detail or error.reason.value)
            return
        if isinstance(answer, Joined):
            self.joined = answer
            self._close(route, endpoint, "joined")
            self.over.set()
        else:
            self._transport.send_intro(route, encode_intro(answer))

    def _refused(self, route: IntroRoute, endpoint: str, message: RefuseMessage) -> None:
        text = printable(message.text)
        if message.reason == Reason.VERSION_MISMATCH.value:
            low, high = message.versions
            self.mismatch = ProtocolMismatch(PROTOCOL_VERSIONS, (low, high), endpoint)
        if message.reason != NOT_INVITER:
            self._end(text)
        self._close(route, endpoint, text)

    def _end(self, refusal: str) -> None:
        self.refusal = refusal
        self.over.set()

    def _close(self, route: IntroRoute, endpoint: str, how: str) -> None:
        del self._joiners[route]
        self.asked[endpoint] = how
        self._transport.close_intro(route)

    def intro_failed(self, route: IntroRoute, reason: str) -> None:
        if route in self._joiners:
            self._close(route, self._joiners[route][1], reason)

    # -- the planes that a newcomer does not use ----------------------------------

    def direct_received(self, sender: NodeId, frames: Sequence[bytes]) -> None:
        return

    def direct_seen(self, sender: NodeId, host: str) -> None:
        return

    def broadcast_received(self, frames: Sequence[tuple[bytes, bytes]]) -> None:
        return

    def subscription_received(self, body: bytes) -> Verdict:
        return Verdict(None)

    def rejected(self, plane: str, reason: str, count: int) -> None:
        return


async def join(
    invitation: Invitation,
    key: SigningKey,
    name: str,
    transport: Transport,
    discovery: Sequence[Discovery] = (),
    *,
    patience: float = 6.0,
) -> Joined:
    """Redeem an invitation for the member key ``key`` under ``name``; at most ``patience`` seconds.

    Raises ``CredentialError`` whose text says who refused and why, or that nobody answered; ``ProtocolMismatch`` if
    who refused speaks no version that we speak.
    """
    asking = _Asking(invitation, key, name, transport)
    async with trio.open_nursery() as nursery:
        await nursery.start(transport.run, asking)
        asking.ask(invitation.endpoints)
        announcement = Announcement(NodeId(os.urandom(16)), ())  # nobody can dial a newcomer
        for mechanism in discovery:
            nursery.start_soon(mechanism.run, announcement, asking.found)
        with trio.move_on_after(patience):
            await asking.over.wait()
        nursery.cancel_scope.cancel()
    if asking.joined is not None:
        return asking.joined
    if asking.mismatch is not None:
        raise asking.mismatch
    raise CredentialError(f"cannot join: {_why_not(asking)}")


def _why_not(asking: _Asking) -> str:
    if asking.refusal:
        return asking.refusal
    answers = {endpoint: how for endpoint, how in asking.asked.items() if how}
    if not asking.asked:
        return "the token names no endpoint, and no node of its mesh was found on this network"
    if answers:
        return "; ".join(f"{endpoint}: {how}" for endpoint, how in list(answers.items())[:3])
    return f"nobody answered at {', '.join(list(asking.asked)[:4])}: is `mesh daemon` running there?"
